"""The degradation of a folder, fitted to its photos and their targets, and applied to clean faces.

That gives training pairs whose target is the truth. A photo is modelled as its target under its own blur, plus noise:

    photo = kernel * target + sigma(kernel * target) z

The kernel is a least-squares fit in the frequency domain, regularized towards that of the whole folder. Sigma is a
table over brightness. z is the normalized residual: not a model of the noise but the noise itself, with its grain and
its colours. A clean face is degraded by the kernel of a photo drawn at random, plus that photo's z with random phases:
it has the spectrum of that noise but not the outlines of that face, and is another one every time.

Fitted so, the degradation is too mild, since targets have taken up noise; `matching` corrects it.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unfade.degradations.rings import filtered
from unfade.errors import BadInput

RADIUS = 10  # px, of a kernel for faces of 128 px: enlarging by 8 spreads that far
OTHERS = 4.0  # weight of the folder's mean in the fit of each kernel, in photos
RIDGE = 0.01  # ridge penalty, relative to the mean energy of the targets: frequencies they lack are not fitted
LEVELS = 8  # levels of brightness at which the strength of the noise is measured
ENOUGH = 500  # a level with fewer values than this gets the mean strength of the others


@dataclass(frozen=True)
class FittedDegradation:
    """The fitted degradation of a folder: a noise strength for all photos, a kernel and a residual for each."""

    kernels: Tensor  # (N, 3, 2 r + 1, 2 r + 1), each channel summing to 1
    noise: Tensor  # (N, 3, S, S): z, without unit
    strengths: Tensor  # (LEVELS,): sigma, from black to white, in [-1, 1] units
    response: Tensor | None = None  # (3, rings): gains after the kernel, see `matching`; None: all 1

    @property
    def size(self) -> int:
        """Side of the faces, px."""
        return int(self.noise.shape[-1])

    def damaged(self, clean: Tensor, rng: np.random.Generator) -> Tensor:
        """(3, S, S) in [-1, 1] to the same shape and range, degraded as one of the photos, which `rng` draws."""
        drawn = int(rng.integers(len(self.noise)))
        noise = with_random_phases(self.noise[drawn], rng)
        blurred = blur(clean[None], self.kernels[drawn : drawn + 1])[0]
        if self.response is not None:
            blurred = filtered(blurred, self.response)
        return (blurred + self._strength_at(blurred) * noise).clamp(-1, 1)

    def _strength_at(self, image: Tensor) -> Tensor:
        return strength_at(image, self.strengths)


def fit(photos: Tensor, targets: Tensor) -> FittedDegradation:
    """Fits the degradation of targets to photos, both (N, 3, S, S) in [-1, 1].

    Raises BadInput where the shapes differ or there are no pairs.
    """
    if photos.shape != targets.shape or not len(photos):
        raise BadInput(f"A degradation is fitted to pairs of one shape, got {photos.shape} and {targets.shape}.")
    kernels = fitted_kernels(photos, targets)
    blurred = blur(targets, kernels)
    rest = photos - blurred
    strengths = fitted_strengths(rest, blurred)
    noise = torch.stack([r / strength_at(b, strengths) for r, b in zip(rest, blurred, strict=True)])
    return FittedDegradation(kernels, noise, strengths)


def fitted_kernels(photos: Tensor, targets: Tensor) -> Tensor:
    """(N, 3, S, S) twice to (N, 3, k, k): ridge regression of each photo's spectrum on its target's, channel-wise."""
    size = photos.shape[-1]
    seen, true = (torch.fft.rfft2(image.double()) for image in (photos, targets))
    product, energy = seen * true.conj(), true.abs().square()
    product = product + OTHERS * product.mean(0)
    energy = energy + OTHERS * energy.mean(0)
    response = product / (energy + RIDGE * energy.mean((1, 2, 3), keepdim=True))
    radius = min(max(1, RADIUS * size // 128), (size - 1) // 2)
    whole = torch.fft.fftshift(torch.fft.irfft2(response, s=(size, size)), dim=(2, 3))
    middle = slice(size // 2 - radius, size // 2 + radius + 1)
    kernels = whole[..., middle, middle]
    scaled: Tensor = kernels / kernels.sum((2, 3), keepdim=True)
    return scaled.float()


def fitted_strengths(rest: Tensor, blurred: Tensor) -> Tensor:
    """Standard deviation of the residual at each level of brightness, (LEVELS,), never 0."""
    level = _levels(blurred.mean(1, keepdim=True)).expand_as(rest)
    found = [rest[level == i] for i in range(LEVELS)]
    known = [float(values.std()) for values in found if len(values) >= ENOUGH]
    mean = sum(known) / len(known) if known else float(rest.std())
    return torch.tensor([float(v.std()) if len(v) >= ENOUGH else mean for v in found]).clamp_min(1e-4)


def with_random_phases(noise: Tensor, rng: np.random.Generator) -> Tensor:
    """(3, S, S) with the power that it has at each frequency; all channels are moved alike, so that colours stay."""
    size = noise.shape[-1]
    phases = torch.fft.rfft2(torch.from_numpy(rng.standard_normal((size, size))))
    moved: Tensor = torch.fft.irfft2(torch.fft.rfft2(noise.double()) * torch.sgn(phases), s=(size, size))
    return moved.float()


def strength_at(image: Tensor, strengths: Tensor) -> Tensor:
    """(3, S, S) to (1, S, S): the standard deviation of the noise at the brightness of each pixel."""
    return strengths[_levels(image.mean(0, keepdim=True))]


def blur(images: Tensor, kernels: Tensor) -> Tensor:
    """(N, 3, S, S) blurred by (N, 3, k, k), borders mirrored."""
    count, channels, height, width = images.shape
    radius = kernels.shape[-1] // 2
    padded = F.pad(images, (radius,) * 4, "reflect").reshape(1, count * channels, height + 2 * radius, -1)
    flat = kernels.flip(2, 3).reshape(count * channels, 1, *kernels.shape[2:])
    return F.conv2d(padded, flat, groups=count * channels).reshape(count, channels, height, width)


def _levels(brightness: Tensor) -> Tensor:
    return ((brightness + 1) / 2 * LEVELS).long().clamp(0, LEVELS - 1)
