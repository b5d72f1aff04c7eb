"""The boundary between files and tensors: the only place that handles uint8, HWC, EXIF, alpha and 16 bits.

Inside the library an image is a float32 tensor (3, H, W) or (B, 3, H, W), RGB, in [-1, 1].
"""

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unfade.atomic import atomic_write
from unfade.errors import UnreadableImage
from unfade.images.colours import to_srgb
from unfade.images.decoding import decode
from unfade.images.photo import TO_8_BITS, Levels, Photo, over_white


@dataclass(frozen=True)
class Picture:
    """A decoded file."""

    pixels: Tensor  # (3, H, W) float32, RGB, [-1, 1]
    notes: tuple[str, ...] = ()  # what had to be converted, in words


def read_picture(path: Path) -> Picture:
    """Decode a picture, turned upright by its EXIF orientation, with notes of what was converted.

    Its colours are converted to sRGB by its colour profile. Raises UnreadableImage, whose message starts with the path,
    also for a picture that is fully transparent.
    """
    photo = decode(path)
    refuse_clear(photo, path)
    return _as_seen(photo)


def view(photo: Photo, side: int) -> Tensor:
    """A photo as a screen shows it, in sRGB and over white, its longer side at most `side` px: (3, h, w) in [-1, 1]."""
    scale = min(1.0, side / max(photo.height, photo.width))
    size = max(1, round(photo.width * scale)), max(1, round(photo.height * scale))
    levels, alpha = (
        part if part is None or scale == 1 else cv2.resize(part, size, interpolation=cv2.INTER_AREA)
        for part in (photo.levels, photo.alpha)
    )
    return _as_seen(replace(photo, levels=cast(Levels, levels), alpha=cast(Levels | None, alpha))).pixels


def shown(path: Path, side: int) -> Tensor:
    """The `view` of a photo in a file, whatever its format. Raises UnreadableImage, also for a transparent one."""
    photo = decode(path)
    refuse_clear(photo, path)
    return view(photo, side)


def _as_seen(photo: Photo) -> Picture:
    """The photo in 8 bits, sRGB and over white, with notes of what was converted."""
    levels, alpha, notes = photo.levels, photo.alpha, list(photo.notes)
    if levels.dtype == np.uint16:
        levels, alpha = TO_8_BITS[levels], None if alpha is None else TO_8_BITS[alpha]
        notes.append("16 bits brought to 8")
    levels = to_srgb(levels, photo.origin.icc, notes)
    if alpha is not None and not (alpha == np.iinfo(alpha.dtype).max).all():
        levels = over_white(levels, alpha)
        notes.append("transparency laid over white")
    if photo.origin.grey:
        notes.append("grey converted to RGB")
    return Picture(from_bytes(levels), tuple(notes))


def refuse_clear(photo: Photo, path: Path) -> None:
    """Raises UnreadableImage for a photo that is fully transparent; `path` is for the message."""
    if photo.alpha is not None and not photo.alpha.any():
        raise UnreadableImage(f"{path} is fully transparent, so nothing can be seen; save it without transparency.")


def read_image(path: Path) -> Tensor:
    """The pixels of a picture: (3, H, W) float32, RGB, sRGB, in [-1, 1]. Raises UnreadableImage."""
    return read_picture(path).pixels


def write_png(path: Path, image: Tensor) -> None:
    """Write (3, H, W) in [-1, 1] as an 8-bit PNG, atomically; values are clamped and rounded."""
    atomic_write(path, encode(image, "PNG"))


def encode(image: Tensor, kind: str = "PNG", *, quality: int = 92) -> bytes:
    """The bytes of a picture file; `kind` is a Pillow format name, `quality` is for the lossy ones."""
    buffer = io.BytesIO()
    Image.fromarray(to_bytes(image)).save(buffer, kind, quality=quality)
    return buffer.getvalue()


def to_bytes(image: Tensor) -> np.ndarray:
    """(3, H, W) in [-1, 1] to (H, W, 3) uint8, clamped, rounded to the nearest level."""
    levels = (image.detach().float().clamp(-1, 1) + 1).mul(127.5).round()
    return levels.permute(1, 2, 0).to("cpu", torch.uint8).contiguous().numpy()


def from_bytes(levels: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 to (3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(np.array(levels)).permute(2, 0, 1).float().div(127.5).sub(1).contiguous()
