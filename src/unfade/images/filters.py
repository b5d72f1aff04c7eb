"""Resampling as matrices: Keys' cubic kernel, antialiased when shrinking, mirrored borders.

The low-pass filter phi_N of ILVR and of this method is two of them: phi(x) = (B A) x (B A)^T, A shrinking by N and B
enlarging by N. torch's own antialiased bicubic treats borders differently (by 0.04 to 0.08), so it cannot be used.
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from unfade.errors import BadInput


def low_pass(image: Tensor, factor: int, *, border: str = "mirrored") -> Tensor:
    """phi_N of Sec. 3.2: shrink (B, C, H, W) by `factor`, then enlarge it back. It is linear but not idempotent.

    `border` is a name in BORDERS: what lies around the image. Raises ValueError when a side is not divisible by
    `factor` or shrinks to fewer than 2 pixels.
    """
    height, width = image.shape[-2:]
    return _apply(_low_pass_matrix, (height, factor, border), image, (width, factor, border))


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """Bicubic resampling of (..., H, W) to (..., height, width), antialiased where it shrinks."""
    return _apply(_resample_matrix, (image.shape[-2], height), image, (image.shape[-1], width))


def at_size(image: Tensor, size: int) -> Tensor:
    """`resize` of square pictures (..., H, H) to (..., size, size); those of that size stay as they are."""
    return image if image.shape[-1] == size else resize(image, size, size)


def fit_square(image: Tensor, size: int, path: Path) -> Tensor:
    """Resize a square (3, H, H) picture to (3, size, size). Raises BadInput where it is not square."""
    height, width = image.shape[-2:]
    check_square(width, height, path)
    return at_size(image, size)


def check_square(width: int, height: int, path: Path) -> None:
    """Raises BadInput for a picture that is not square; `path` is for the message."""
    if height != width:
        raise BadInput(
            f"{path} is {width} x {height} pixels; aligned faces are square crops, cut it to a square first."
        )


def _apply(make: Callable[..., Tensor], rows: tuple[object, ...], image: Tensor, columns: tuple[object, ...]) -> Tensor:
    """Applies the matrices that `make` returns for `rows` and `columns` to the two axes of the image."""
    like = image.dtype, image.device
    with torch.autocast(image.device.type, enabled=False):  # bfloat16 would cost a third of an 8-bit level each time
        return _placed(make, rows, *like) @ image @ _placed(make, columns, *like).T


@lru_cache(maxsize=64)
def _placed(
    make: Callable[..., Tensor], arguments: tuple[object, ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """A matrix on a device, cached: copying it there in every step of the sampler would make the host wait."""
    with torch.inference_mode(False):  # else a training could not use what an inference has left here
        return make(*arguments).to(device, dtype)


@lru_cache(maxsize=64)
def _low_pass_matrix(size: int, factor: int, border: str) -> Tensor:
    if size % factor or size // factor < 2:
        raise ValueError(
            f"A side of {size} pixels cannot be low-passed by {factor}: it must shrink to 2 pixels or more."
        )
    small = size // factor
    return _resample_matrix(small, size, border) @ _resample_matrix(size, small, border)


@lru_cache(maxsize=64)
def _resample_matrix(source: int, result: int, border: str = "mirrored") -> Tensor:
    """The (result, source) matrix in float64. Rows sum to 1, including weights on zeros around the image."""
    scale = result / source
    stretch = max(1.0, 1 / scale)  # antialiasing: the kernel is as wide as a pixel of the result
    centres = (torch.arange(result, dtype=torch.float64) + 0.5) / scale - 0.5
    reach = 2 * stretch
    first = (centres - reach).floor()[:, None]
    taps = first + torch.arange(int(2 * reach) + 3, dtype=torch.float64)
    weights = _keys_cubic((centres[:, None] - taps) / stretch)
    weights = weights / weights.sum(1, keepdim=True)
    matrix = torch.zeros(result, source, dtype=torch.float64)
    return BORDERS[border](matrix, taps.long(), weights)


def _keys_cubic(x: Tensor) -> Tensor:
    """Keys (1981), Eq. 15."""
    d = x.abs()
    near = 1.5 * d**3 - 2.5 * d**2 + 1
    far = -0.5 * (d**3 - 5 * d**2 + 8 * d - 4)
    return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))


def _mirrored(matrix: Tensor, taps: Tensor, weights: Tensor) -> Tensor:
    return matrix.scatter_add_(1, _mirror(taps, matrix.shape[1]), weights)


def _zero(matrix: Tensor, taps: Tensor, weights: Tensor) -> Tensor:
    size = matrix.shape[1]
    inside = (taps >= 0) & (taps < size)
    return matrix.scatter_add_(1, taps.clamp(0, size - 1), weights * inside)


BORDERS = {"mirrored": _mirrored, "zero": _zero}


def _mirror(index: Tensor, size: int) -> Tensor:
    """Indices mirrored at the borders, half-sample symmetric: ... 1 0 | 0 1 2 ... n-1 | n-1 n-2 ..."""
    folded = index.remainder(2 * size)
    return torch.minimum(folded, 2 * size - 1 - folded)


def without_grid(image: Tensor, period: int) -> Tensor:
    """(B, C, H, W) without a grid: each set of pixels that lie `period` apart gets the mean of all pixels.

    In real pictures the means of these period x period sets differ by hundredths of a level, so only grids change.
    """
    if period == 1:
        return image
    sets = torch.unflatten(F.pixel_unshuffle(image, period), 1, (image.shape[1], period**2))
    means = sets.mean((3, 4), keepdim=True)
    return F.pixel_shuffle((sets - means + means.mean(2, keepdim=True)).flatten(1, 2), period)
