"""The one reverse-diffusion loop, its updates, and the noise of each image."""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from unfade.diffusion.guidance import Guidance, Noise
from unfade.diffusion.prior import DiffusionPrior, Step


class Update(Protocol):
    """How x_{t-1} follows from what the prior predicts from x_t."""

    def __call__(self, prior: DiffusionPrior, step: Step, noise: Noise) -> Tensor: ...


def ddpm(prior: DiffusionPrior, step: Step, noise: Noise) -> Tensor:
    """Ancestral update: x_{t-1} ~ p(x_{t-1} | x_t) (DDPM, Eq. 7). Draws noise at t = 0 too, times 0, as published."""
    schedule = prior.schedule
    mean = float(schedule.x0_weight[step.t]) * step.x0 + float(schedule.xt_weight[step.t]) * step.x_t
    half = 0.5 * step.log_variance
    deviation = half.exp() if isinstance(half, Tensor) else math.exp(half)
    return mean + float(step.t > 0) * deviation * noise(step.x_t)


def ddim(prior: DiffusionPrior, step: Step, noise: Noise, *, eta: float = 0.0) -> Tensor:
    """Non-Markovian update (DDIM, Eq. 12 and 16) from the raw eps, as DifFace does; eta = 0 draws no noise."""
    a, a_prev = float(prior.schedule.alpha_bar[step.t]), float(prior.schedule.alpha_bar_prev[step.t])
    sigma = eta * math.sqrt((1 - a_prev) / (1 - a)) * math.sqrt(1 - a / a_prev)
    mean = math.sqrt(a_prev) * step.x0 + math.sqrt(1 - a_prev - sigma**2) * step.eps
    if eta == 0:
        return mean
    return mean + float(step.t > 0) * sigma * noise(step.x_t)


class DPMSolver:
    """DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095, Algorithm 2): the probability flow ODE to second order.

    One network evaluation per step; the second order comes from the clean image of the previous step, which the object
    keeps, so each walk needs an object of its own. The first step is of first order, and so is the last, to the clean
    image itself, where lambda is infinite: both are DDIM steps from x_0. Draws no noise.
    """

    def __init__(self) -> None:
        self._before: tuple[int, Tensor] | None = None  # index and clean image of the previous step

    def __call__(self, prior: DiffusionPrior, step: Step, noise: Noise) -> Tensor:
        x0, t = self._extrapolated(prior, step), step.t
        alpha_bar, alpha_bar_prev = float(prior.schedule.alpha_bar[t]), float(prior.schedule.alpha_bar_prev[t])
        shrink = math.sqrt((1 - alpha_bar_prev) / (1 - alpha_bar))  # sigma_{t-1} / sigma_t
        # x_{t-1} = sigma_{t-1} / sigma_t x_t - alpha_{t-1} (exp(-h) - 1) D
        # where exp(-h) = sigma_{t-1} alpha_t / (sigma_t alpha_{t-1})
        return shrink * step.x_t + (math.sqrt(alpha_bar_prev) - shrink * math.sqrt(alpha_bar)) * x0

    def _extrapolated(self, prior: DiffusionPrior, step: Step) -> Tensor:
        """D = x_0 + (x_0 - x_0 of the previous step) / 2r, where r = h_before / h and h is the step in lambda."""
        before, self._before = self._before, (step.t, step.x0.detach())
        if before is None or step.t == 0 or before[0] <= step.t:  # a step that is visited again has no previous one
            return step.x0
        half_log_snr = prior.schedule.half_log_snr
        r = (half_log_snr[step.t] - half_log_snr[before[0]]) / (half_log_snr[step.t - 1] - half_log_snr[step.t])
        return step.x0 + float(0.5 / r) * (step.x0 - before[1])


UPDATES: dict[str, Callable[[], Update]] = {  # each call makes the update for one walk
    "ddpm": lambda: ddpm,
    "ddim": lambda: ddim,
    "ddim-eta0.5": lambda: partial(ddim, eta=0.5),
    "dpm++": DPMSolver,
}


def sample(
    prior: DiffusionPrior,
    guidance: Guidance,
    noise: Noise,
    like: Tensor,
    *,
    update: Update = ddpm,
    after_step: Callable[[], object] = lambda: None,
) -> Tensor:
    """Walk the guidance's timesteps from its start to clean images shaped like `like`, (B, 3, H, W) in [-1, 1].

    The result is not clamped. `after_step` is called after each step, for instance to show progress.
    """
    timesteps = guidance.timesteps(len(prior.schedule))
    with torch.no_grad():
        x = guidance.start(prior, timesteps[0], noise, like)
    for t in timesteps:
        with torch.set_grad_enabled(guidance.differentiable):
            x = x.detach().requires_grad_(guidance.differentiable)
            step = prior.denoise(x, t)
            step = replace(step, x0=guidance.correct_x0(step))
            x = guidance.correct_x_prev(prior, step, update(prior, step, noise), noise)
        after_step()
    return x.detach()


class ImageNoise:
    """Standard normal noise, each image of the batch drawing from its own generator.

    So the result for an image does not depend on the other images of its batch, on their order or on their number.
    """

    def __init__(self, seeds: Iterable[int], device: torch.device | str = "cpu"):
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, like: Tensor) -> Tensor:
        """Noise shaped like the batch (B, ...), one image for each seed."""
        return torch.stack([self._draw(g, x) for g, x in zip(self._generators, like, strict=True)])

    @staticmethod
    def _draw(generator: torch.Generator, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)
