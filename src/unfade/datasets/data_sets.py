"""The published sets of faces: their form as downloaded, and the pictures to take from each."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any

from unfade.datasets.picture_sources import Source
from unfade.datasets.wider import ANNOTATION, Box, Square, framed, read_annotation
from unfade.errors import BadInput
from unfade.store.seeds import fingerprint

FFHQ_LIST = "ffhq-dataset-v2.json"
MIN_FACE = 48  # pixels of the photo: a smaller face of WIDER FACE is hardly recognizable
LONGEST_NAME = 240  # bytes; most file systems allow 255, and a temporary file has a longer name


@dataclass(frozen=True)
class PrepareSettings:
    """The settings on which the pictures of a prepared folder depend."""

    size: int = 512  # side of the pictures, pixels (the paper's)
    split: tuple[int, int] | None = None  # pictures in train and in test; None: the set's own, or no split
    stems: tuple[str, ...] = ()  # of train, then of test; empty: chosen by the rule of splits.py
    min_face: int | None = None  # shorter side of a WIDER FACE box, pixels of the photo; None: MIN_FACE
    crop: bool = False  # take the central square of pictures that are not square; otherwise they are refused
    enlarge: bool = False  # also take pictures smaller than `size`

    def identity(self) -> dict[str, Any]:
        """The settings that must be the same for a run to continue."""
        return {**asdict(self), "stems": fingerprint(self.stems) if self.stems else None}


@dataclass(frozen=True)
class Face:
    """One picture to be made."""

    name: str  # of its file, without the suffix
    source: str  # the file below the source from which it is made
    square: Square | None = None  # the square that is cut out of it; None: all of it
    md5: str = ""  # of that file as published; empty: unknown
    published_side: int = 0  # side of the published file in pixels; a file of another size is not checked by MD5


@dataclass(frozen=True)
class DataSet:
    """The pictures that a source holds."""

    faces: Mapping[str, Face]  # by name, in order
    names: Sequence[str]  # of the whole set as published; where that is unknown, of the faces
    without: tuple[str, ...] = ()  # photos in the source without a face to take
    missing: tuple[str, ...] = ()  # photos that are annotated but missing
    photos: int = 0  # annotated ones
    left_out: Mapping[str, int] = field(default_factory=dict)  # faces in photos: why not taken, how many
    odd: tuple[str, ...] = ()  # pictures in the source whose names are not of the set


@dataclass(frozen=True)
class Numbered:
    """A set whose pictures are named by numbers."""

    title: str
    count: int
    pattern: re.Pattern[str]
    folders: tuple[str, ...]  # folders of such pictures in the published tree, the best first
    names: str  # the names of its files, in words


FFHQ = Numbered("FFHQ", 70_000, re.compile(r"(\d{5})"), ("images1024x1024", "images512x512"), "00000.png to 69999.png")
CELEBAHQ = Numbered(
    "CelebA-HQ", 30_000, re.compile(r"(?:imgHQ)?(\d{1,5})"), ("CelebA-HQ-img",), "0.jpg to 29999.jpg or 00000.png"
)


def ffhq(source: Source, settings: PrepareSettings) -> DataSet:
    """FFHQ (Karras et al. 2019): numbered PNGs, nested by thousands or not, and its own list of MD5s if it is there."""
    _no_min_face(source, settings)
    return _numbered(source, FFHQ, _published(source))


def celebahq(source: Source, settings: PrepareSettings) -> DataSet:
    """CelebA-HQ (Karras et al. 2018), as CelebAMask-HQ distributes it or as numbered PNGs."""
    _no_min_face(source, settings)
    arrays = [name for name in source.names if name.endswith((".npy", ".npz"))]
    if arrays and not source.pictures:
        raise BadInput(
            f"{source.place(arrays[0])} is an array, and arrays are not read; make each a picture first, with "
            "PIL.Image.fromarray(numpy.load(file).squeeze().transpose(1, 2, 0)).save('00000.png')."
        )
    return _numbered(source, CELEBAHQ, {})


def wider(source: Source, settings: PrepareSettings) -> DataSet:
    """WIDER FACE (Yang et al. 2016): its photos with their annotation, or a folder of faces cropped from them."""
    annotation = next((name for name in source.names if PurePosixPath(name).name == ANNOTATION), None)
    if annotation:
        return _annotated(source, annotation, settings)
    if any(part.startswith("WIDER_") for name in source.pictures for part in PurePosixPath(name).parts[:-1]):
        raise BadInput(
            f"{source.path} holds WIDER FACE's photos without wider_face_split/{ANNOTATION}; unpack that beside them."
        )
    return folder(source, settings)


def folder(source: Source, settings: PrepareSettings) -> DataSet:
    """Any aligned faces. A face is called by its path below the source, without ending, slashes as double underscores.

    So its name does not depend on what else is there.
    """
    _no_min_face(source, settings)
    if not source.pictures:
        raise BadInput(f"{source.path} holds no pictures; expected aligned faces, in it or in folders below it.")
    faces = _by_name(source, (Face(_flat(name), name) for name in source.pictures))
    return DataSet(faces, tuple(faces))


SETS: dict[str, Callable[[Source, PrepareSettings], DataSet]] = {
    "ffhq": ffhq,
    "celebahq": celebahq,
    "wider": wider,
    "folder": folder,
}
OWN_SPLITS = {"celebahq": (2500, 500)}  # the paper's, Sec. 4.1


def _flat(name: str) -> str:
    return str(PurePosixPath(name).with_suffix("")).replace("/", "__")


def _numbered(source: Source, kind: Numbered, md5s: Mapping[int, tuple[str, int]]) -> DataSet:
    found: dict[int, str] = {}
    odd: list[str] = []
    for name in _in_best_folder(source.pictures, kind.folders):
        match = kind.pattern.fullmatch(PurePosixPath(name).stem)
        if not match or int(match[1]) >= kind.count:
            odd.append(name)
        else:
            first = found.setdefault(int(match[1]), name)
            if first != name:
                raise BadInput(
                    f"{source.path} holds number {int(match[1])} twice, {first} and {name}; give one of the folders."
                )
    if not found:
        raise BadInput(
            f"{source.path} holds no picture named like {kind.title}'s ({kind.names}); "
            f"give the folder {kind.folders[0]}, or a folder or zip file of such pictures."
        )
    faces = (Face(f"{n:05d}", found[n], None, *md5s.get(n, ("", 0))) for n in sorted(found))
    return DataSet(_by_name(source, faces), [f"{n:05d}" for n in range(kind.count)], odd=tuple(odd))


def _in_best_folder(names: Sequence[str], folders: Sequence[str]) -> Sequence[str]:
    """The pictures in the first of these folders that exists; all pictures if none does."""
    for folder in folders:
        if inside := [name for name in names if folder in PurePosixPath(name).parts[:-1]]:
            return inside
    return names


def _published(source: Source) -> dict[int, tuple[str, int]]:
    """(MD5, side) of each number, from FFHQ's list in the source or beside it; nothing if it is not there.

    Raises BadInput for a list of something else.
    """
    beside = source.path.parent / FFHQ_LIST
    inside = next((name for name in source.names if PurePosixPath(name).name == FFHQ_LIST), None)
    if inside is None and not beside.is_file():
        return {}
    path = beside if inside is None else source.place(inside)
    try:
        listed = json.loads(beside.read_bytes() if inside is None else source.read(inside))
        if not listed:
            raise ValueError("it is empty")
        return {int(number): _published_file(int(number), listed[number]["image"]) for number in listed}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise BadInput(
            f"{path} is not the list of FFHQ's pictures with their MD5s ({error!r}); get it again, or move it away."
        ) from error


def _published_file(number: int, image: Mapping[str, Any]) -> tuple[str, int]:
    stem = PurePosixPath(image["file_path"]).stem
    if stem != f"{number:05d}" or not re.fullmatch(r"[0-9a-f]{32}", image["file_md5"]):
        raise ValueError(f"number {number} is the file {image['file_path']}")
    return image["file_md5"], int(image["pixel_size"][0])


def _annotated(source: Source, annotation: str, settings: PrepareSettings) -> DataSet:
    listed = read_annotation(source.read(annotation).decode("utf-8", "replace"), source.place(annotation))
    there = {"/".join(PurePosixPath(name).parts[-2:]): name for name in source.pictures}
    left_out: Counter[str] = Counter()
    faces: list[Face] = []
    without: list[str] = []
    for photo, boxes in listed:
        reasons = [_why_not(box, settings) for box in boxes]
        left_out.update(reason for reason in reasons if reason and photo in there)
        taken = [_face(there[photo], i, boxes[i]) for i, why in enumerate(reasons) if not why and photo in there]
        faces += taken
        without += [there[photo]] if photo in there and not taken else []
    missing = tuple(photo for photo, _ in listed if photo not in there)
    if not faces:
        reasons_said = "; ".join(f"{count:,} {reason}" for reason, count in left_out.items()) or "no photo with a face"
        raise BadInput(
            f"{source.path} has no face to give: {len(missing):,} of {len(listed):,} annotated photos are not there, "
            f"{reasons_said}; unpack WIDER_val beside wider_face_split, or ask for less."
        )
    named = _by_name(source, faces)
    return DataSet(named, tuple(named), tuple(without), missing, len(listed), left_out)


def _face(photo: str, index: int, box: Box) -> Face:
    return Face(f"{PurePosixPath(photo).stem}_{index}", photo, framed(box))


def _why_not(box: Box, settings: PrepareSettings) -> str:
    least = settings.min_face or MIN_FACE
    if not box.is_usable:
        return "invalid or heavily occluded"
    if box.side < least:
        return f"with a box under {least} px"
    if framed(box).side < settings.size and not settings.enlarge:
        return f"smaller than `size` {settings.size} when cut out (`enlarge` takes them)"
    return ""


def _by_name(source: Source, faces: Iterable[Face]) -> dict[str, Face]:
    """The faces by name. Raises BadInput where two share a name, ignoring case, or a name is too long for a file."""
    named: dict[str, Face] = {}
    for face in faces:
        other = named.setdefault(face.name.casefold(), face)
        if other is not face:
            raise BadInput(
                f"{source.place(other.source)} and {source.place(face.source)} would both become {face.name}.png; "
                "rename one of the two."
            )
        if len(face.name.encode("utf-8", "surrogateescape")) > LONGEST_NAME:
            raise BadInput(f"{source.place(face.source)} has too long a path for one file name; give a folder below.")
    return {face.name: face for face in named.values()}


def _no_min_face(source: Source, settings: PrepareSettings) -> None:
    if settings.min_face is not None:
        raise BadInput(f"`min_face` is for WIDER FACE's photos with {ANNOTATION}, not for {source.path}; leave it out.")
