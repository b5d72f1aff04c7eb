"""Stored frames, which may be rotated or have pixels that are not square, to upright frames, and back."""

from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from unfade.images.photo import Levels

OBLONG = 8  # largest ratio of a pixel's sides; a larger one is an error in the file


@dataclass(frozen=True)
class Turn:
    """The turn from stored pictures to upright ones: first the axes are swapped, then they are mirrored."""

    swap: bool = False
    across: bool = False  # whether left and right are exchanged
    down: bool = False

    @staticmethod
    def of(matrix: tuple[int, ...]) -> "Turn":
        """The turn of a display matrix of nine numbers (ISO/IEC 14496-12): x' = a x + c y, y' = b x + d y."""
        a, b, _, c, d = matrix[:5]
        if abs(b) > abs(a):
            return Turn(True, across=c < 0, down=b < 0)
        return Turn(False, across=a < 0, down=d < 0)

    def upright(self, levels: Levels) -> Levels:
        """A stored frame, (H, W, C), turned and mirrored for display."""
        levels = levels.swapaxes(0, 1) if self.swap else levels
        return np.ascontiguousarray(self._mirrored(levels))

    def stored(self, levels: Levels) -> Levels:
        """The inverse of `upright`."""
        levels = self._mirrored(levels)
        return np.ascontiguousarray(levels.swapaxes(0, 1) if self.swap else levels)

    def _mirrored(self, levels: Levels) -> Levels:
        return levels[:: -1 if self.down else 1, :: -1 if self.across else 1]


@dataclass(frozen=True)
class Geometry:
    """How the frames of a film are displayed. Faces are found and restored in upright frames with square pixels."""

    turn: Turn = Turn()
    shape: Fraction = Fraction(1)  # of a stored pixel: its width to its height

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height with square pixels, before the turn; the picture is only ever stretched, never shrunk."""
        return round(width * max(self.shape, Fraction(1))), round(height / min(self.shape, Fraction(1)))

    def upright(self, levels: Levels) -> Levels:
        """A stored frame, (H, W, C), as it is displayed."""
        return self.turn.upright(self._squared(levels))

    def stored(self, levels: Levels, before: Levels, *, scale: int = 1) -> Levels:
        """The inverse: an upright frame, (H, W, C), in its stored form; `before` is the stored frame it came from.

        Where pixels are not square, only the changes are resampled, so that the rest stays identical; a frame that is
        `scale` times as large is resampled as a whole.
        """
        levels = self.turn.stored(levels)
        if self.shape == 1:
            return levels
        height, width = before.shape[:2]
        if scale != 1:
            return _resized(levels, width * scale, height * scale, cv2.INTER_AREA)
        change = levels.astype(np.float32) - self._squared(before)
        changed = before + cast(NDArray[np.float32], cv2.resize(change, (width, height), interpolation=cv2.INTER_AREA))
        return changed.round().clip(0, np.iinfo(before.dtype).max).astype(before.dtype)

    def _squared(self, levels: Levels) -> Levels:
        height, width = levels.shape[:2]
        wanted = self.size(width, height)
        return levels if wanted == (width, height) else _resized(levels, *wanted, cv2.INTER_CUBIC)


def shape_of(*said: Fraction | None) -> Fraction:
    """The shape of pixels as the container or, failing that, the codec gives it; 1 where neither does."""
    for shape in said:
        if shape and Fraction(1, OBLONG) <= shape <= OBLONG:
            return Fraction(shape)
    return Fraction(1)


def _resized(levels: Levels, width: int, height: int, kernel: int) -> Levels:
    return cast(Levels, cv2.resize(levels, (width, height), interpolation=kernel))
