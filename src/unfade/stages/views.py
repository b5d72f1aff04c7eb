"""Pictures for the report: photos, results and faces as screen-sized JPEG files, whatever the formats of the photos."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from unfade.atomic import atomic_write
from unfade.faces.align import crop, onto, scale_of, scaled
from unfade.images.decoding import read_photo
from unfade.images.files import encode, view
from unfade.images.photo import Photo
from unfade.jobs.outputs import Outputs, withdraw_others
from unfade.jobs.runs import Run
from unfade.stages.photos import Finder
from unfade.store.checkpoints import sha256_of
from unfade.store.seeds import fingerprint

Files = Mapping[str, tuple[Path, ...]]  # by name, a photo, its result and, if there is one, its trust map
STAGE = "report"
SIDE = 1600  # px, the longer side of a photo in a report
LARGEST = 512  # px, of a face's picture
QUALITY = 90  # of the JPEGs
BEFORE, AFTER, TRUST = "before.jpg", "after.jpg", "trust.jpg"
DOUBTED = (1.0, -1.0, -1.0)  # red: what the map is laid over a face in


@dataclass(frozen=True)
class Views:
    """The pictures of one photo, each before and after restoration."""

    photo: tuple[Path, Path]
    faces: Mapping[int, tuple[Path, ...]]  # by the number of the face in its photo, from left to right; with a trust
    #                                        map also the result under it


@dataclass(frozen=True)
class FacesToo:
    """Which faces of a photo are also shown on their own."""

    find: Finder
    size: int  # px, of the restorer's faces; pictures have this size, or up to LARGEST if the photo has more detail
    scale: int = 1  # how many times as large as its photo a result is


def write_views(photos: Files, run: Run, faces: FacesToo | None, *, key: str = "") -> dict[str, Views]:
    """Write the views of photos and their results, given by name, to the run's folder.

    Returns those that could be made, by name. Views that were already made of the same two files are kept; those of
    photos that are not given are removed. `key` identifies which faces are found.
    """
    outputs = Outputs(STAGE, run, fingerprint(key, SIDE, LARGEST, QUALITY, faces and (faces.size, faces.scale)))
    withdraw_others(outputs, photos)
    with run.progress(STAGE, len(photos)) as advance:
        for name, files in photos.items():
            with outputs.alone(name, files[0]):
                content = "".join(map(sha256_of, files))
                if not outputs.settled(name, content):
                    _write(name, files[0], content, dict(_views(name, files, faces)), outputs)
            advance(1)
    return {
        entry.item: _found(run.folder, entry.outputs) for entry in outputs.entries(photos) if entry.status == "done"
    }


def _write(name: str, before: Path, content: str, pictures: Mapping[str, Tensor], outputs: Outputs) -> None:
    outputs.claim(name, before, *pictures)
    with outputs.writing(name, before, content) as writing:
        for path, picture in zip(writing.files, pictures.values(), strict=True):
            atomic_write(path, encode(picture, "JPEG", quality=QUALITY))


def _views(name: str, files: tuple[Path, ...], faces: FacesToo | None) -> Iterator[tuple[str, Tensor]]:
    """Pictures by file name; the names are hashes, so that any file system and any page accepts them."""
    start, (photo, *results) = hashlib.sha256(os.fsencode(name)).hexdigest()[:16], map(read_photo, files)
    yield f"{start}-{BEFORE}", view(photo, SIDE)
    yield f"{start}-{AFTER}", view(results[0], SIDE)
    if faces is not None:
        for index, pictures in _crops(name, photo, results, faces):
            for ending, face in zip((BEFORE, AFTER, TRUST), pictures, strict=False):
                yield f"{start}-{index:02d}-{ending}", face


def _crops(
    name: str, photo: Photo, results: Sequence[Photo], faces: FacesToo
) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
    for found in faces.find(name, photo):
        side = max(faces.size, min(round(faces.size / scale_of(found.matrix)), LARGEST))
        matrix = onto(found.matrix, side / faces.size)
        result, *trust = (crop(picture, scaled(matrix, faces.scale), side) for picture in results)
        yield found.index, (crop(photo, matrix, side), result, *(overlaid(result, picture) for picture in trust))


def overlaid(result: Tensor, trust: Tensor) -> Tensor:
    """A result (3, H, W) in grey, redder the larger the bound of its trust map is, both in [-1, 1]."""
    doubted = torch.tensor(DOUBTED)[:, None, None].expand_as(result)
    return torch.lerp(result.mean(0, keepdim=True).expand_as(result), doubted, (trust + 1).clamp(0, 2) / 2)


def _found(out: Path, files: tuple[str, ...]) -> Views:
    """The views by their file names: START-before.jpg, START-after.jpg, and START-NUMBER-... for each face."""
    faces: dict[int, tuple[Path, ...]] = {}
    for file in files[2:]:
        number = int(file.split("-")[1])
        faces[number] = (*faces.get(number, ()), out / file)
    return Views((out / files[0], out / files[1]), faces)
