"""Photos of more pixels without a model: Lanczos' kernel on the levels.

Positions follow `faces.align.scaled`: the picture's borders stay its borders, so the centre of the first pixel moves to
(scale - 1) / 2.
"""

from dataclasses import replace
from typing import cast

import cv2
import numpy as np
import torch
from torch import Tensor

from unfade.images.photo import Levels, Photo


def enlarged(photo: Photo, scale: int) -> Photo:
    """The photo with `scale` times as many rows and columns, of as many bits, with its alpha, origin and notes.

    OpenCV's Lanczos kernel of 8 taps; at scale 1 a copy, bit for bit. Nothing becomes float: a photo of 24 megapixels
    needs its own size and the result's.
    """
    return replace(photo, levels=_enlarged(photo.levels, scale), alpha=enlarged_alpha(photo, scale))


def enlarged_alpha(photo: Photo, scale: int) -> Levels | None:
    """The same of its alpha alone, where it has one."""
    return None if photo.alpha is None else _enlarged(photo.alpha, scale)


def brought_to(pixels: Tensor, height: int, width: int) -> Tensor:
    """(3, h, w) float32 to (3, height, width): by area where it shrinks, by Lanczos otherwise, which may overshoot."""
    if pixels.shape[-2:] == (height, width):
        return pixels
    shrinks = height <= pixels.shape[-2] and width <= pixels.shape[-1]
    array = np.ascontiguousarray(pixels.numpy().transpose(1, 2, 0))
    resized = cv2.resize(array, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LANCZOS4)
    return torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))


def _enlarged(levels: Levels, scale: int) -> Levels:
    """(H, W) or (H, W, C)."""
    size = levels.shape[1] * scale, levels.shape[0] * scale
    return cast(Levels, cv2.resize(levels, size, interpolation=cv2.INTER_LANCZOS4))
