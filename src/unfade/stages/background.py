"""Run whole photos through a network, tile by tile, without seams and in bounded memory."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from unfade.errors import BadInput
from unfade.images.enlarge import brought_to, enlarged_alpha
from unfade.images.photo import Photo
from unfade.images.tone import Tone, tone_of
from unfade.jobs.run_stage import all_of

OVERLAP = 16  # px at each side of a tile that the neighbouring tile contains too
BATCH = 4  # tiles that go through the network together
MULTIPLE = 8  # px; tiles begin at multiples of it, since some networks fold blocks of 2, 4 or 8 px into channels


class Enlarger(Protocol):
    """The interface of `restorers.upscale.Upscaler`."""

    tile: int  # px, side of its input
    factor: int  # side of its result in relation to its input

    def __call__(self, image: Tensor, /) -> Tensor:
        """(B, 3, tile, tile) in [-1, 1] -> (B, 3, factor * tile, factor * tile) in [-1, 1]."""
        ...


def through(upscaler: Enlarger, *, scale: int, colour: bool = False) -> Callable[[Photo], Photo]:
    """A function that enlarges photos `scale` times with a network. Threads may share it: it works on one at a time.

    Grey and toned photos keep their tone unless `colour` allows them to become coloured.
    """
    one_at_a_time = threading.Lock()  # two at once would be no faster and need twice the memory

    def enlarge(photo: Photo) -> Photo:
        with one_at_a_time:
            return tiled(photo, upscaler, scale=scale, tone=None if colour else tone_of(photo))

    return enlarge


def tiled(
    photo: Photo, upscaler: Enlarger, scale: int, overlap: int = OVERLAP, batch: int = BATCH, tone: Tone | None = None
) -> Photo:
    """Enlarge a photo `scale` times with a network; bit depth and metadata stay the same.

    If the network's factor is not `scale`, its result is resized by area averaging or Lanczos, as is the alpha channel.
    Neighbouring tiles share twice the overlap: the outer quarter of that at each end is dropped, and in the middle half
    one tile fades into the other. A network whose receptive field reaches no further than overlap / 2 px therefore
    gives the same result as on the whole photo. Tiles are mirrored beyond the border of the photo. `tone` is applied to
    the result. Only one row of tiles is held as floats at a time. Raises BadInput for tiles that are too small for the
    overlap, and for results that are not finite.
    """
    tile = upscaler.tile
    if tile % MULTIPLE or tile < max(MULTIPLE, 4 * overlap):
        raise BadInput(
            f"The side of a tile must be a multiple of {MULTIPLE} px and at least {4 * overlap}, got {tile}."
        )
    levels = np.empty((photo.height * scale, photo.width * scale, 3), photo.levels.dtype)
    result = replace(photo, levels=levels, alpha=enlarged_alpha(photo, scale))
    columns = _starts(photo.width, tile, overlap)
    across = _shares(columns, tile, overlap, scale)
    rows = _starts(photo.height, tile, overlap)
    carried = torch.zeros(3, 0, result.width)  # the part of the previous row of tiles that overlaps this one
    for row, after, share in zip(rows, [*rows[1:], photo.height], _shares(rows, tile, overlap, scale), strict=True):
        band = torch.zeros(3, tile * scale, result.width)
        for column, part, pixels in zip(columns, across, _seen(photo, row, columns, upscaler, batch), strict=True):
            pixels = brought_to(pixels, tile * scale, tile * scale)
            pixels = pixels if tone is None else tone.apply(pixels)
            place = band[..., column * scale : (column + tile) * scale]  # ends where the photo does
            place += (pixels * part)[..., : place.shape[-1]]
        band *= share[:, None]
        band[:, : carried.shape[1]] += carried
        _write(result, row * scale, band[:, : (after - row) * scale])
        carried = band[:, (after - row) * scale :].clone()
    return result


def _seen(photo: Photo, row: int, columns: Sequence[int], upscaler: Enlarger, batch: int) -> Iterator[Tensor]:
    """The network's result for each tile of a row."""
    for first in range(0, len(columns), batch):
        tiles = [_tile(photo, row, column, upscaler.tile) for column in columns[first : first + batch]]
        yield from all_of(lambda some: upscaler(torch.stack(some)).float().cpu(), tiles)


def _tile(photo: Photo, row: int, column: int, tile: int) -> Tensor:
    """(3, tile, tile), mirrored beyond the photo's last row and column."""
    levels = photo.levels[row : row + tile, column : column + tile]
    missing = [(0, tile - length) for length in levels.shape[:2]]
    return Photo(np.pad(levels, [*missing, (0, 0)], "symmetric")).region((0, 0, tile, tile))


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin: neighbours share at least twice the overlap, and the last one reaches the end."""
    last = max(0, -(-length // MULTIPLE) * MULTIPLE - tile)
    step = (tile - 2 * overlap) // MULTIPLE * MULTIPLE
    return [*range(0, last, step), last]


def _shares(starts: Sequence[int], tile: int, overlap: int, scale: int) -> list[Tensor]:
    """The weights of each tile along one side, (tile * scale,); at every place the weights of all tiles sum to 1."""
    middles = [(before + tile + start) / 2 for before, start in pairwise(starts)]
    return [
        _risen(start, tile, scale, before, overlap) * (1 - _risen(start, tile, scale, behind, overlap))
        for start, before, behind in zip(starts, [-np.inf, *middles], [*middles, np.inf], strict=True)
    ]


def _risen(start: int, tile: int, scale: int, middle: float, overlap: int) -> Tensor:
    """A ramp from 0 to 1, `overlap` px wide and centred on `middle`, at the centres of the result's pixels."""
    places = start + (torch.arange(tile * scale, dtype=torch.float64) + 0.5) / scale
    return ((places - middle) / max(overlap, 1e-9) + 0.5).clamp(0, 1).float()


def _write(result: Photo, top: int, pixels: Tensor) -> None:
    pixels = pixels[:, : result.height - top]
    if not torch.isfinite(pixels).all():
        raise BadInput("The network for the background gave values that are not numbers; choose another `background`.")
    window = (0, top, result.width, top + pixels.shape[1])
    result.paste(window, pixels, torch.ones(pixels.shape[1:], dtype=torch.bool))
