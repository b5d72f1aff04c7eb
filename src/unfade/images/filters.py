"""Resampling as matrices: Keys' cubic kernel, antialiased when shrinking, mirrored borders.

The low-pass filter phi_N of ILVR and of this method is two of them: phi(x) = (B A) x (B A)^T, A shrinking by N and B
enlarging by N. torch's own antialiased bicubic treats borders differently (by 0.04 to 0.08) and would not do.
"""

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from unfade.errors import BadInput


def low_pass(image: Tensor, factor: int) -> Tensor:
    """phi_N of Sec. 3.2: shrink (B, C, H, W) by `factor`, then enlarge it back. It is linear, and not idempotent.

    Raises ValueError when a side is not divisible by `factor` or shrinks to fewer than 2 pixels.
    """
    return _apply(_low_pass_matrix(image.shape[-2], factor), image, _low_pass_matrix(image.shape[-1], factor))


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """Bicubic resampling of (..., H, W) to (..., height, width), antialiased where it shrinks."""
    return _apply(_resample_matrix(image.shape[-2], height), image, _resample_matrix(image.shape[-1], width))


def fit_square(image: Tensor, size: int, path: Path) -> Tensor:
    """Bring a square (3, H, H) picture to (3, size, size). Raises BadInput for one that is not square."""
    height, width = image.shape[-2:]
    if height != width:
        raise BadInput(
            f"{path} is {width} x {height} pixels; aligned faces are square crops, cut it to a square first."
        )
    return image if height == size else resize(image, size, size)


def _apply(rows: Tensor, image: Tensor, columns: Tensor) -> Tensor:
    with torch.autocast(image.device.type, enabled=False):  # bfloat16 would cost a third of an 8-bit level each time
        return rows.to(image) @ image @ columns.to(image).T


@lru_cache(maxsize=64)
def _low_pass_matrix(size: int, factor: int) -> Tensor:
    if size % factor or size // factor < 2:
        raise ValueError(
            f"A side of {size} pixels cannot be low-passed by {factor}: it must shrink to 2 pixels or more."
        )
    small = size // factor
    return _resample_matrix(small, size) @ _resample_matrix(size, small)


@lru_cache(maxsize=64)
def _resample_matrix(source: int, result: int) -> Tensor:
    """The (result, source) matrix, rows summing to 1, in float64."""
    scale = result / source
    stretch = max(1.0, 1 / scale)  # antialiasing: the kernel grows to cover what a result pixel covers
    centres = (torch.arange(result, dtype=torch.float64) + 0.5) / scale - 0.5
    reach = 2 * stretch
    first = (centres - reach).floor()[:, None]
    taps = first + torch.arange(int(2 * reach) + 3, dtype=torch.float64)
    weights = _keys_cubic((centres[:, None] - taps) / stretch)
    weights = weights / weights.sum(1, keepdim=True)
    matrix = torch.zeros(result, source, dtype=torch.float64)
    return matrix.scatter_add_(1, _mirror(taps.long(), source), weights)


def _keys_cubic(x: Tensor, a: float = -0.5) -> Tensor:
    """Keys (1981), Eq. 15."""
    d = x.abs()
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * (d**3 - 5 * d**2 + 8 * d - 4)
    return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))


def _mirror(index: Tensor, size: int) -> Tensor:
    """Half-sample symmetric: ... 1 0 | 0 1 2 ... n-1 | n-1 n-2 ..."""
    folded = index.remainder(2 * size)
    return torch.minimum(folded, 2 * size - 1 - folded)
