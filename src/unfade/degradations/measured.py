"""What a fitted degradation does to faces, in numbers.

Blur is measured at the frequency where half of the contrast is left (MTF50, as for cameras), and given as the width of
the Gaussian that leaves as much there. Noise is the residual without its lowest frequencies, which belong to the face.
Numbers that vary between photos are given as the 10th, 50th and 90th percentiles.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unfade.degradations.fitted import OTHERS, FittedDegradation
from unfade.degradations.matching import BRIGHTNESS
from unfade.degradations.rings import rings_of

STEPS = 128  # of frequency, from 0 to 0.5 cycles per pixel
# Degrees, over half a turn. Directions near rows and columns are left out: there, spectra are dominated by the jumps at
# the borders of a face, which no blur softens.
DIRECTIONS = tuple(quarter + 7.5 * step for quarter in (0, 90) for step in range(2, 11))
HALF = 2 * math.log(2) / math.pi  # 0.4413: the width at half maximum of a Gaussian times the frequency of gain 0.5
SHARPEST = 2 * HALF  # px: a narrower blur keeps more than half of the contrast at 0.5 cycles per pixel
REDUCED = 0.42  # cycles per reduced pixel at which half of the contrast is left after bicubic resizing and back
CONTRAST = slice(1, 3)  # rings whose mean gain is the contrast
DARK, MIDDLE, BRIGHT = slice(1, 2), slice(3, 5), slice(6, 7)  # of the levels; not the ends, where noise is clipped
TENTHS = (0.1, 0.5, 0.9)

Spread = tuple[float, float, float]  # the percentiles of the photos


@dataclass(frozen=True)
class Blur:
    """How far a point is spread."""

    width: float  # px, full width at half maximum, mean of all directions; at least SHARPEST, which means no blur
    widest: float  # px, in the direction of most blur
    across: float  # px, at right angles to that
    angle: float  # degrees, 0..180, of the widest direction, anticlockwise from horizontal
    scale: float  # at least 1: reducing a face by this factor and enlarging it again loses as much
    photos: Spread  # widths
    channels: tuple[float, float, float]  # widths of red, green and blue


@dataclass(frozen=True)
class Noise:
    """How strong, how coarse and how colourful the noise is."""

    levels: tuple[float, ...]  # standard deviation in grey levels of 0..255, at brightnesses from black to white
    dark: float
    middle: float
    bright: float
    grain: float  # px, width of the autocorrelation at half maximum; 1 for noise of single pixels
    rows: float  # px, the same along rows
    columns: float  # px, the same along columns
    correlation: float  # of the colour channels, from 0 or below (in colour) to 1 (grey)
    photos: Spread  # at middle brightness


@dataclass(frozen=True)
class Damage:
    """The damage to the photos of a folder."""

    photos: int
    grey: int  # photos without colour
    size: int  # px, of the faces; all other lengths are in pixels of such faces
    blur: Blur
    noise: Noise
    contrast: tuple[float, float, float]  # red, green and blue: gain of the coarsest structures
    blocks: float | None  # `fitted.steps_at_blocks`, mean of the photos; None: not known


def damage_of(fitted: FittedDegradation) -> Damage:
    """Measure a degradation."""
    grey = 0 if fitted.grey is None else int(fitted.grey.sum())
    blocks = None if fitted.blocks is None else float(fitted.blocks.mean())
    red, green, blue = (float(gains[CONTRAST].mean()) for gains in response_of(fitted, coarse=True))
    return Damage(len(fitted.noise), grey, fitted.size, _blur(fitted), _noise(fitted), (red, green, blue), blocks)


def frequencies() -> Tensor:
    """(STEPS + 1,) in cycles per pixel, from 0 to 0.5."""
    return torch.linspace(0, 0.5, STEPS + 1, dtype=torch.float64)


def response_of(fitted: FittedDegradation, *, coarse: bool = False) -> Tensor:
    """Mean gain of each channel, (3, STEPS + 1) by `frequencies`; `coarse`: by whole cycles per picture instead."""
    places = torch.arange(4, dtype=torch.float64) / fitted.size if coarse else frequencies()
    return _transfer(fitted.kernels.mean(0), places).mean(-1) * _corrections(fitted, places)


def _blur(fitted: FittedDegradation) -> Blur:
    places = frequencies()
    correction = _corrections(fitted, places).mean(0)
    each = torch.stack([_transfer(kernel.mean(0), places) for kernel in fitted.kernels])
    each = each * correction[:, None]
    mean = each.mean(0)  # (STEPS + 1, directions)
    contrasts = response_of(fitted, coarse=True)[:, CONTRAST].mean(-1, keepdim=True)
    contrast = contrasts.mean()
    red, green, blue = _widths(response_of(fitted) / contrasts).tolist()
    widest, across, angle = _ellipse(_widths(mean.T / contrast))
    own = each.mean(-1)
    own = own.mean(0) + (1 + OTHERS) * (own - own.mean(0))  # the fit draws each kernel towards the mean; undo it
    width = float(_widths(mean.mean(-1) / contrast))
    return Blur(
        width,
        widest,
        across,
        angle,
        max(1.0, REDUCED / HALF * width),
        _spread(_widths(own / contrast)),
        (red, green, blue),
    )


def _noise(fitted: FittedDegradation) -> Noise:
    size = fitted.size
    rows, columns = torch.fft.fftfreq(size) * size, torch.fft.fftfreq(size) * size
    is_noise = torch.hypot(rows[:, None], columns) >= BRIGHTNESS
    total, mixed, own = torch.zeros(size, size, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64), []
    for residual in fitted.noise:
        spectra = torch.fft.fft2(residual.double(), norm="ortho") * is_noise
        total += spectra.abs().square().mean(0)
        mixed += torch.einsum("aij,bij->ab", spectra, spectra.conj()).real
        own.append(spectra.abs().square().mean().sqrt())
    each = torch.stack(own)
    strength = float(each.square().mean().sqrt())
    levels = (fitted.strengths.double() * strength * 127.5).tolist()
    deviations = mixed.diagonal().clamp_min(1e-12).sqrt()
    related = mixed / (deviations[:, None] * deviations)
    around = torch.fft.ifft2(total).real
    along_rows, along_columns = (
        _full_width(line / around[0, 0].clamp_min(1e-12)) for line in (around[0], around[:, 0])
    )
    middle = _mean(levels[MIDDLE])
    return Noise(
        tuple(levels),
        _mean(levels[DARK]),
        middle,
        _mean(levels[BRIGHT]),
        (along_rows + along_columns) / 2,
        along_rows,
        along_columns,
        float((related[0, 1] + related[0, 2] + related[1, 2]) / 3),
        _spread(each * middle / max(strength, 1e-12)),
    )


def _transfer(kernels: Tensor, places: Tensor) -> Tensor:
    """(..., k, k) to its gain, the real part, at F frequencies in all D directions, (..., F, D)."""
    angles = torch.tensor(DIRECTIONS, dtype=torch.float64).deg2rad()
    offsets = torch.arange(kernels.shape[-1], dtype=torch.float64) - kernels.shape[-1] // 2
    across, up = places[:, None] * angles.cos(), places[:, None] * angles.sin()
    right, down = (torch.exp(-2j * math.pi * part[..., None] * offsets) for part in (across, -up))
    lines = torch.einsum("...yx,fax->...yfa", kernels.to(torch.complex128), right)
    return torch.einsum("...yfa,fay->...fa", lines, down).real


def _corrections(fitted: FittedDegradation, places: Tensor) -> Tensor:
    """(3, F): the gains that follow the kernel, at these frequencies in cycles per pixel."""
    if fitted.response is None:
        return torch.ones(3, len(places), dtype=torch.float64)
    rings, wanted = rings_of(fitted.size), (places * fitted.size).numpy()
    return torch.from_numpy(np.stack([np.interp(wanted, rings, gains) for gains in fitted.response.double().numpy()]))


def _widths(gains: Tensor) -> Tensor:
    """(..., STEPS + 1) of frequency, 1 at the lowest, to the width of the blur in px, (...), at least SHARPEST."""
    below = gains < 0.5
    first = below.double().argmax(-1).clamp_min(1)[..., None]
    before, after = gains.gather(-1, first - 1)[..., 0], gains.gather(-1, first)[..., 0]
    crossing = first[..., 0] - 1 + (before - 0.5) / (before - after).clamp_min(1e-12)
    return torch.where(below.any(-1), HALF * 2 * STEPS / crossing, SHARPEST)


def _ellipse(widths: Tensor) -> tuple[float, float, float]:
    """(D,) in px to the largest width, the one across it, and its angle in degrees.

    The squared widths of a Gaussian are a sinusoid of twice the angle, which is fitted.
    """
    twice = 2 * torch.tensor(DIRECTIONS, dtype=torch.float64).deg2rad()
    waves = torch.stack([torch.ones_like(twice), twice.cos(), twice.sin()], 1)
    mean, cosine, sine = torch.linalg.lstsq(waves, widths.square()[:, None]).solution[:, 0].tolist()
    half, least = math.hypot(cosine, sine), SHARPEST**2
    widest, across = (math.sqrt(max(least, square)) for square in (mean + half, mean - half))
    return widest, across, math.degrees(math.atan2(sine, cosine)) / 2 % 180


def _full_width(autocorrelation: Tensor) -> float:
    """(S,), 1 at 0: the width at half maximum in px, interpolated between pixels."""
    first = max(1, int((autocorrelation < 0.5).double().argmax()))
    before, after = float(autocorrelation[first - 1]), float(autocorrelation[first])
    return 2 * (first - 1 + (before - 0.5) / max(before - after, 1e-12))


def _spread(values: Tensor) -> Spread:
    low, middle, high = values.double().quantile(torch.tensor(TENTHS, dtype=torch.float64)).tolist()
    return low, middle, high


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
