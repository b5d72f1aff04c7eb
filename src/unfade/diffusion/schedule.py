"""The noise schedule of DDPM (Ho et al., 2020) and its respacing (Nichol & Dhariwal, "Improved DDPM", 2021).

Every table holds Python floats computed in float64, so that looking a value up never waits for a device.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

MODEL_STEPS = 1000  # steps of the training schedule; the network is always given a step of this range

Table = NDArray[np.float64]


def linear_betas() -> Table:
    """The published linear schedule: 1e-4 to 2e-2 in 1000 steps."""
    return np.linspace(1e-4, 2e-2, MODEL_STEPS, dtype=np.float64)


def scaled_linear_betas() -> Table:
    """Latent diffusion's schedule (Rombach et al., 2022): 0.00085 to 0.012 in 1000 steps, square roots linear."""
    return np.linspace(0.00085**0.5, 0.012**0.5, MODEL_STEPS, dtype=np.float64) ** 2


def steps_of_noise(times: float) -> tuple[int, ...]:
    """For each of the 1000 steps of the linear schedule, the first whose noise, relative to the image, is `times` that.

    A step hides as much of an image as one of `times` the noise does of an image with `times` the sides: the mean of
    more pixels has less noise (Hoogeboom et al., "simple diffusion", 2023). The last step where none is strong enough;
    step 0 stands for no noise and stays.
    """
    noise = np.sqrt(1.0 / np.cumprod(1.0 - linear_betas()) - 1.0)
    return 0, *np.searchsorted(noise, times * noise[1:]).clip(max=MODEL_STEPS - 1).tolist()


@dataclass(frozen=True)
class Schedule:
    """A respaced schedule. Index 0 is nearest to the clean image; t_model is the step of 1000 that the network gets."""

    t_model: tuple[int, ...]
    full: Callable[[], Table] = linear_betas  # the variances of all 1000 steps

    def __len__(self) -> int:
        return len(self.t_model)

    @cached_property
    def alpha_bar(self) -> Table:
        """Cumulative product of 1 - beta: the share of signal left at each index."""
        return np.asarray(np.cumprod(1.0 - self.betas), np.float64)

    @cached_property
    def alpha_bar_prev(self) -> Table:
        """alpha_bar one index nearer to the clean image; 1 at index 0."""
        return np.append(1.0, self.alpha_bar[:-1])

    @cached_property
    def half_log_snr(self) -> Table:
        """lambda of Lu et al. (2022): log(alpha_t / sigma_t) = log(alpha_bar / (1 - alpha_bar)) / 2."""
        return np.asarray(0.5 * np.log(self.alpha_bar / (1.0 - self.alpha_bar)), np.float64)

    @cached_property
    def betas(self) -> Table:
        """Respaced variances: 1 - alpha_bar_i / alpha_bar_{i-1}, with alpha_bar of the full schedule at kept steps."""
        kept = np.cumprod(1.0 - self.full())[list(self.t_model)]
        return np.asarray(1.0 - kept / np.append(1.0, kept[:-1]), np.float64)

    @cached_property
    def posterior_variance(self) -> Table:
        """Variance of q(x_{t-1} | x_t, x_0), DDPM Eq. 7; 0 at index 0."""
        return self.betas * (1.0 - self.alpha_bar_prev) / (1.0 - self.alpha_bar)

    @cached_property
    def posterior_log_variance(self) -> Table:
        """Its logarithm; index 0, where it is 0, takes the value at index 1 (beta where there is only one index)."""
        variance = self.posterior_variance.copy()
        variance[0] = variance[1] if len(variance) > 1 else self.betas[0]
        return np.asarray(np.log(variance), np.float64)

    @cached_property
    def x0_weight(self) -> Table:
        """Weight of x_0 in the mean of q(x_{t-1} | x_t, x_0)."""
        return self.betas * np.sqrt(self.alpha_bar_prev) / (1.0 - self.alpha_bar)

    @cached_property
    def xt_weight(self) -> Table:
        """Weight of x_t in that mean."""
        return (1.0 - self.alpha_bar_prev) * np.sqrt(1.0 - self.betas) / (1.0 - self.alpha_bar)


def respaced(spacing: str = "250", betas: Callable[[], Table] = linear_betas) -> Schedule:
    """Keep some of the 1000 steps of a schedule. "250" spreads 250 evenly from 0 to 999; "ddim250" keeps every fourth
    from 0; "10,20,30" spreads 10 over the first third, 20 over the second, 30 over the last.

    Raises ValueError for a spacing that the 1000 steps do not allow.
    """
    if spacing.startswith("ddim"):
        return Schedule(_every_nth(int(spacing.removeprefix("ddim"))), betas)
    counts = [int(count) for count in spacing.split(",")]
    base, extra = divmod(MODEL_STEPS, len(counts))
    steps: list[int] = []
    start = 0
    for section, count in enumerate(counts):
        length = base + (section < extra)
        steps += _spread(start, length, count)
        start += length
    return Schedule(tuple(steps), betas)


def _every_nth(count: int) -> tuple[int, ...]:
    for stride in range(1, MODEL_STEPS):
        kept = range(0, MODEL_STEPS, stride)
        if len(kept) == count:
            return tuple(kept)
    raise ValueError(f"No whole stride keeps {count} of {MODEL_STEPS} steps; try ddim250, ddim100 or ddim50.")


def _spread(start: int, length: int, count: int) -> list[int]:
    if not 0 < count <= length:
        raise ValueError(f"{count} steps cannot be kept of {length}; name a number from 1 to {length}.")
    stride = 1.0 if count == 1 else (length - 1) / (count - 1)
    position, steps = 0.0, []
    for _ in range(count):
        steps.append(start + round(position))  # accumulated and rounded half to even, as published
        position += stride
    return steps
