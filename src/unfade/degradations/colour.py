"""Brightness, contrast, saturation and hue of a picture, by the formulas of torchvision's ColorJitter.

Every function takes (H, W, 3) BGR float32 in [0, 1] and an amount, and returns the same shape and range. Y is the grey
of a pixel, 0.2989 R + 0.587 G + 0.114 B (ITU-R 601, as torchvision rounds it).
"""

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

GREY = np.array([0.114, 0.587, 0.2989], dtype=np.float32)  # of B, G and R
CIRCLE = 360  # degrees, OpenCV's unit of hue in float pictures


def brightness(image: Array, factor: float) -> Array:
    """f x, clipped. 1 changes nothing, 0 is black."""
    return _blend(image, np.float32(0), factor)


def contrast(image: Array, factor: float) -> Array:
    """f x + (1 - f) mean(Y), clipped, the mean over the whole picture. 1 changes nothing, 0 is one flat grey."""
    return _blend(image, (image @ GREY).mean(), factor)


def saturation(image: Array, factor: float) -> Array:
    """f x + (1 - f) Y, clipped, Y of each pixel. 1 changes nothing, 0 is a grey picture."""
    return _blend(image, (image @ GREY)[..., None], factor)


def hue(image: Array, turn: float) -> Array:
    """Hue + `turn` of the colour circle, in HSV, value and saturation kept. Whole numbers change nothing."""
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    hsv[..., 0] = (hsv[..., 0] + np.float32(CIRCLE * turn)) % CIRCLE
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR), dtype=np.float32).clip(0, 1)


COLOUR: dict[str, Callable[[Array, float], Array]] = {
    "brightness": brightness,
    "contrast": contrast,
    "saturation": saturation,
    "hue": hue,
}


def _blend(image: Array, other: Array | np.float32, factor: float) -> Array:
    return np.asarray(np.float32(factor) * image + np.float32(1 - factor) * other, dtype=np.float32).clip(0, 1)
