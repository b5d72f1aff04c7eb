"""Faces of any size in photos of any size: the detector looks at versions of the photo, each a third of the next.

A detector finds faces from about 20 to 400 px. The version of 1,600 px is always searched, as are versions of a third
and a ninth of its size, for large faces. Finer versions are searched, in tiles, only where smaller faces are wanted.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, compress
from operator import not_

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unfade.errors import BadInput, refuse_below
from unfade.faces.align import TEMPLATE_SIZE, scale_of, to_template
from unfade.faces.detectors import LEAST_SCORE, Detector, Face, area, certainty_of, common
from unfade.faces.turns import Closer, Sight, judged, turned, turned_back
from unfade.images.photo import Photo, Window
from unfade.nets.retinaface import suppress

SMALLEST = 16.0  # px, width of a box: smaller faces cannot be detected reliably
STEP = 3  # ratio between the sizes of one version of the photo and the next
RESOLVED = 20.0  # px, width of the smallest wanted face in the finest version of the photo
BEST = 220.0  # px, width of a box whose landmarks are trusted most; at 500 px YuNet's boxes are already too small
COARSEST = 240  # px, longer side: coarser versions gain nothing
TILE, LAP = 1280, 192  # px, side of a tile of a finer version, and the overlap of two neighbours
ENLARGED = 2.0  # largest enlargement of the photo, for the smallest faces
CLOSE = 220.0  # px, width of a face in a look for its lean; at 160 px as good, at 100 px half as good
LOOKS, SETTLED = 3, 5.0  # most looks, and the degrees of further lean below which no other one is taken
UPRIGHT = 2.0  # degrees of lean up to which no look is taken
TURNS = (0, 2, 4, 6)  # rotations of the photo, in eighths of a turn


@dataclass(frozen=True)
class DetectSettings:
    """Which faces are found."""

    min_score: float = 0.6  # probability, YuNet's own; CodeFormer takes 0.8 with RetinaFace, facexlib 0.97
    min_face: float = 0  # px, width of the box; 0: every face found in a version of `side` px, from SMALLEST up
    max_face: float = 0  # px, width of the box; 0: no limit
    side: int = 1600  # px, longer side of the version that is always searched
    overlap: float = 0.4  # intersection over union above which two boxes are taken for the same face

    def __post_init__(self) -> None:
        if not LEAST_SCORE <= self.min_score <= 1:
            raise BadInput(f"The lowest score of a face must lie between {LEAST_SCORE} and 1, got {self.min_score}.")
        refuse_below(0, self, "min_face", "max_face")
        if 0 < self.max_face < self.min_face:
            raise BadInput(
                f"Faces from {self.min_face} to {self.max_face} px cannot be searched for; give `min_face` and "
                "`max_face` in rising order."
            )

    @property
    def smallest(self) -> float:
        """Px, width of the smallest box that counts."""
        return self.min_face or SMALLEST


@dataclass(frozen=True)
class View:
    """A part of the photo, resampled for the detector."""

    pixels: Tensor  # (3, h, w) in [-1, 1]
    window: Window = (0, 0, 0, 0)  # the part of the photo, px; (0, 0, 0, 0): all of it
    scale: tuple[float, float] = (1.0, 1.0)  # px of the view per px of the photo, across and down
    inner: tuple[bool, bool, bool, bool] = (False,) * 4  # whether the photo continues at the left, top, right, bottom


def find_faces(
    photo: Photo, detector: Detector, settings: DetectSettings | None = None, *, thorough: bool = True
) -> list[Face]:
    """The faces of a photo, from left to right, then from top to bottom; landmarks in the order of an upright face.

    A face that several versions show is taken from the version that shows it best. Faces with implausible landmarks
    are left out, as are those that are too small or too large. All versions of the photo are searched upright, and the
    coarser ones in the other three quarter turns; all versions are searched in a turn in which those show a face.
    Where no face is certain, all versions are searched in all turns, unless `thorough` is False.
    """
    settings = settings or DetectSettings()
    search = Search(photo, detector, settings)
    faces = [sight.face for sight in search.sights(thorough)]
    return sorted(faces, key=lambda face: (face.box, face.score))


def is_plausible(face: Face) -> bool:
    """Whether the landmarks fit the box, and their similarity to the template has a scale that fits it too."""
    left, top, right, bottom = face.box
    side = max(right - left, bottom - top)
    inside = (face.points > (left - side / 2, top - side / 2)) & (face.points < (right + side / 2, bottom + side / 2))
    if not (side > 0 and inside.all()):
        return False
    try:
        covered = TEMPLATE_SIZE / scale_of(to_template(face.points, TEMPLATE_SIZE))
    except BadInput:
        return False
    return 0.6 < covered / side < 4  # 1.4 for a frontal face


def straightened(face: Face, photo: Photo, detector: Detector) -> Face:
    """A face that YuNet has found in a photo, with landmarks that lean as the face does.

    The smaller YuNet sees a face that leans, the more upright it takes it to be: at 100 px, 20 degrees for 7. So the
    face is looked at CLOSE px wide and turned back by its lean, until no more of it is found. A look counts if its
    score is certain and no lower than the face's own, as landmarks of badly degraded faces get worse by enlarging them.
    """
    closer, lean = Closer(photo, detector), _lean(face)
    least = max(certainty_of(detector).sure, face.score)
    for _ in range(LOOKS if abs(lean) > UPRIGHT else 0):
        seen = closer.leaning(face, CLOSE, lean)
        if seen is None or seen.score < least or not is_plausible(seen):
            break
        before, lean, face = lean, _lean(seen), seen
        if abs((lean - before + 180) % 360 - 180) < SETTLED:
            break
    return face


def _lean(face: Face) -> float:
    """The angle by which a face is turned clockwise, in degrees: that of the line from its mouth to its eyes."""
    across, up = (face.points[:2].mean(0) - face.points[3:].mean(0)).tolist()
    return math.degrees(math.atan2(across, -up))


class Search:
    """The search for the faces of one photo, with what it has found so far."""

    def __init__(self, photo: Photo, detector: Detector, settings: DetectSettings) -> None:
        self.photo, self.detector, self.settings = photo, detector, settings
        self.versions = [*_coarser(photo.shrunk(settings.side), photo)]
        self.closer = Closer(photo, detector)
        self.seen: dict[int, list[Sight]] = {}  # by turn of the photo, in eighths
        self.doubtful: dict[int, list[tuple[float, Face]]] = {}  # scores below the limit, which a tilted face may have

    def sights(self, thorough: bool) -> list[Sight]:
        """The faces, each in the turn in which it is upright."""
        self._search_coarsely()
        self.search([0])
        faces = self._judged(0, thorough=False)
        thorough = thorough and not any(sight.confirmed and sight.turn in TURNS for sight in faces)
        if thorough:
            self.search(TURNS)
            faces = self._judged(0, thorough=True)
        own = _own_turn(faces)
        turns = {own, *(sight.turn for sight in faces if sight.confirmed)}
        if turns == {0}:
            return faces
        self.search(turns)
        return self._judged(own, thorough=thorough)

    def _search_coarsely(self) -> None:
        """Searches the coarser versions in the other turns: a third of the cost of a full search upright."""
        views = self.versions[1:] or [_coarsened(self.versions[0])]
        for turn in TURNS[1:]:
            seen = [sight for view in views for sight in _seen(view, self.detector, self.settings.min_score, turn)]
            self.seen[turn] = self._wanted(turn, seen)

    def search(self, turns: Iterable[int]) -> None:
        """Searches all versions of the photo in the given turns."""
        for turn in {*turns} & {*TURNS} - self.doubtful.keys():
            views = chain(self.versions, _finer(self.photo, self.settings))
            seen = [sight for view in views for sight in _seen(view, self.detector, LEAST_SCORE, turn)]
            probable = [sight[1].score >= self.settings.min_score for sight in seen]
            self.seen[turn] = self._wanted(turn, [*compress(seen, probable)])
            self.doubtful[turn] = [*compress(seen, map(not_, probable))]

    def _judged(self, own: int, *, thorough: bool) -> list[Sight]:
        sights = [*chain(*self.seen.values())]
        for turn, seen in self.doubtful.items() if thorough else ():
            sights += self._wanted(turn, seen)
        faces = judged(sights, own, self.settings.min_score, certainty_of(self.detector), self.closer)
        known = {sight.face for sight in sights}
        return [sight for sight in faces if sight.face in known or _is_wanted(sight.face, self.settings)]

    def _wanted(self, turn: int, seen: list[tuple[float, Face]]) -> list[Sight]:
        faces = _once(seen, self.settings.overlap)
        return [Sight(face, turn) for face in faces if _is_wanted(face, self.settings)]


def _own_turn(faces: list[Sight]) -> int:
    """The photo's own turn: the most frequent one among faces whose turn is certain."""
    times = Counter(sight.turn for sight in faces if sight.confirmed and sight.turn in TURNS)
    return max(TURNS, key=lambda turn: times[turn])


# --- the versions of the photo


def _finer(photo: Photo, settings: DetectSettings) -> Iterator[View]:
    longest = max(photo.height, photo.width)
    scale = min(ENLARGED, RESOLVED / settings.min_face) if settings.min_face else 0.0
    while scale * longest > 1.05 * min(longest, settings.side):
        yield from _tiles(photo, scale)
        scale /= STEP


def _coarser(pixels: Tensor, photo: Photo) -> Iterator[View]:
    """The whole photo at `side` px, then each coarser version."""
    height, width = pixels.shape[-2:]
    view = View(pixels, scale=(width / photo.width, height / photo.height))
    yield view
    while max(view.pixels.shape[-2:]) > COARSEST:
        view = _coarsened(view)
        yield view


def _coarsened(view: View) -> View:
    pixels = F.avg_pool2d(view.pixels[None], STEP, ceil_mode=True, count_include_pad=False)[0]
    return View(pixels, scale=(view.scale[0] / STEP, view.scale[1] / STEP))


def _tiles(photo: Photo, scale: float) -> Iterator[View]:
    for left, right in _cuts(photo.width, scale):
        for top, bottom in _cuts(photo.height, scale):
            width, height = (max(1, round(scale * length)) for length in (right - left, bottom - top))
            window = left, top, right, bottom
            yield View(
                photo.resampled(window, height, width),
                window,
                (width / (right - left), height / (bottom - top)),
                (left > 0, top > 0, right < photo.width, bottom < photo.height),
            )


def _cuts(length: int, scale: float) -> list[tuple[int, int]]:
    """A side cut into equal parts that overlap as tiles do: (start, end) of each, in px of the photo."""
    tile, lap = TILE / scale, LAP / scale
    count = max(1, math.ceil((length - lap) / (tile - lap)))
    part = (length - lap) / count + lap if count > 1 else length
    starts = [k * (part - lap) for k in range(count)]
    return [(int(start), min(length, math.ceil(start + part))) for start in starts]


# --- from the views to the photo


def _seen(view: View, detector: Detector, least: float, turn: int) -> list[tuple[float, Face]]:
    """The faces that the detector finds in a turned view, in px of the photo, each with the trust in its landmarks."""
    height, width = view.pixels.shape[-2:]
    found = [face for face in detector(turned(view.pixels, turn)) if face.score >= least and face.width > 0]
    faces = [turned_back(face, turn, height, width) for face in found]
    return [
        (face.score - abs(math.log(face.width / BEST)), _in_photo(face, view))
        for face in faces
        if not _is_cut(face, view)
    ]


def _is_cut(face: Face, view: View) -> bool:
    """Whether the view cuts the face off where the photo continues; another view shows it whole."""
    (left, top, right, bottom), (height, width) = face.box, view.pixels.shape[-2:]
    margin = 0.1 * face.width
    beyond = left < margin, top < margin, right > width - margin, bottom > height - margin
    return any(out and goes_on for out, goes_on in zip(beyond, view.inner, strict=True))


def _in_photo(face: Face, view: View) -> Face:
    scale, start = np.array(view.scale), np.array(view.window[:2])
    corners = (np.array(face.box).reshape(2, 2) + 0.5) / scale - 0.5 + start
    left, top, right, bottom = corners.ravel().tolist()
    return Face((left, top, right, bottom), (face.points + 0.5) / scale - 0.5 + start, face.score)


def _once(found: list[tuple[float, Face]], overlap: float) -> list[Face]:
    """Each face once, from the view that shows it best, without parts of faces that were taken for faces."""
    if not found:
        return []
    trust, faces = zip(*sorted(found, key=lambda seen: (seen[1].box, seen[1].score)), strict=True)
    boxes = torch.tensor([face.box for face in faces], dtype=torch.float64)
    kept = suppress(boxes, torch.tensor(trust, dtype=torch.float64), overlap=overlap).tolist()
    return _without_parts([faces[k] for k in kept])


def _without_parts(faces: list[Face]) -> list[Face]:
    return [face for face in faces if not any(_is_part(face, other) for other in faces)]


def _is_part(face: Face, other: Face) -> bool:
    """Whether the face lies inside another face that is more probable."""
    if other.score <= face.score or area(other.box) <= area(face.box):
        return False
    return common(face.box, other.box) > 0.8 * area(face.box)


def _is_wanted(face: Face, settings: DetectSettings) -> bool:
    return settings.smallest <= face.width <= (settings.max_face or math.inf) and is_plausible(face)
