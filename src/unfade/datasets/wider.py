"""WIDER FACE as published (Yang et al., CVPR 2016): its annotation, and squares in FFHQ's framing from its boxes."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unfade.errors import BadInput

ANNOTATION = "wider_face_val_bbx_gt.txt"
FIELDS = 10  # x y w h blur expression illumination invalid occlusion pose
HEAVY = 2  # occlusion: 0 none, 1 partial, 2 heavy

# Where FFHQ's alignment puts a face box, as parts of the side. Approximate: medians of the boxes that YuNet, a detector
# trained on WIDER FACE's boxes, finds in 420 aligned faces; the spread (one standard deviation) is 5 % of the extent,
# 0.04 of the centre in x and 0.02 in y.
EXTENT = 0.647  # sqrt(width * height)
CENTRE_X = 0.50
CENTRE_Y = 0.55


@dataclass(frozen=True)
class Box:
    """A face as annotated, in pixels of the photo."""

    left: int
    top: int
    width: int
    height: int
    invalid: bool = False
    occlusion: int = 0  # 0 none, 1 partial, 2 heavy

    @property
    def side(self) -> int:
        """The shorter side of the box, px."""
        return min(self.width, self.height)

    @property
    def is_usable(self) -> bool:
        """Whether the face is neither marked invalid nor heavily occluded."""
        return not self.invalid and self.occlusion < HEAVY


@dataclass(frozen=True)
class Square:
    """A square that is cut out of a photo, in its pixels; it may extend beyond the photo."""

    left: int
    top: int
    side: int


def read_annotation(text: str, path: Path) -> list[tuple[str, list[Box]]]:
    """(photo, its boxes) of the published text format, in its order. `path` is for messages.

    A photo is `<event>/<file>`, then the number of its boxes, then a line for each; a photo with none has a line of
    zeros all the same. Raises BadInput, naming the line.
    """
    lines = [line.strip() for line in text.splitlines()]
    photos: list[tuple[str, list[Box]]] = []
    at = 0
    while at < len(lines):
        if not lines[at]:
            at += 1
            continue
        count = _count(lines, at + 1, path)
        first = at + 2
        photos.append((lines[at], [_box(lines, row, path) for row in range(first, first + count)]))
        at = first + (count or _is_box(lines, first))
    return photos


def framed(box: Box) -> Square:
    """The square that has the box where FFHQ's alignment would have it (EXTENT, CENTRE_X, CENTRE_Y), to a pixel."""
    side = math.sqrt(box.width * box.height) / EXTENT
    return Square(
        left=_nearest(box.left + box.width / 2 - CENTRE_X * side),
        top=_nearest(box.top + box.height / 2 - CENTRE_Y * side),
        side=max(1, _nearest(side)),
    )


def cut(photo: Tensor, square: Square) -> Tensor:
    """(C, H, W) to (C, side, side), mirrored where the square leaves the photo."""
    rows = _mirrored(square.top, square.side, photo.shape[-2])
    columns = _mirrored(square.left, square.side, photo.shape[-1])
    return photo[:, rows][:, :, columns]


def _mirrored(start: int, side: int, length: int) -> Tensor:
    """The indices start .. start + side - 1, folded back at both borders: ... 1 0 | 0 1 ... n-1 | n-1 ..."""
    before, after = max(0, -start), max(0, start + side - length)
    index = np.pad(np.arange(length), (before, after), mode="symmetric")
    return torch.from_numpy(index[start + before :][:side])


def _nearest(value: float) -> int:
    """Rounds halves up, so that a box moved by whole pixels moves its square by as many."""
    return math.floor(value + 0.5)


def _count(lines: list[str], row: int, path: Path) -> int:
    if row >= len(lines) or not lines[row].isdecimal():
        raise _wrong(lines, row, path, "the number of faces")
    return int(lines[row])


def _box(lines: list[str], row: int, path: Path) -> Box:
    if not _is_box(lines, row):
        raise _wrong(lines, row, path, f"a face of {FIELDS} numbers")
    left, top, width, height, _, _, _, invalid, occlusion, _ = map(int, lines[row].split())
    return Box(left, top, width, height, bool(invalid), occlusion)


def _is_box(lines: list[str], row: int) -> bool:
    return row < len(lines) and re.fullmatch(rf"-?\d+(\s+-?\d+){{{FIELDS - 1}}}", lines[row]) is not None


def _wrong(lines: list[str], row: int, path: Path, expected: str) -> BadInput:
    found = f"found {lines[row][:60]!r}" if row < len(lines) else "the file ends"
    return BadInput(f"{path} is not WIDER FACE's annotation: {expected} was expected in line {row + 1}, {found}.")
