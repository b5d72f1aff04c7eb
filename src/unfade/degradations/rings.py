"""Curves over spatial frequency: power by rings of the spectrum, and filters that are given by them."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

RINGS = (  # cycles per picture
    *(0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 17, 21, 26, 34, 46, 64, 91, 128, 181, 256, 362),
    *(512, 725, 1024, 1449),  # of pictures of 512 px and more, up to 2048
)


def filtered(images: Tensor, gains: Tensor) -> Tensor:
    """(..., 3, S, S) filtered by gains, (3, rings), interpolated between the rings; borders are mirrored."""
    size = images.shape[-1]
    padded = F.pad(images.double(), (size // 4,) * 4, "reflect")
    side = padded.shape[-1]
    radius, rings = radii(side) * (size / side), torch.tensor(rings_of(size))
    upper = torch.searchsorted(rings, radius, right=True).clamp(1, len(rings) - 1)
    share = ((radius - rings[upper - 1]) / (rings[upper] - rings[upper - 1])).clamp(0, 1)
    gain = torch.lerp(gains[:, upper - 1].double(), gains[:, upper].double(), share.double())
    inner = slice(size // 4, size // 4 + size)
    passed: Tensor = torch.fft.irfft2(torch.fft.rfft2(padded) * gain, s=(side, side))
    return passed[..., inner, inner].float()


def spectrum(images: Tensor) -> Tensor:
    """Spectra of (N, 3, S, S) without their mean, in a Hann window, which hides the jumps at the borders."""
    window = torch.hann_window(images.shape[-1], periodic=False, dtype=torch.float64)
    window = window[:, None] * window
    centred = images.double() - images.double().mean((2, 3), keepdim=True)
    found: Tensor = torch.fft.rfft2(centred * (window / window.square().mean().sqrt()))
    return found


def power(spectra: Tensor) -> Tensor:
    """Squared magnitudes, averaged over the images."""
    return spectra.abs().square().mean(0)


def by_ring(values: Tensor) -> Tensor:
    """(3, S, S / 2 + 1) to the mean of each ring, (3, rings)."""
    size = values.shape[-2]
    rings = torch.tensor(rings_of(size))
    nearest = torch.bucketize(radii(size), (rings[1:] + rings[:-1]) / 2, right=True).flatten()
    sums = values.new_zeros(3, len(rings)).index_add_(1, nearest, values.flatten(1))
    return sums / nearest.bincount(minlength=len(rings)).clamp_min(1)


def radii(size: int) -> Tensor:
    """Spatial frequencies of `rfft2`, (S, S / 2 + 1), in cycles per picture."""
    rows, columns = torch.fft.fftfreq(size), torch.fft.rfftfreq(size)
    return torch.hypot(*torch.meshgrid(rows, columns, indexing="ij")) * size


@cache
def rings_of(size: int) -> tuple[float, ...]:
    """The rings that a picture of this size has."""
    beyond = next(ring for ring in RINGS if ring >= size / 2**0.5)
    return tuple(float(ring) for ring in RINGS if ring <= beyond)
