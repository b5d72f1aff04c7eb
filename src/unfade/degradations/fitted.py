"""The degradation of a folder: fitted to its photos and their targets, then applied to clean faces.

This gives training pairs whose target is the truth. A photo is modelled as its target, blurred, plus noise:

    photo = kernel * target + sigma(kernel * target) z

The kernel is a least-squares fit in the frequency domain, regularised towards that of the whole folder. Sigma is a
table over brightness. z is the normalised residual: not a model of the noise but the noise itself, with its grain and
colours. A clean face is degraded by the kernel of a photo drawn at random, plus that photo's z with random phases. Such
noise has the spectrum of the photo's but not the outlines of its face, and differs every time.

A degradation fitted in this way is too mild, since targets have taken over some of the noise; `matching` corrects it.
`fitted_file` keeps it in a file, and `measured` expresses it in numbers.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unfade.degradations.rings import filtered, spectrum
from unfade.errors import BadInput
from unfade.images.tone import is_grey, to_grey

RADIUS = 10  # px, of a kernel for faces of 128 px: enlarging by 8 spreads a pixel that far
OTHERS = 4.0  # weight of the folder's mean in the fit of each kernel, in photos
FLAT = 1e-12  # least energy of a frequency, so that flat pictures have no kernel of NaN
RIDGE = 0.01  # ridge penalty, relative to the mean energy of the targets: frequencies they lack are not fitted
LEVELS = 8  # levels of brightness at which the strength of the noise is measured
ENOUGH = 500  # a level with fewer values than this gets the mean strength of the others
BLOCK = 8  # px, side of JPEG's blocks


@dataclass(frozen=True)
class FittedDraw:
    """The random parameters of one face."""

    photo: int  # whose kernel and noise it gets
    seed: int  # of the phases of that noise


@dataclass(frozen=True)
class FittedDegradation:
    """The fitted degradation of a folder: a noise strength for all photos, a kernel and a residual for each."""

    kernels: Tensor  # (N, 3, 2 r + 1, 2 r + 1), each channel summing to 1
    noise: Tensor  # (N, 3, S, S): z, without a unit
    strengths: Tensor  # (LEVELS,): sigma, from black to white, in [-1, 1] units
    response: Tensor | None = None  # (3, rings): gains after the kernel, see `matching`; None: all 1
    grey: Tensor | None = None  # (N,) bool: photos without colour; None: all are in colour
    blocks: Tensor | None = None  # (N,): how JPEG's blocks show, see `steps_at_blocks`; None: not known

    @property
    def size(self) -> int:
        """Side of the faces, px."""
        return int(self.noise.shape[-1])

    def damaged(self, clean: Tensor, rng: np.random.Generator) -> Tensor:
        """(3, S, S) in [-1, 1] to the same shape and range, degraded as one of the photos, which `rng` draws.

        A face in colour keeps its colour, since whoever learns from it decides what is grey; with `applied` it becomes
        grey if the photo was. Raises BadInput for a face of another size.
        """
        photo = int(rng.integers(len(self.noise)))
        self._check(clean, photo)
        return self._as_photo(clean, photo, rng)

    def draw(self, rng: np.random.Generator) -> FittedDraw:
        """The random parameters for one face."""
        return FittedDraw(int(rng.integers(len(self.noise))), int(rng.integers(2**53)))

    def applied(self, clean: Tensor, draw: FittedDraw) -> Tensor:
        """(3, S, S) in [-1, 1] to the same shape and range, degraded as drawn; grey if that photo was.

        The same face and draw always give the same result. Raises BadInput for a face of another size, or for the
        number of a photo that this degradation does not have.
        """
        self._check(clean, draw.photo)
        as_grey = self.grey is not None and bool(self.grey[draw.photo])
        made = self._as_photo(to_grey(clean) if as_grey else clean, draw.photo, np.random.default_rng(draw.seed))
        return to_grey(made) if as_grey else made

    def _check(self, clean: Tensor, photo: int) -> None:
        if clean.shape != self.noise.shape[1:] or not 0 <= photo < len(self.noise):
            raise BadInput(
                f"Expected a face of shape {tuple(self.noise.shape[1:])} and a photo of 0..{len(self.noise) - 1}, got "
                f"{tuple(clean.shape)} and {photo}; resize the face to the degradation's `size`."
            )

    def _as_photo(self, clean: Tensor, photo: int, rng: np.random.Generator) -> Tensor:
        noise = with_random_phases(self.noise[photo], rng)
        blurred = blur(clean[None], self.kernels[photo : photo + 1])[0]
        if self.response is not None:
            blurred = filtered(blurred, self.response)
        return (blurred + strength_at(blurred, self.strengths) * noise).clamp(-1, 1)


def fit(photos: Tensor, targets: Tensor) -> FittedDegradation:
    """Fit the degradation that turns targets into photos, both (N, 3, S, S) in [-1, 1].

    Raises BadInput if the shapes differ or there are no pairs.
    """
    if photos.shape != targets.shape or not len(photos):
        shapes = f"{tuple(photos.shape)} and {tuple(targets.shape)}"
        raise BadInput(f"Expected at least one photo with a target of the same shape, got {shapes}.")
    kernels = fitted_kernels(photos, targets)
    blurred = blur(targets, kernels)
    rest = photos - blurred
    strengths = fitted_strengths(rest, blurred)
    noise = torch.stack([r / strength_at(b, strengths) for r, b in zip(rest, blurred, strict=True)])
    return FittedDegradation(kernels, noise, strengths, grey=is_grey(photos), blocks=steps_at_blocks(rest))


def fitted_kernels(photos: Tensor, targets: Tensor) -> Tensor:
    """Two (N, 3, S, S) to (N, 3, k, k): ridge regression of each photo's spectrum on its target's, by channel.

    The spectra are those within a window. Without one, the jumps at the borders, which no kernel blurs, would pass for
    response at all frequencies along rows and columns.
    """
    size = photos.shape[-1]
    seen, true = spectrum(photos), spectrum(targets)
    product, energy = seen * true.conj(), true.abs().square()
    product = product + OTHERS * product.mean(0)
    energy = energy + OTHERS * energy.mean(0)
    response = product / (energy + RIDGE * energy.mean((1, 2, 3), keepdim=True)).clamp_min(FLAT)
    response[..., 0, 0] = 1  # the means are not part of the spectra
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
    """(3, S, S) with the same power at each frequency; the channels are shifted alike, so that the colours stay."""
    size = noise.shape[-1]
    phases = torch.fft.rfft2(torch.from_numpy(rng.standard_normal((size, size))))
    moved: Tensor = torch.fft.irfft2(torch.fft.rfft2(noise.double()) * torch.sgn(phases), s=(size, size))
    return moved.float()


def steps_at_blocks(rest: Tensor) -> Tensor:
    """(N, 3, S, S) to (N,): differences between neighbours across the borders of JPEG's blocks, over those elsewhere.

    About 1 without blocks, or if a face was resized or moved after it was compressed. It is measured here, on the
    residuals, since their spectra alone do not show where the borders are.
    """
    grey, found = rest.mean(1), []
    for axis in (1, 2):
        steps = grey.diff(dim=axis).square().sum(3 - axis)
        at_border = (torch.arange(steps.shape[-1]) + 1) % BLOCK == 0
        found.append(steps[:, at_border].mean(-1) / steps[:, ~at_border].mean(-1).clamp_min(1e-12))
    return ((found[0] + found[1]) / 2).sqrt()


def strength_at(image: Tensor, strengths: Tensor) -> Tensor:
    """(3, S, S) to (1, S, S): the standard deviation of the noise at the brightness of each pixel."""
    return strengths[_levels(image.mean(0, keepdim=True))]


def blur(images: Tensor, kernels: Tensor) -> Tensor:
    """(N, 3, S, S) blurred by (N, 3, k, k), with mirrored borders."""
    count, channels, height, width = images.shape
    radius = kernels.shape[-1] // 2
    padded = F.pad(images, (radius,) * 4, "reflect").reshape(1, count * channels, height + 2 * radius, -1)
    flat = kernels.flip(2, 3).reshape(count * channels, 1, *kernels.shape[2:])
    return F.conv2d(padded, flat, groups=count * channels).reshape(count, channels, height, width)


def _levels(brightness: Tensor) -> Tensor:
    return ((brightness + 1) / 2 * LEVELS).long().clamp(0, LEVELS - 1)
