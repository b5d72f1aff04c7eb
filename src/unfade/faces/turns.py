"""The turn of faces that are not upright in their photo.

Detectors are trained on upright faces. They miss a turned face, or take it for an upright one with its landmarks the
wrong way round, at a score that is hardly lower. But a face scores most in its own turn, in which it is upright. So
each place that may show a face is judged by the turn that scores most there: first in searches of the whole photo, and
where these leave a doubt, in a closer look at this place alone, in eight turns.
A turn is counted in eighths: how far the photo has to be turned counterclockwise for the face to be upright.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from unfade.faces.align import Matrix, centred, crop, inverse, scale_of, to_array, to_tensor
from unfade.faces.detectors import Box, Certainty, Detector, Face, area, common
from unfade.images.photo import Photo

EIGHTHS = 8  # turns that a closer look tries
SEEN = 48.0  # px, width of a face in a closer look
FINE = 160.0  # px, the width once its turn is known: below it YuNet's landmarks are more upright than the face
AROUND = 2.0  # side of the area that a closer look shows, in widths of the face
OFF = 0.35  # largest distance of a face from the middle of a closer look, in widths of the face
CLEAR = 0.02  # least lead of one turn's score over another's for the whole photo to decide between them
SHARED = 0.5  # least common area, as a share of the smaller box, of two boxes at the same place
_AHEAD = np.array([(0, 1), (-1, 0)])  # a quarter turn clockwise, for positions as rows


@dataclass(frozen=True, eq=False)
class Sight:
    """A face as it was detected in one turn of the photo."""

    face: Face  # in px of the photo as it is
    turn: int  # eighths
    confirmed: bool = False  # whether the turn is certain

    @property
    def score(self) -> float:
        """The score of the face in this turn."""
        return self.face.score


def turned(pixels: Tensor, turn: int) -> Tensor:
    """(C, h, w) turned counterclockwise by an even number of eighths."""
    return torch.rot90(pixels, turn // 2, (1, 2)) if turn else pixels


def turned_back(face: Face, turn: int, height: int, width: int) -> Face:
    """A face of a turned picture, in px of the picture before the turn, which is (height, width)."""
    if not turn:
        return face
    rotation = np.linalg.matrix_power(_AHEAD, turn // 2)
    before = np.array([width - 1, height - 1]) / 2
    after = before[::-1] if turn % 4 else before
    corners = (np.array(face.box).reshape(2, 2) - after) @ rotation + before
    (left, top), (right, bottom) = corners.min(0).tolist(), corners.max(0).tolist()
    return Face((left, top, right, bottom), (face.points - after) @ rotation + before, face.score)


class Closer:
    """Closer looks at single places of a photo, however large it is."""

    def __init__(self, photo: Photo, detector: Detector) -> None:
        self.photo, self.detector = photo, detector
        self._known: dict[Face, Sight | None] = {}

    def look(self, face: Face) -> Sight | None:
        """The face at this place in whichever of eight turns it scores most; None where no turn shows a face."""
        if face not in self._known:
            self._known[face] = self._best(face, SEEN, range(EIGHTHS))
        return self._known[face]

    def finely(self, face: Face, sight: Sight) -> Sight:
        """A second, larger look at a face that a first look has found, for better landmarks."""
        larger = min(FINE, math.sqrt(face.width * face.height))
        finer = self._best(face, larger, [sight.turn]) if larger > SEEN else None
        return sight if finer is None else Sight(Face(finer.face.box, finer.face.points, sight.score), sight.turn)

    def leaning(self, face: Face, width: float, degrees: float) -> Face | None:
        """The face that scores most at this place, shown `width` px wide and turned back by its lean in degrees."""
        place, scale, size = self._shown(face, width)
        matrix = centred(place, scale, degrees, size)
        seen = [face for face in self.detector(crop(self.photo, matrix, size)) if _is_it(face, width, size)]
        if not seen:
            return None
        best = max(seen, key=lambda face: face.score)
        return Face(face.box, _points_back(best, inverse(matrix)), best.score)

    @staticmethod
    def _shown(face: Face, width: float) -> tuple[Matrix, float, int]:
        """The middle of a closer look, its scale, and its side in px."""
        return _middle(face.box), width / math.sqrt(face.width * face.height), round(AROUND * width)

    def _best(self, face: Face, width: float, turns: Iterable[int]) -> Sight | None:
        """The face that scores most among the given turns of its place, shown `width` px wide."""
        place, scale, size = self._shown(face, width)
        shown = to_array(crop(self.photo, centred(place, scale, 0.0, size), size))
        best: Sight | None = None
        for turn in turns:
            about = centred(np.full(2, (size - 1) / 2), 1.0, turn * 45.0, size)
            picture = cv2.warpAffine(shown, about, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
            for found in self.detector(to_tensor(picture)):
                if _is_it(found, width, size) and (best is None or found.score > best.score):
                    best = Sight(_brought_back(found, centred(place, scale, turn * 45.0, size), turn), turn)
        return best


def judged(sights: Sequence[Sight], turn: int, least: float, certainty: Certainty, closer: Closer) -> list[Sight]:
    """The faces among the detections in several turns of a photo, each in its own turn.

    `turn` is the photo's own: a face of this turn with a score of at least `least` counts unless another turn is
    certain. A face of any other turn counts where that turn is certain. What a closer look does not show again in
    about this turn is something else, such as lights out of focus, or a badly damaged face: it counts in photos without
    a sure face only, since where one is sure, others are hardly damaged so much.
    """
    faces: list[Sight] = []
    unseen: list[Sight] = []
    for place in _places(sights):
        own = [sight for sight in place if sight.turn == turn and sight.score >= least]
        certain = _certain(place, own, least, certainty, closer)
        if certain is None and not _shows(closer.look(place[0].face), turn):
            unseen += own
        elif certain is None:
            faces += own
        elif certain.turn == turn and own:
            faces += [replace(sight, confirmed=True) for sight in own]
        else:
            known = [sight for sight in place if sight.turn == certain.turn and sight.score >= least]
            faces.append(replace(known[0] if known else closer.finely(place[0].face, certain), confirmed=True))
    if not any(sight.score >= certainty.sure for sight in faces):
        faces += unseen
    return _apart(faces, turn)


def _shows(look: Sight | None, turn: int) -> bool:
    """Whether a closer look shows a face in about this turn."""
    return look is not None and (look.turn - turn) % EIGHTHS in (0, 1, EIGHTHS - 1)


def _certain(place: list[Sight], own: list[Sight], least: float, certainty: Certainty, closer: Closer) -> Sight | None:
    """The detection that settles the turn of the face at a place; None where there may be no face."""
    best = place[0]
    rival = max((sight.score for sight in place if sight.turn != best.turn), default=0.0)
    if best.score >= certainty.sure and best.score - rival >= CLEAR:
        return best
    look = closer.look(best.face)
    if look is None or look.score < max(certainty.turned, least):
        return None
    if look.turn % 2 and own and look.score <= own[0].score:  # a slightly tilted face keeps its first detection
        return own[0]
    return look


def _places(sights: Sequence[Sight]) -> list[list[Sight]]:
    """Detections grouped by place, each group with the highest score first."""
    places: list[list[Sight]] = []
    for sight in sorted(sights, key=lambda sight: (-sight.score, sight.turn, sight.face.box)):
        here = next((place for place in places if _share(place[0].face.box, sight.face.box) > SHARED), None)
        if here is None:
            places.append([sight])
        else:
            here.append(sight)
    return places


def _apart(faces: list[Sight], turn: int) -> list[Sight]:
    """The faces without those of other turns that overlap a better face or one of the photo's own turn."""
    kept = [sight for sight in faces if sight.turn == turn]
    turned = [sight for sight in faces if sight.turn != turn]
    for sight in sorted(turned, key=lambda sight: (-sight.score, sight.face.box)):
        if all(_share(other.face.box, sight.face.box) <= SHARED for other in kept):
            kept.append(sight)
    return kept


def _share(a: Box, b: Box) -> float:
    """The common area of two boxes, as a share of the smaller one."""
    return common(a, b) / max(min(area(a), area(b)), 1e-9)


# --- from a closer look to the photo


def _is_it(face: Face, width: float, size: int) -> bool:
    """Whether a face of a closer look is the intended one: in the middle of `size` px and about `width` px wide."""
    off = float(np.abs(_middle(face.box) - (size - 1) / 2).max())
    return off < OFF * width and 0.5 < face.width / width < 2


def _brought_back(face: Face, matrix: Matrix, turn: int) -> Face:
    """A face of a closer look, in px of the photo. The box of a face between two quarter turns becomes a square."""
    back = inverse(matrix)
    (x, y), scale = (back @ (*_middle(face.box), 1.0)).tolist(), scale_of(back)
    width, height = face.box[2] - face.box[0], face.box[3] - face.box[1]
    if turn % 2:
        width = height = math.sqrt(width * height)
    elif turn % 4:
        width, height = height, width
    half_width, half_height = scale * width / 2, scale * height / 2
    box = x - half_width, y - half_height, x + half_width, y + half_height
    return Face(box, _points_back(face, back), face.score)


def _points_back(face: Face, back: Matrix) -> Matrix:
    """The landmarks of a face of a closer look, in px of the photo, to which `back` leads."""
    points: Matrix = np.c_[face.points, np.ones(len(face.points))] @ back.T
    return points


def _middle(box: Box) -> Matrix:
    return np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
