"""The tone of grey and toned photos, whose colour depends on brightness alone, measured and applied to faces.

A sepia print that was scanned in colour has one colour at every brightness. So chroma is a function of luma, and a
restored face that came out in natural colours gets the print's by that function.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unfade.images.photo import Photo

RED, GREEN, BLUE = 0.299, 0.587, 0.114  # luma, ITU-R BT.601
SIDE = 160  # px, the photo's longer side for the analysis: JPEG's noise averages out, 1 % of the area is 250 px
BINS = 32  # of luma
FEWEST = 0.002  # least share of the photo's pixels for a bin to count
BLUR = 5  # px, at that size: against the chroma subsampling and blocks of small JPEGs
STRAY = 0.08  # in [-1, 1], 10 levels of 255: a distance from the tone that noise does not explain
STRAYED = 0.012  # the share of such pixels that makes a photo coloured; a toned JPEG of 96 px, quality 30, has 0.003
BLEACHED, MOST_BLEACHED = 0.6, 0.2  # allowed deviation of a tone's strength: relative, and at most in [-1, 1]
FAINT = 0.04  # a tone with less strength than this has no hue
STEEPEST = 1.3  # chroma over luma; a toning that clips its red in the highlights has 1, a red coat on snow 2.4

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Tone:
    """Chroma as a function of luma, linear between knots and constant beyond them. All values are in [-1, 1]."""

    luma: tuple[float, ...]  # ascending
    red: tuple[float, ...]  # R - Y at each
    blue: tuple[float, ...]  # B - Y at each

    def apply(self, pixels: Tensor) -> Tensor:
        """(..., 3, H, W) in [-1, 1] with its luma kept and its chroma replaced.

        Chroma that would leave [-1, 1] is scaled down and not clipped, as clipping would change the luma.
        """
        luma = _luma(pixels)
        red, blue = self._at(self.red, luma), self._at(self.blue, luma)
        chroma = torch.stack([red, -(RED * red + BLUE * blue) / GREEN, blue], dim=-3)
        brightness = luma.unsqueeze(-3)
        room = torch.where(chroma > 0, 1 - brightness, 1 + brightness).clamp_min(0)
        share = (room / chroma.abs().clamp_min(1e-6)).amin(-3, keepdim=True).clamp(max=1)
        return brightness + share * chroma

    def _at(self, values: tuple[float, ...], luma: Tensor) -> Tensor:
        if len(self.luma) == 1:
            return torch.full_like(luma, values[0])
        knots, heights = torch.tensor(self.luma).to(luma), torch.tensor(values).to(luma)
        right = torch.searchsorted(knots, luma.contiguous()).clamp(1, len(knots) - 1)
        share = (luma - knots[right - 1]) / (knots[right] - knots[right - 1])
        return torch.lerp(heights[right - 1], heights[right], share.clamp(0, 1))


def tone_of(photo: Photo) -> Tone | None:
    """The tone of a grey, sepia or otherwise toned photo, however it is stored; None for a coloured photo.

    A photo also counts as coloured if a single coloured object covers 1 to 2 % of its area.
    """
    pixels = torch.from_numpy(np.stack([cv2.blur(channel, (BLUR, BLUR)) for channel in photo.shrunk(SIDE).numpy()]))
    pixels = pixels.double()
    luma = _luma(pixels).numpy().ravel()
    chroma = np.stack([(pixels[channel] - _luma(pixels)).numpy().ravel() for channel in (0, 2)])
    knots, red, blue = _medians(luma, chroma)
    if max(_steepest(knots, red), _steepest(knots, blue)) > STEEPEST:
        return None
    if _strays(chroma, np.stack([np.interp(luma, knots, heights) for heights in (red, blue)])).mean() > STRAYED:
        return None
    return Tone(tuple(knots.tolist()), tuple(red.tolist()), tuple(blue.tolist()))


def grey_where(face: Tensor, picture: Tensor) -> Tensor:
    """The pictures, made grey where the face they came from is grey; both (B, 3, ...) in [-1, 1], of any sizes.

    A face is grey if its three channels are equal; a crop is too small to tell a tone from natural colours.
    """
    return torch.where(is_grey(face).to(picture.device).view(-1, 1, 1, 1), to_grey(picture), picture)


def is_grey(faces: Tensor) -> Tensor:
    """(B, 3, H, W) in [-1, 1] to (B,): whether the three channels of each are equal."""
    spread = (faces.amax(1) - faces.amin(1)).flatten(1).amax(1)
    return spread < 1 / 255  # half a level of 8 bits: resizing may round the channels apart


def to_grey(picture: Tensor) -> Tensor:
    """(..., 3, H, W) to the same shape, with its luma in all channels."""
    return _luma(picture).unsqueeze(-3).expand_as(picture)


def _luma(pixels: Tensor) -> Tensor:
    """(..., 3, H, W) to (..., H, W). Written so that equal channels give exactly their value."""
    red, green, blue = pixels.unbind(-3)
    return green + RED * (red - green) + BLUE * (blue - green)


def _medians(luma: Array, chroma: Array) -> tuple[Array, Array, Array]:
    """The mean luma and the median chroma of every luma bin that holds enough pixels."""
    places = np.clip((luma + 1) / 2 * BINS, 0, BINS - 1).astype(int)
    members = [np.flatnonzero(places == place) for place in range(BINS)]
    members = [inside for inside in members if len(inside) >= max(1, FEWEST * len(luma))]
    knots = np.array([luma[inside].mean() for inside in members])
    red, blue = (np.array([np.median(values[inside]) for inside in members]) for values in chroma)
    return knots, red, blue


def _strays(chroma: Array, tone: Array) -> NDArray[np.bool_]:
    """Which of N pixels, (2, N), have another colour than the tone at their luma.

    Old paper yellows and bleaches unevenly, so more or less of the tone's own hue is allowed, within limits.
    """
    off, strength = chroma - tone, np.hypot(*tone)
    hue = tone / strength.clip(1e-9)
    along, across = (off * hue).sum(0), off[0] * hue[1] - off[1] * hue[0]
    tinted = (np.abs(across) > STRAY) | (np.abs(along) > (BLEACHED * strength).clip(STRAY, MOST_BLEACHED))
    strays: NDArray[np.bool_] = np.where(strength < FAINT, np.hypot(*off) > STRAY, tinted)
    return strays


def _steepest(knots: Array, heights: Array) -> float:
    """The steepest slope between knots that lie well apart; between close knots, noise alone would be steep."""
    if len(knots) < 2:
        return 0.0
    rises = np.abs(np.diff(heights)) - STRAY / 2
    return float((rises / np.diff(knots).clip(2 / BINS)).max())
