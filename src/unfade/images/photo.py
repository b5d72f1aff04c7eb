"""A whole photo in memory: its levels as in the file, and windows of it as tensors.

A photo of 24 megapixels is 72 MB as bytes and 288 MB as float32, so only windows become tensors, and pixels outside
the windows that are replaced stay identical bit for bit.
"""

from dataclasses import dataclass, field
from typing import cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Levels = NDArray[np.uint8 | np.uint16]
Window = tuple[int, int, int, int]  # left, top, right, bottom in px; the last column and row are outside
TO_8_BITS = np.rint(np.arange(1 << 16) / 257).astype(np.uint8)  # the 8-bit level for each 16-bit level


@dataclass(frozen=True)
class Origin:
    """The metadata of the photo's file, which its result gets too."""

    kind: str = "PNG"  # Pillow's name of the format to write
    exif: bytes = b""  # as in a JPEG, with "Exif\0\0" before it; the orientation is 1, as it has been applied
    xmp: bytes = b""
    icc: bytes = b""  # colour profile
    dpi: tuple[float, float] | None = None
    tables: dict[int, list[int]] = field(default_factory=dict)  # quantisation tables of a JPEG
    subsampling: int = -1  # of a JPEG's or AVIF's chroma, by Pillow's number; -1: unknown
    modified: float | None = None  # when the file was last changed, seconds since 1970
    grey: bool = False  # whether the file has only one channel of colour
    lossless: bool = False  # whether a WebP is lossless
    size: tuple[int, int] | None = None  # width and height in px to which EXIF and XMP refer, upright
    iptc: bytes = b""  # IPTC-IIM
    texts: tuple[tuple[bytes, bytes], ...] = ()  # of a PNG: name and content of each chunk
    comments: tuple[bytes, ...] = ()  # of a JPEG or a GIF, in an encoding that the file does not say
    read_as: str = ""  # Pillow's name of the format that was read; "" for a photo that is not from a file


@dataclass
class Photo:
    """A decoded photo, upright. Only `paste` changes it in place."""

    levels: Levels  # (H, W, 3) RGB, 8 or 16 bits
    alpha: Levels | None = None  # (H, W), as many bits as `levels`
    origin: Origin = field(default_factory=Origin)
    notes: tuple[str, ...] = ()  # what had to be converted, in words

    @property
    def height(self) -> int:
        """Rows."""
        return int(self.levels.shape[0])

    @property
    def width(self) -> int:
        """Columns."""
        return int(self.levels.shape[1])

    def region(self, window: Window) -> Tensor:
        """A window inside the photo, (3, h, w) float32 in [-1, 1]."""
        left, top, right, bottom = window
        return self._to_tensor(self.levels[top:bottom, left:right])

    def shrunk(self, side: int) -> Tensor:
        """The whole photo with its longer side at most `side` px, antialiased: (3, h, w) float32 in [-1, 1]."""
        scale = min(1.0, side / max(self.height, self.width))
        size = max(1, round(self.width * scale)), max(1, round(self.height * scale))
        return self.resampled((0, 0, self.width, self.height), size[1], size[0])

    def resampled(self, window: Window, height: int, width: int) -> Tensor:
        """A window inside the photo, resized: (3, height, width) float32 in [-1, 1].

        By area where it shrinks and cubic otherwise, on the levels, so that a large window is never a large tensor.
        """
        left, top, right, bottom = window
        levels, size = self.levels[top:bottom, left:right], (bottom - top, right - left)
        if size != (height, width):
            shrinks = height <= size[0] and width <= size[1]
            kernel = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
            levels = cast(Levels, cv2.resize(levels, (width, height), interpolation=kernel))
        return self._to_tensor(levels)

    def paste(self, window: Window, pixels: Tensor, where: Tensor) -> None:
        """Replace the pixels of a window where `where`, (h, w) of bool, is True; `pixels` is (3, h, w) in [-1, 1]."""
        left, top, right, bottom = window
        most = np.iinfo(self.levels.dtype).max
        levels = pixels.detach().float().add(1).mul_(most / 2).round_().clamp_(0, most).cpu().numpy()
        place = where.cpu().numpy()[..., None]
        np.copyto(self.levels[top:bottom, left:right], levels.astype(self.levels.dtype).transpose(1, 2, 0), where=place)

    def _to_tensor(self, levels: Levels) -> Tensor:
        most = np.iinfo(levels.dtype).max
        pixels = torch.from_numpy(np.ascontiguousarray(levels.transpose(2, 0, 1)).astype(np.float32))
        return pixels.mul_(2 / most).sub_(1)


def over_white(levels: Levels, alpha: Levels) -> Levels:
    """Levels (H, W, 3) laid over white by their alpha, (H, W) of as many bits."""
    most = np.iinfo(levels.dtype).max
    share = alpha[..., None].astype(np.float32) / most
    laid: Levels = np.rint(levels * share + most * (1 - share)).astype(levels.dtype)
    return laid
