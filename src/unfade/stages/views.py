"""Pictures for the report: photos, results and faces as screen-sized JPEG files, whatever the formats of the photos."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from unfade.atomic import atomic_write
from unfade.faces.align import crop, onto, scale_of, scaled
from unfade.images.files import encode, view
from unfade.images.photo import Photo
from unfade.images.photo_files import read_photo
from unfade.jobs.journal import Journal
from unfade.jobs.outputs import Outputs, withdraw_others
from unfade.progress import Progress, silent
from unfade.stages.photos import Finder
from unfade.store.checkpoints import sha256_of
from unfade.store.seeds import fingerprint

Pairs = Mapping[str, tuple[Path, Path]]  # by name, a photo and its result
STAGE = "report"
SIDE = 1600  # px, the longer side of a photo in a report
LARGEST = 512  # px, of a face's picture
QUALITY = 90  # of the JPEGs
BEFORE, AFTER = "before.jpg", "after.jpg"


@dataclass(frozen=True)
class Views:
    """The pictures of one photo, each before and after restoration."""

    photo: tuple[Path, Path]
    faces: Mapping[int, tuple[Path, Path]]  # by the number of the face in its photo, from left to right


@dataclass(frozen=True)
class FacesToo:
    """Which faces of a photo are also shown on their own."""

    find: Finder
    size: int  # px, of the restorer's faces; pictures have this size, or up to LARGEST if the photo has more detail
    scale: int = 1  # how many times as large as its photo a result is


def write_views(
    photos: Pairs, out: Path, faces: FacesToo | None, *, journal: Journal, key: str = "", progress: Progress = silent
) -> dict[str, Views]:
    """Write the views of photos and their results, given by name, to `out`; returns those that could be made, by name.

    Views that were already made of the same two files are kept; those of photos that are not given are removed. `key`
    identifies which faces are found.
    """
    outputs = Outputs(
        STAGE, out, journal, fingerprint(key, SIDE, LARGEST, QUALITY, faces and (faces.size, faces.scale))
    )
    withdraw_others(outputs, photos)
    with progress(STAGE, len(photos)) as advance:
        for name, (before, after) in photos.items():
            with outputs.alone(name, before):
                content = sha256_of(before) + sha256_of(after)
                if not outputs.settled(name, content):
                    _write(name, before, content, dict(_views(name, before, after, faces)), outputs)
            advance(1)
    return {entry.item: _found(out, entry.outputs) for entry in outputs.entries(photos) if entry.status == "done"}


def _write(name: str, before: Path, content: str, pictures: Mapping[str, Tensor], outputs: Outputs) -> None:
    outputs.claim(name, before, *pictures)
    with outputs.writing(name, before, content) as writing:
        for path, picture in zip(writing.files, pictures.values(), strict=True):
            atomic_write(path, encode(picture, "JPEG", quality=QUALITY))


def _views(name: str, before: Path, after: Path, faces: FacesToo | None) -> Iterator[tuple[str, Tensor]]:
    """Pictures by file name; the names are hashes, so that any file system and any page accepts them."""
    start, photo, result = hashlib.sha256(os.fsencode(name)).hexdigest()[:16], read_photo(before), read_photo(after)
    yield f"{start}-{BEFORE}", view(photo, SIDE)
    yield f"{start}-{AFTER}", view(result, SIDE)
    if faces is not None:
        for index, pair in _crops(name, photo, result, faces):
            for ending, face in zip((BEFORE, AFTER), pair, strict=True):
                yield f"{start}-{index:02d}-{ending}", face


def _crops(name: str, photo: Photo, result: Photo, faces: FacesToo) -> Iterator[tuple[int, tuple[Tensor, Tensor]]]:
    for found in faces.find(name, photo):
        side = max(faces.size, min(round(faces.size / scale_of(found.matrix)), LARGEST))
        matrix = onto(found.matrix, side / faces.size)
        yield found.index, (crop(photo, matrix, side), crop(result, scaled(matrix, faces.scale), side))


def _found(out: Path, files: tuple[str, ...]) -> Views:
    """The views by their file names: START-before.jpg, START-after.jpg, and START-NUMBER-... for each face."""
    pairs = [(out / one, out / other) for one, other in zip(files[::2], files[1::2], strict=True)]
    return Views(pairs[0], {int(pair[0].name.split("-")[1]): pair for pair in pairs[1:]})
