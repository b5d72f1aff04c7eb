"""Pictures drawn for tests of photo files."""

import numpy as np
from PIL import Image


def ramp(height: int, width: int) -> np.ndarray:
    """Smooth, and different in every pixel: (height, width, 3) uint8."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 200 // width, y * 200 // height, (x + y) * 100 // (width + height)], -1).astype(np.uint8)


def coloured(size: int) -> np.ndarray:
    """A red disc and a blue bar on a ramp with noise: (size, size, 3) uint8."""
    picture = ramp(size, size).astype(int) + np.random.default_rng(1).integers(-8, 9, (size, size, 1))
    y, x = np.mgrid[:size, :size]
    picture[(x - size / 3) ** 2 + (y - size / 2) ** 2 < (size / 5) ** 2] = (200, 30, 40)
    picture[:, size * 3 // 4 : size * 7 // 8] = (20, 40, 180)
    return picture.clip(0, 255).astype(np.uint8)


def exif_with(orientation: int) -> Image.Exif:
    """A maker, a date and an orientation."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "maker"
    exif.get_ifd(0x8769)[0x9003] = "1987:06:05 04:03:02"
    return exif


def upright(stored: np.ndarray, orientation: int) -> np.ndarray:
    """EXIF 2.32, Sec. 4.6.5: where row 0 and column 0 of the stored picture belong."""
    if orientation in (5, 6, 7, 8):
        stored = stored.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        stored = stored[::-1]
    return stored[:, ::-1] if orientation in (2, 3, 6, 7) else stored
