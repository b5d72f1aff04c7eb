"""An unconditional diffusion prior over aligned faces: the forward process and one reverse step."""

import math
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unfade.diffusion.schedule import Schedule, linear_betas, respaced
from unfade.images.filters import without_grid


@dataclass(frozen=True)
class Step:
    """What the prior predicts from x_t. Tensors are (B, 3, H, W), or (B, 4, h, w) where x_t is a latent."""

    t: int  # index in the respaced schedule
    x_t: Tensor
    eps: Tensor  # predicted noise
    x0: Tensor  # predicted clean image, clamped to [-1, 1]; a latent is not clamped
    log_variance: Tensor | float  # of p(x_{t-1} | x_t); a plain number where it is not learned


A = TypeVar("A", float, Tensor)


def as_noise(predicts: str, out: Tensor, x_t: Tensor, alpha_bar: A) -> Tensor:
    """The noise in x_t by what a network `predicts`, a name in `nets.unet.PREDICTS`.

    v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x_0 (Salimans & Ho 2022, Appendix D). In "details", the means of 2 x 2
    pixels are those of the noise, and what is left are the details of x_0.
    """
    if predicts == "eps":
        return out
    noise: Tensor
    if predicts == "v":
        noise = alpha_bar**0.5 * out + (1 - alpha_bar) ** 0.5 * x_t
    else:
        noise = out + (details(x_t) - alpha_bar**0.5 * details(out)) / (1 - alpha_bar) ** 0.5 - details(out)
    return noise


def details(image: Tensor) -> Tensor:
    """What the means of 2 x 2 pixels leave out of (B, C, H, W), H and W even: the finest octave of a Haar transform."""
    return image - F.interpolate(F.avg_pool2d(image, 2), scale_factor=2.0, mode="nearest")


class DiffusionPrior(nn.Module):
    """p(x) over aligned faces, images (B, 3, size, size) in [-1, 1].

    `unet` maps (x_t, t_model) to noise, or to noise and the learned range of the variance (Improved DDPM, Eq. 15).
    Where it `predicts` something else than "eps", the prior converts that to noise (`as_noise`). A network that folds
    blocks of `patch` pixels into channels leaves a faint grid of that period on the image, as the positions in a block
    differ a little in brightness; the grid is removed from every predicted clean image.
    """

    betas = staticmethod(linear_betas)  # of the 1000 steps that the network was trained on

    def __init__(self, unet: nn.Module, size: int, *, spacing: str = "250", predicts: str = "eps", patch: int = 1):
        super().__init__()
        self.unet = unet
        self.size = size
        self.predicts = predicts
        self.patch = patch
        self.schedule: Schedule = respaced(spacing, self.betas)

    def respaced(self, spacing: str) -> "DiffusionPrior":
        """The same network under another schedule."""
        return type(self)(self.unet, self.size, spacing=spacing, predicts=self.predicts, patch=self.patch)

    def q_sample(self, x0: Tensor, t: int, noise: Tensor) -> Tensor:
        """Draw x_t from q(x_t | x_0) (DDPM, Eq. 4); t = -1 is the clean image itself."""
        alpha_bar = 1.0 if t < 0 else float(self.schedule.alpha_bar[t])
        return math.sqrt(alpha_bar) * x0 + math.sqrt(1 - alpha_bar) * noise

    def denoise(self, x_t: Tensor, t: int) -> Step:
        """Run the network at index t: the noise, the clean image and the variance of the step to t - 1."""
        t_model = torch.full((len(x_t),), self.schedule.t_model[t], device=x_t.device)
        out: Tensor = self.unet(x_t, t_model).float()
        predicted, log_variance = self._split(out, t, x_t.shape[1])
        alpha_bar = float(self.schedule.alpha_bar[t])
        eps = as_noise(self.predicts, predicted, x_t, alpha_bar)
        # DDPM, Eq. 9 solved for x_0
        x0 = (1 / alpha_bar) ** 0.5 * x_t - (1 / alpha_bar - 1) ** 0.5 * eps
        return Step(t, x_t, eps, self.within(x0), log_variance)

    def within(self, x0: Tensor) -> Tensor:
        """The nearest valid clean image: without the grid of `patch`, clamped to [-1, 1]."""
        return without_grid(x0, self.patch).clamp(-1, 1)

    def _split(self, out: Tensor, t: int, channels: int) -> tuple[Tensor, Tensor | float]:
        low = float(self.schedule.posterior_log_variance[t])
        if out.shape[1] == channels:
            return out, low
        eps, fraction = out.chunk(2, dim=1)
        fraction = (fraction + 1) / 2  # not clamped, as published
        high = math.log(self.schedule.betas[t])
        return eps, fraction * high + (1 - fraction) * low
