"""Read whole photos and detect their faces in threads, a few photos ahead of the restorer.

Photos are processed in groups, so that the faces of several photos go through a network together and memory stays
bounded. Groups are the same in every run, even if a part of them is already done: the last bits of a network's output
depend on the other faces in its batch, and a resumed run must give the same results as one that was not interrupted.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from unfade.errors import BadInput, DiskFull
from unfade.faces.align import TEMPLATE, TEMPLATE_SIZE, Matrix, crop, onto, scale_of, to_template
from unfade.faces.detect import DetectSettings, find_faces, straightened
from unfade.faces.detectors import Detector, Face, YuNet
from unfade.images.decoding import read_photo
from unfade.images.files import refuse_clear
from unfade.images.filters import check_square
from unfade.images.finding import Found
from unfade.images.opening import pixels_in
from unfade.images.photo import Photo
from unfade.jobs.run_stage import refuse_tiny
from unfade.restorers.by_size import size_for
from unfade.store.checkpoints import sha256_of

TOGETHER = 8  # photos of a group, at most
PIXELS = 24_000_000  # of a group; one photo may have more
READERS = 2  # threads that read and search photos
THOROUGH = 12  # in every so many frames of a video, faces are searched in all orientations


@dataclass(frozen=True)
class Choice:
    """Which of the detected faces are used: all, the largest, or those with given numbers."""

    which: str = "all"  # "all", "largest", or comma-separated numbers, counted from 0 at the left

    def __post_init__(self) -> None:
        if self.which not in ("all", "largest") and not all(part.strip().isdecimal() for part in self.which.split(",")):
            raise BadInput(
                f"Expected faces to be all, largest, or numbers from left to right such as 0,2, got {self.which}."
            )

    def of(self, faces: Sequence[Face]) -> list[tuple[int, Face]]:
        """The chosen faces with their numbers; numbers that the photo does not have are ignored."""
        numbered = list(enumerate(faces))
        if self.which == "all" or not faces:
            return numbered
        if self.which == "largest":
            return [max(numbered, key=lambda item: item[1].width * item[1].height)]
        numbers = {int(part) for part in self.which.split(",")}
        return [item for item in numbered if item[0] in numbers]


@dataclass(frozen=True, eq=False)
class FoundFace:
    """A face that was found and chosen."""

    index: int  # among all faces of its photo, from left to right
    face: Face
    matrix: Matrix  # (2, 3): the photo to the crop

    def at(self, side: float) -> "FoundFace":
        """The same face in a crop whose sides are `side` times as large."""
        return self if side == 1 else replace(self, matrix=onto(self.matrix, side))


Finder = Callable[[str, Photo], list[FoundFace]]  # called with a photo's name and the photo, also from threads


@dataclass
class Opened:
    """A photo that was read and searched for faces, or the error that prevented it."""

    name: str  # its path below the folder of photos, with "/"
    path: Path
    content: str = ""  # hash of the file's bytes
    photo: Photo | None = None
    faces: list[FoundFace] = field(default_factory=list)
    crops: list[Tensor] = field(default_factory=list)  # (3, S, S) of each face; S is one of the sizes asked for
    error: Exception | None = None


@dataclass(frozen=True)
class Searching:
    """Finds faces with a detector and aligns them."""

    detector: Detector
    settings: DetectSettings
    choice: Choice
    size: int  # px, of the crops
    straighten: bool = True  # whether faces that lean get a closer look

    def __call__(self, name: str, photo: Photo, *, thorough: bool = True) -> list[FoundFace]:
        """The chosen faces; `thorough` as in `find_faces`."""
        chosen = self.choice.of(find_faces(photo, self.detector, self.settings, thorough=thorough))
        if self.straighten and isinstance(self.detector, YuNet):
            chosen = [(index, straightened(face, photo, self.detector)) for index, face in chosen]
        return [FoundFace(index, face, to_template(face.points, self.size)) for index, face in chosen]


@dataclass(frozen=True)
class Framed:
    """Treats every picture as an aligned crop of one face in FFHQ's framing, so that its matrix only scales."""

    root: Path  # of the pictures, for messages
    size: int  # px, of the crops

    def __call__(self, name: str, photo: Photo) -> list[FoundFace]:
        """Raises BadInput for a picture that is not square or too small, UnreadableImage for a transparent one."""
        path, side = self.root / name, photo.width
        refuse_clear(photo, path)
        refuse_tiny(photo.width, photo.height, path)
        check_square(photo.width, photo.height, path)
        face = Face((0.0, 0.0, side, side), TEMPLATE * (side / TEMPLATE_SIZE), 1.0)
        return [FoundFace(0, face, onto(np.eye(2, 3), self.size / side))]


def for_films(find: Finder) -> Finder:
    """The finder without closer looks: a face that leans in one frame and not in the next would shake."""
    return replace(find, straighten=False) if isinstance(find, Searching) else find


def in_frames(find: Finder) -> Finder:
    """A finder for the frames of one video, in order, that searches all orientations only in some frames."""
    return _InFrames(find) if isinstance(find, Searching) else find


class _InFrames:
    """Searches all orientations in every THOROUGH-th frame, and if faces are not upright or have disappeared."""

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
    """The reason why a photo or a video has no result."""
    tried = "upright or rotated by 90, 180 or 270 degrees"
    return f"{path}: no face found that matches the settings, {tried}; check `min_face`, `choice` and `detector`."


def groups_of(found: Found) -> Iterator[list[str]]:
    """The names of all photos, in groups of at most TOGETHER photos and PIXELS pixels."""
    group: list[str] = []
    pixels = 0
    for name in found.names:
        count = pixels_in(found.root / name)
        if group and (len(group) == TOGETHER or pixels + count > PIXELS):
            yield group
            group, pixels = [], 0
        group.append(name.as_posix())
        pixels += count
    if group:
        yield group


def opened_groups(
    found: Found, find: Finder, sizes: Sequence[int], is_settled: Callable[[str, str], bool]
) -> Iterator[list[Opened]]:
    """Yield every group; each is read and searched while the caller works on the one before.

    `find` aligns faces to the first, smallest one of `sizes`, in px; each is cut out in the size that suits it.
    A group whose photos are all settled, by their names and the hashes of their bytes, comes without photos and faces.
    """
    with ThreadPoolExecutor(READERS) as readers:

        def begin(group: list[str]) -> list[Callable[[], Opened]]:
            hashed = [Opened(name, found.root / name) for name in group]
            contents = list(readers.map(_hashed, hashed))
            if all(is_settled(item.name, item.content) for item in contents):
                return [lambda item=item: item for item in contents]  # type: ignore[misc]
            return [readers.submit(_searched, item, find, sizes).result for item in contents]

        waiting: list[Callable[[], Opened]] | None = None
        for group in groups_of(found):
            ahead = begin(group)
            if waiting is not None:
                yield [get() for get in waiting]
            waiting = ahead
        if waiting is not None:
            yield [get() for get in waiting]


def _hashed(item: Opened) -> Opened:
    """Compute the hash. A file that cannot be read gets none; reading it as a photo later gives the reason."""
    with suppress(Exception):
        item.content = sha256_of(item.path)
    return item


def _searched(item: Opened, find: Finder, sizes: Sequence[int]) -> Opened:
    try:
        item.photo = read_photo(item.path)
        faces = find(item.name, item.photo)
        suited = [size_for(sizes[0] / scale_of(found.matrix), sizes) for found in faces]
        item.faces = [found.at(size / sizes[0]) for found, size in zip(faces, suited, strict=True)]
        item.crops = [crop(item.photo, found.matrix, size) for found, size in zip(item.faces, suited, strict=True)]
    except DiskFull:
        raise
    except Exception as error:
        item.error = error
    return item
