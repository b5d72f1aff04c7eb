"""Faces that are not upright in their photo: which turn is theirs.

Detectors have learned on upright faces. A face that is turned they miss, or they take it for an upright one and put
its landmarks the wrong way round, at a score that hardly tells. But seen in its own turn the same face scores more than
in any other. So each place that may show a face is judged by the turn that scores most there: in searches of the whole
photo, and where these leave a doubt in a closer look, at this place alone, in eight turns.

A turn is counted in eighths, and says how far the photo has to be turned counterclockwise for the face to be upright.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from unfade.faces.align import Matrix, centred, crop, inverse, scale_of, to_array, to_tensor
from unfade.faces.detectors import Box, Certainty, Detector, Face
from unfade.images.photo import Photo

EIGHTHS = 8  # turns that a closer look tries
SEEN = 48.0  # px, width of a face in a closer look
FINE = 160.0  # px, the same once its turn is known: below it YuNet's landmarks are more upright than the face
AROUND = 2.0  # sides of what a closer look sees, in widths of the face
OFF = 0.35  # widths of a face between its place and the middle of what was looked for, at most
CLEAR = 0.02  # of the score: where two turns are nearer to each other, the whole photo does not tell them apart
SHARED = 0.5  # of the smaller box: from there on two boxes are one place

_AHEAD = np.array([(0, 1), (-1, 0)])  # a quarter turn clockwise, for positions as rows


@dataclass(frozen=True, eq=False)
class Sight:
    """A face as it was seen in one turn of the photo."""

    face: Face  # in px of the photo as it is
    turn: int  # eighths
    confirmed: bool = False  # the turn is certain

    @property
    def score(self) -> float:
        """That of the face in this turn."""
        return self.face.score


def turned(pixels: Tensor, turn: int) -> Tensor:
    """(C, h, w) turned counterclockwise by an even number of eighths."""
    return torch.rot90(pixels, turn // 2, (1, 2)) if turn else pixels


def turned_back(face: Face, turn: int, height: int, width: int) -> Face:
    """A face of a turned picture, in px of the picture before, which is (height, width)."""
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
        """The face at this place in the one of eight turns in which it scores most; None where no turn shows one."""
        if face not in self._known:
            self._known[face] = self._best(face, SEEN, range(EIGHTHS))
        return self._known[face]

    def finely(self, face: Face, sight: Sight) -> Sight:
        """What a look at a face has shown, larger."""
        larger = min(FINE, math.sqrt(face.width * face.height))
        finer = self._best(face, larger, [sight.turn]) if larger > SEEN else None
        return sight if finer is None else Sight(Face(finer.face.box, finer.face.points, sight.score), sight.turn)

    def _best(self, face: Face, width: float, turns: Iterable[int]) -> Sight | None:
        """The face that scores most in some turns of its place, shown `width` px wide."""
        place, scale, size = _middle(face.box), width / math.sqrt(face.width * face.height), round(AROUND * width)
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
    """The faces among what several turns of a photo show, each in its own turn.

    `turn` is the photo's own: a face of it that scores `least` counts until another turn is certain. Any other counts
    where it is certain.
    """
    faces: list[Sight] = []
    for place in _places(sights):
        own = [sight for sight in place if sight.turn == turn and sight.score >= least]
        certain = _certain(place, own, least, certainty, closer)
        if certain is None:
            faces += own
        elif certain.turn == turn and own:
            faces += [replace(sight, confirmed=True) for sight in own]
        else:
            known = [sight for sight in place if sight.turn == certain.turn and sight.score >= least]
            faces.append(replace(known[0] if known else closer.finely(place[0].face, certain), confirmed=True))
    return _apart(faces, turn)


def _certain(place: list[Sight], own: list[Sight], least: float, certainty: Certainty, closer: Closer) -> Sight | None:
    """What shows the turn of the face at a place without doubt; None: it may be no face."""
    best = place[0]
    rival = max((sight.score for sight in place if sight.turn != best.turn), default=0.0)
    if best.score >= certainty.sure and best.score - rival >= CLEAR:
        return best
    look = closer.look(best.face)
    if look is None or look.score < max(certainty.turned, least):
        return None
    if look.turn % 2 and own and look.score <= own[0].score:  # it leans a little, and is fine as it was seen
        return own[0]
    return look


def _places(sights: Sequence[Sight]) -> list[list[Sight]]:
    """What is seen at one place, the highest score first."""
    places: list[list[Sight]] = []
    for sight in sorted(sights, key=lambda sight: (-sight.score, sight.turn, sight.face.box)):
        here = next((place for place in places if _share(place[0].face.box, sight.face.box) > SHARED), None)
        if here is None:
            places.append([sight])
        else:
            here.append(sight)
    return places


def _apart(faces: list[Sight], turn: int) -> list[Sight]:
    """Without faces of other turns that lie where there is a better one, or one of the photo's own turn."""
    kept = [sight for sight in faces if sight.turn == turn]
    for sight in sorted((one for one in faces if one.turn != turn), key=lambda one: (-one.score, one.face.box)):
        if all(_share(other.face.box, sight.face.box) <= SHARED for other in kept):
            kept.append(sight)
    return kept


def _share(a: Box, b: Box) -> float:
    """What two boxes have in common, as a part of the smaller one."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return max(0.0, width) * max(0.0, height) / max(smaller, 1e-9)


# --- from a closer look to the photo


def _is_it(face: Face, width: float, size: int) -> bool:
    """Whether it is what was to be looked at: in the middle of `size` px, and about `width` px wide."""
    off = float(np.abs(_middle(face.box) - (size - 1) / 2).max())
    return off < OFF * width and 0.5 < face.width / width < 2


def _brought_back(face: Face, matrix: Matrix, turn: int) -> Face:
    """From what was looked at to the photo. The box of a face between two quarter turns becomes a square."""
    back = inverse(matrix)
    (x, y), scale = (back @ (*_middle(face.box), 1.0)).tolist(), scale_of(back)
    width, height = face.box[2] - face.box[0], face.box[3] - face.box[1]
    if turn % 2:
        width = height = math.sqrt(width * height)
    elif turn % 4:
        width, height = height, width
    half_width, half_height = scale * width / 2, scale * height / 2
    points = np.c_[face.points, np.ones(len(face.points))] @ back.T
    return Face((x - half_width, y - half_height, x + half_width, y + half_height), points, face.score)


def _middle(box: Box) -> Matrix:
    return np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
