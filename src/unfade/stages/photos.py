"""Whole photos, some at a time: read and searched for faces by threads, ahead of whoever works on them.

Photos are worked on in groups, so that the faces of several go through a network together and memory stays bounded.
A group is the same in every run, whatever of it is done already: the last bits of a network's output depend on the
other faces of its batch, and a run that was killed must end as one that was not.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from unfade.errors import BadInput, DiskFull
from unfade.faces.align import TEMPLATE, TEMPLATE_SIZE, Matrix, crop, onto, to_template
from unfade.faces.detect import Detector, DetectSettings, Face, find_faces
from unfade.images.dimensions import pixels_in
from unfade.images.files import refuse_clear
from unfade.images.filters import check_square
from unfade.images.photo import Photo
from unfade.images.photo_files import Found, read_photo
from unfade.jobs.run_stage import refuse_tiny
from unfade.store.checkpoints import sha256_of

TOGETHER = 8  # photos of a group, at most
PIXELS = 24_000_000  # of a group; one photo may have more
READERS = 2  # threads that read and search photos
THOROUGH = 12  # frames of a film from one that is searched in all turns to the next


@dataclass(frozen=True)
class Choice:
    """Which of the faces that were found are worked on: all, the largest, or some by their numbers."""

    which: str = "all"  # "all", "largest", or numbers from 0 on, left to right, with commas between them

    def __post_init__(self) -> None:
        if self.which not in ("all", "largest") and not all(part.strip().isdecimal() for part in self.which.split(",")):
            raise BadInput(
                f"Faces are chosen by all, largest, or numbers like 0,2 from left to right, not {self.which}."
            )

    def of(self, faces: Sequence[Face]) -> list[tuple[int, Face]]:
        """The chosen ones with their numbers; those of a number that the photo does not have are not there."""
        numbered = list(enumerate(faces))
        if self.which == "all" or not faces:
            return numbered
        if self.which == "largest":
            return [max(numbered, key=lambda one: one[1].width * one[1].height)]
        numbers = {int(part) for part in self.which.split(",")}
        return [one for one in numbered if one[0] in numbers]


@dataclass(frozen=True, eq=False)
class FoundFace:
    """A face that is worked on."""

    index: int  # among all faces of its photo, from left to right
    face: Face
    matrix: Matrix  # (2, 3): the photo to the crop


Finder = Callable[[str, Photo], list[FoundFace]]  # from the name of a photo and the photo; may be called by threads


@dataclass
class Opened:
    """What became of a photo when it was read."""

    name: str  # its path below the folder of photos, with "/"
    path: Path
    content: str = ""  # hash of the file's bytes
    photo: Photo | None = None
    faces: list[FoundFace] = field(default_factory=list)
    crops: list[Tensor] = field(default_factory=list)  # (3, size, size) of each face
    error: Exception | None = None


@dataclass(frozen=True)
class Searching:
    """Finds faces with a detector and aligns them."""

    detector: Detector
    settings: DetectSettings
    choice: Choice
    size: int  # px, of the crops

    def __call__(self, name: str, photo: Photo, *, thorough: bool = True) -> list[FoundFace]:
        """The chosen faces; `thorough` as in `find_faces`."""
        chosen = self.choice.of(find_faces(photo, self.detector, self.settings, thorough=thorough))
        return [FoundFace(index, face, to_template(face.points, self.size)) for index, face in chosen]


def searching(detector: Detector, settings: DetectSettings, choice: Choice, size: int) -> Finder:
    """Finds faces with a detector and aligns them to crops of `size` px."""
    return Searching(detector, settings, choice, size)


@dataclass(frozen=True)
class Framed:
    """Takes every picture for one face that fills it in FFHQ's framing: an aligned crop, whose matrix only scales."""

    root: Path  # of the pictures, for messages
    size: int  # px, of the crops

    def __call__(self, name: str, photo: Photo) -> list[FoundFace]:
        """Raises BadInput for a picture that is not square or too small, UnreadableImage for one that is clear."""
        path, side = self.root / name, photo.width
        refuse_clear(photo, path)
        refuse_tiny(photo.width, photo.height, path)
        check_square(photo.width, photo.height, path)
        face = Face((0.0, 0.0, side, side), TEMPLATE * (side / TEMPLATE_SIZE), 1.0)
        return [FoundFace(0, face, onto(np.eye(2, 3), self.size / side))]


def in_frames(find: Finder) -> Finder:
    """The same for the frames of one film, in order: what all turns cost is spent on some of them only."""
    return _InFrames(find) if isinstance(find, Searching) else find


class _InFrames:
    """Searches a frame thoroughly in its turn, where faces are not upright, and where there were faces a moment ago."""

    def __init__(self, find: Searching) -> None:
        self.find = find
        self.searched = 0  # frames
        self.before: list[FoundFace] = []

    def __call__(self, name: str, photo: Photo) -> list[FoundFace]:
        thorough = self.searched % THOROUGH == 0 or not all(found.face.is_upright for found in self.before)
        faces = self.find(name, photo, thorough=thorough)
        if self.before and not faces and not thorough:
            faces = self.find(name, photo)
        self.searched, self.before = self.searched + 1, faces
        return faces


def no_face_in(path: Path) -> str:
    """Why nothing came of a photo or a film."""
    tried = "upright or turned by 90, 180 or 270 degrees"
    return f"{path} shows no face that was asked for, {tried}; look at `min_face`, `choice` and `detector`."


def groups_of(found: Found) -> Iterator[list[str]]:
    """The names of all photos, in groups of a few."""
    group: list[str] = []
    pixels = 0
    for name, path in zip(found.names, found.paths, strict=True):
        count = pixels_in(path)
        if group and (len(group) == TOGETHER or pixels + count > PIXELS):
            yield group
            group, pixels = [], 0
        group.append(name.as_posix())
        pixels += count
    if group:
        yield group


def opened_groups(
    found: Found, find: Finder, size: int, is_settled: Callable[[str, str], bool]
) -> Iterator[list[Opened]]:
    """Every group, read and searched while the one before it is worked on.

    A group of which every photo is settled, by its name and the hash of its bytes, comes without photos and faces.
    """
    with ThreadPoolExecutor(READERS) as readers:

        def begin(group: list[str]) -> list[Callable[[], Opened]]:
            hashed = [Opened(name, found.root / name) for name in group]
            contents = list(readers.map(_hashed, hashed))
            if all(is_settled(one.name, one.content) for one in contents):
                return [lambda one=one: one for one in contents]  # type: ignore[misc]
            return [readers.submit(_searched, one, find, size).result for one in contents]

        waiting: list[Callable[[], Opened]] | None = None
        for group in groups_of(found):
            ahead = begin(group)
            if waiting is not None:
                yield [get() for get in waiting]
            waiting = ahead
        if waiting is not None:
            yield [get() for get in waiting]


def _hashed(one: Opened) -> Opened:
    """A file that cannot be read has no hash; reading it as a photo will say why."""
    with suppress(Exception):
        one.content = sha256_of(one.path)
    return one


def _searched(one: Opened, find: Finder, size: int) -> Opened:
    try:
        one.photo = read_photo(one.path)
        one.faces = find(one.name, one.photo)
        one.crops = [crop(one.photo, found.matrix, size) for found in one.faces]
    except DiskFull:
        raise
    except Exception as error:
        one.error = error
    return one
