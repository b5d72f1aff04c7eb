"""The windows of Swin transformers: cut out, put back, shifted (Liu et al. 2021).

Grids are (B, h, w, C) whose sides are multiples of the window, in cells.
"""

import math

import torch
from torch import Tensor

OUTSIDE = -100.0  # added to the attention between pixels that only the cyclic shift made neighbours (published)


def to_windows(x: Tensor, window: int) -> Tensor:
    """(B, h, w, C) -> (B, number of windows, window**2, C), windows row by row."""
    batch, height, width, channels = x.shape
    x = x.view(batch, height // window, window, width // window, window, channels)
    return x.transpose(2, 3).reshape(batch, -1, window**2, channels)


def from_windows(windows: Tensor, like: Tensor) -> Tensor:
    """The inverse of `to_windows`, of the shape of `like`."""
    batch, height, width, channels = like.shape
    window = math.isqrt(windows.shape[2])
    x = windows.view(batch, height // window, width // window, window, window, channels)
    return x.transpose(2, 3).reshape(like.shape)


def shift_mask(height: int, width: int, window: int, device: torch.device | None = None) -> Tensor:
    """What the attention in shifted windows may not see: 0 or -100, (number of windows, window**2, window**2).

    After the cyclic shift by half a window the last windows hold pixels from opposite borders (Swin, Fig. 4).
    """
    if device is None and only_shapes():
        return torch.empty(height * width // window**2, window**2, window**2)
    rows, columns = (shift_regions(side, window, device) for side in (height, width))
    regions = to_windows((3 * rows[:, None] + columns)[None, :, :, None], window)[0, :, :, 0]
    return (regions[:, :, None] != regions[:, None, :]).float() * OUTSIDE


def shift_regions(side: int, window: int, device: torch.device | None) -> Tensor:
    """0, 1 or 2 for each of `side` cells: before the last window, its first half, its second half."""
    cell = torch.arange(side, device=device)
    return (cell >= side - window).long() + (cell >= side - window // 2).long()


def relative_positions(window: int) -> Tensor:
    """Row of the bias table for each pair of cells of a window: (window**2, window**2), int64."""
    if only_shapes():
        return torch.empty(window**2, window**2, dtype=torch.int64)
    cells = torch.cartesian_prod(torch.arange(window), torch.arange(window))
    offset = cells[:, None] - cells[None, :] + window - 1  # each coordinate in 0 .. 2 * window - 2
    return offset[..., 0] * (2 * window - 1) + offset[..., 1]


def only_shapes() -> bool:
    """Whether tensors are made on the meta device, where any arithmetic makes torch import hundreds of modules."""
    return torch.get_default_device().type == "meta"
