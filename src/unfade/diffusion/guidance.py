"""Ways to steer the reverse diffusion. All methods share one loop and differ in their hooks: which steps they visit,
where they start, and how they correct the predicted x0 or the next state x_{t-1}.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from unfade.diffusion.prior import DiffusionPrior, Step
from unfade.images.filters import low_pass

Noise = Callable[[Tensor], Tensor]


class Guidance:
    """No guidance: unconditional sampling. Methods override the hooks they need."""

    differentiable = False  # True: needs the gradient of x0 with respect to x_t, so the denoiser keeps its graph

    def timesteps(self, num_steps: int) -> list[int]:
        """Indices to visit, in order; by default all."""
        return list(reversed(range(num_steps)))

    def start(self, prior: DiffusionPrior, t: int, noise: Noise, like: Tensor) -> Tensor:
        """The state to begin with at index t; by default pure noise."""
        return noise(like)

    def correct_x0(self, step: Step) -> Tensor:
        """The clean image that replaces the predicted one; by default the prediction itself."""
        return step.x0

    def correct_x_prev(self, prior: DiffusionPrior, step: Step, x_prev: Tensor, noise: Noise) -> Tensor:
        """The next state that replaces the sampled one; by default the sample itself."""
        return x_prev


@dataclass(frozen=True)
class DifFace(Guidance):
    """Yue & Loy, "DifFace" (TPAMI 2024): noise the restored image part of the way, then sample freely.

    The start has noise level `begin`, but the first step passed to the network is begin - 1, as published.
    """

    restored: Tensor  # (B, 3, H, W) in [-1, 1]
    begin: int  # 100 of 250 as published

    def timesteps(self, num_steps: int) -> list[int]:
        """begin - 1 .. 0. Raises ValueError when the schedule is too short."""
        if not 0 < self.begin < num_steps:
            raise ValueError(f"The start must lie in 1..{num_steps - 1} of the respaced schedule, got {self.begin}.")
        return list(reversed(range(self.begin)))

    def start(self, prior: DiffusionPrior, t: int, noise: Noise, like: Tensor) -> Tensor:
        """The restored image at the noise level one above that of the first step."""
        return prior.q_sample(self.restored, t + 1, noise(like))


@dataclass(frozen=True)
class LowFrequency(DifFace):
    """Kuai et al. (WACV 2025), Algorithm 1: starts as DifFace does. While t >= free_from, the low frequencies of the
    restored image replace those of the sample, which keeps the content; below, the prior runs unconstrained.
    """

    free_from: int  # L = 360 of 1000 is 90 of 250; 0 constrains every step but the last
    factor: int  # N of the low-pass filter phi_N

    def correct_x_prev(self, prior: DiffusionPrior, step: Step, x_prev: Tensor, noise: Noise) -> Tensor:
        """Eq. 5: the low frequencies of x_{t-1} become those of y_{t-1}; the rest stays."""
        if step.t < max(self.free_from, 1):  # at t = 0 nothing is constrained, as published
            return x_prev
        reference = prior.q_sample(self.restored, step.t - 1, noise(x_prev))
        return x_prev - low_pass(x_prev, self.factor) + low_pass(reference, self.factor)


@dataclass(frozen=True)
class FromFirstStep(LowFrequency):
    """The same, from the noise level of the first step. Noised to the step above it, as published, an image keeps noise
    that the prior does not know of: little where steps are small, but grain where they are large and the level is low.
    """

    def start(self, prior: DiffusionPrior, t: int, noise: Noise, like: Tensor) -> Tensor:
        """The restored image at the noise level of the first step."""
        return prior.q_sample(self.restored, t, noise(like))


@dataclass(frozen=True)
class CleanLowFrequency(FromFirstStep):
    """The same constraint on the predicted clean image, for updates that carry x_0 from step to step: a correction of
    x_{t-1} would not reach what they carry.
    """

    def correct_x0(self, step: Step) -> Tensor:
        """The low frequencies of x_0 become those of y_0; the rest stays."""
        if step.t < max(self.free_from, 1):
            return step.x0
        return step.x0 - low_pass(step.x0, self.factor) + low_pass(self.restored, self.factor)

    def correct_x_prev(self, prior: DiffusionPrior, step: Step, x_prev: Tensor, noise: Noise) -> Tensor:
        """Unchanged, since x_0 was constrained already."""
        return x_prev


@dataclass(frozen=True)
class ILVR(Guidance):
    """Choi et al., "ILVR" (ICCV 2021), Algorithm 1: starts from pure noise and imposes the photo's low frequencies.

    The photo is noised to level t, not t - 1, as published.
    """

    photo: Tensor  # (B, 3, H, W) in [-1, 1]
    factor: int = 32  # N of the low-pass filter, as in the published runs
    free_from: int = 20  # respaced step below which the prior runs unconstrained; 20 of 100 in the published runs

    def correct_x_prev(self, prior: DiffusionPrior, step: Step, x_prev: Tensor, noise: Noise) -> Tensor:
        """The low frequencies of the noised photo replace those of the sample."""
        if step.t <= self.free_from:
            return x_prev
        reference = prior.q_sample(self.photo, step.t, noise(x_prev))
        return x_prev - low_pass(x_prev, self.factor) + low_pass(reference, self.factor)


@dataclass(frozen=True)
class DDA(DifFace):
    """Gao et al., "Back to the Source" (CVPR 2023): from the noised photo, with a gradient to its low frequencies.

    `restored` is the photo itself. The gradient goes through the network and the clamp. Its norm is taken per image;
    the published code takes one over the whole batch, so that images influence each other. The filter pads the picture
    with zeros, as published.
    """

    factor: int = 4  # D of the low-pass filter
    scale: float = 6.0  # of the gradient

    differentiable = True

    def correct_x_prev(self, prior: DiffusionPrior, step: Step, x_prev: Tensor, noise: Noise) -> Tensor:
        """A gradient step that reduces the distance between the low frequencies of the photo and of the prediction."""
        difference = low_pass(self.restored - step.x0, self.factor, border="zero")
        distance = difference.flatten(1).norm(dim=1).sum()
        (gradient,) = torch.autograd.grad(distance, step.x_t)
        return x_prev - self.scale * gradient


@dataclass(frozen=True)
class PGDiff(Guidance):
    """Yang et al., "PGDiff" (NeurIPS 2023), for restoration: every step is pulled to what a restorer makes of x_t.

    Each step within the band is visited `repeats` times, with the target of its first visit. The limits of the band
    are meant for 1000 steps but are compared with respaced steps, as published.
    """

    target_of: Callable[[Tensor, int], Tensor]  # x_t and the original step to the target, (B, 3, H, W)
    scale: float = 0.1  # s
    repeats: int = 1  # visits of each step in the band
    band: tuple[int, int] = (700, 1000)  # respaced steps above the first and below the second

    def timesteps(self, num_steps: int) -> list[int]:
        """All steps, those in the band `repeats` times."""
        low, high = self.band
        return [t for t in reversed(range(num_steps)) for _ in range(self.repeats if low < t < high else 1)]

    def correct_x_prev(self, prior: DiffusionPrior, step: Step, x_prev: Tensor, noise: Noise) -> Tensor:
        """The mean moves by the variance times the gradient of the squared distance."""
        target = self.target_of(step.x_t, prior.schedule.t_model[step.t]).clamp(-1, 1)
        log_variance = step.log_variance
        variance = log_variance.exp() if isinstance(log_variance, Tensor) else math.exp(log_variance)
        return x_prev - variance * self.scale * 2 * (step.x0 - target)


@dataclass(frozen=True)
class DR2(Guidance):
    """Wang et al., "DR2" (CVPR 2023), Algorithm 1: walks from the photo noised to step omega down to tau.

    Returns the x0 predicted at tau. It is smooth; a restorer is meant to sharpen it.
    """

    photo: Tensor  # (B, 3, H, W) in [-1, 1]
    factor: int = 4  # N of the low-pass filter
    begin: int = 42  # omega, respaced; published, of 100: tau + 20 for N = 3 and 4, + 25 for 5 to 8, + 30 above
    end: int = 22  # tau, respaced; published, of 100: 22 for N = 4, 35 for N = 8 and 16

    def timesteps(self, num_steps: int) -> list[int]:
        """omega .. tau. Raises ValueError when the schedule is too short."""
        if not 0 <= self.end < self.begin < num_steps:
            raise ValueError(
                f"DR2 goes from {self.begin} to {self.end}, but the respaced schedule has {num_steps} steps."
            )
        return list(range(self.begin, self.end - 1, -1))

    def start(self, prior: DiffusionPrior, t: int, noise: Noise, like: Tensor) -> Tensor:
        """The photo at noise level omega."""
        return prior.q_sample(self.photo, t, noise(like))

    def correct_x_prev(self, prior: DiffusionPrior, step: Step, x_prev: Tensor, noise: Noise) -> Tensor:
        """x_{t-1} with the low frequencies of the photo noised to t - 1; at tau the predicted clean image itself."""
        if step.t == self.end:
            return step.x0
        reference = prior.q_sample(self.photo, step.t - 1, noise(x_prev))
        return x_prev - low_pass(x_prev, self.factor) + low_pass(reference, self.factor)


@dataclass(frozen=True)
class RestorationGuidance(Guidance):
    """Lin et al., "DiffBIR" (ECCV 2024), Sec. 3.3: pulls the latent to that of the first stage's picture.

    Off by default, as published for faces: the network is conditioned on that picture already. In the paper, the mean
    moves by one step down the gradient of the squared distance to z0. In the published code it moves by `weight` times
    that step: 0.5 in the first version; 3000 in v2.0.0, where z0 moves by 3000 divided by its weight in the mean (the
    same for one repeat). The distance is a mean over all values of a latent; the target is drawn anew each time from
    the autoencoder's distribution. Here its noise is drawn after that of the step; the published code draws it before.
    The published guidance of pixels through the decoder is left out.
    """

    target_of: Callable[[Noise], Tensor]  # draws the latent (B, 4, h, w) of the first stage's picture
    scale: float = 0.0  # s; 0: no guidance
    weight: float = 0.5  # factor of the gradient step in the mean
    repeats: int = 5  # gradient steps on z0 at each step of the walk, each from where the last one ended
    band: tuple[int, int] = (-1, 1001)  # guided above the first and below the second of 1000 steps, counted from 1

    def correct_x_prev(self, prior: DiffusionPrior, step: Step, x_prev: Tensor, noise: Noise) -> Tensor:
        """The mean moves down the gradient of the distance between z0 and the target."""
        low, high = self.band
        if self.scale == 0 or not low < prior.schedule.t_model[step.t] + 1 < high:
            return x_prev
        z0 = step.x0
        for _ in range(self.repeats):
            down = -self.scale * 2 * (z0 - self.target_of(noise)) / z0[0].numel()
            z0, x_prev = z0 + down, x_prev + self.weight * down
        return x_prev
