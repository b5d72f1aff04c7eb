"""Ways to steer the reverse diffusion. Every method is the same walk with other hooks: which steps it visits, where it
starts, and how it corrects the predicted x0 or the next state x_{t-1}.
"""

from collections.abc import Callable
from dataclasses import dataclass

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
        """The clean image to go on with, in place of the predicted one."""
        return step.x0

    def correct_x_prev(self, prior: DiffusionPrior, step: Step, x_prev: Tensor, noise: Noise) -> Tensor:
        """The next state to go on with, in place of the sampled one."""
        return x_prev


@dataclass(frozen=True)
class DifFace(Guidance):
    """Yue & Loy, "DifFace" (TPAMI 2024): noise the restored image part of the way, then sample freely.

    Starts at noise level `begin` while the network is first told begin - 1, as published.
    """

    restored: Tensor  # (B, 3, H, W) in [-1, 1]
    begin: int  # 100 of 250 as published

    def timesteps(self, num_steps: int) -> list[int]:
        """begin - 1 .. 0. Raises ValueError when the schedule is too short."""
        if not 0 < self.begin < num_steps:
            raise ValueError(f"The start must lie in 1..{num_steps - 1} of the respaced schedule, got {self.begin}.")
        return list(reversed(range(self.begin)))

    def start(self, prior: DiffusionPrior, t: int, noise: Noise, like: Tensor) -> Tensor:
        """The restored image at the noise level above the first step."""
        return prior.q_sample(self.restored, t + 1, noise(like))


@dataclass(frozen=True)
class LowFrequency(DifFace):
    """Kuai et al. (WACV 2025), Algorithm 1: the same start; while t >= free_from, the low frequencies of the restored
    image replace those of the sample, so that the content stays; below, the prior runs free.
    """

    free_from: int  # L = 360 of 1000 is 90 of 250; 0 constrains every step but the last
    factor: int  # N of the low-pass filter phi_N

    def correct_x_prev(self, prior: DiffusionPrior, step: Step, x_prev: Tensor, noise: Noise) -> Tensor:
        """Eq. 5: only the low frequencies of y_{t-1} and x_{t-1} agree."""
        if step.t < max(self.free_from, 1):  # at t = 0 nothing is constrained, as published
            return x_prev
        reference = prior.q_sample(self.restored, step.t - 1, noise(x_prev))
        return x_prev - low_pass(x_prev, self.factor) + low_pass(reference, self.factor)
