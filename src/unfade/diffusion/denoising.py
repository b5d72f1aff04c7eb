"""How a prior is trained: it predicts the noise (DDPM, Eq. 14), at steps drawn mostly where the method uses them."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from unfade.devices import device_of
from unfade.diffusion.prior import as_noise
from unfade.diffusion.sampler import ImageNoise
from unfade.diffusion.schedule import MODEL_STEPS, linear_betas
from unfade.errors import BadInput
from unfade.store.seeds import seed_for
from unfade.training.objective import Objective


@dataclass(frozen=True)
class DenoisingSettings:
    """Which of the 1000 steps the training draws, and how their errors are weighted."""

    early_until: int = 650  # the method starts at K = 600, so steps above are hardly used
    early_share: float = 0.9  # share of the draws below `early_until`
    weighting: str = "min-snr"  # weight of each step's squared noise error; a name in WEIGHTINGS

    def __post_init__(self) -> None:
        if self.weighting not in WEIGHTINGS:
            raise BadInput(f"There is no weighting {self.weighting}; there are: {', '.join(WEIGHTINGS)}.")


# The factor of the squared noise error, as a function of alpha_bar. The error of v equals that of the noise divided by
# alpha_bar; min-snr is Hang et al. 2023 with gamma = 5, for a network that predicts the noise.
WEIGHTINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "eps": torch.ones_like,
    "v": torch.reciprocal,
    "min-snr": lambda alpha_bar: (5 * (1 - alpha_bar) / alpha_bar).clamp(max=1),
}


class Denoising(Objective):
    """Mean squared error of the predicted noise, over (x0, t, noise) batches; `predicts` is the network's."""

    alpha_bar: Tensor

    def __init__(self, predicts: str = "eps", weighting: str = "eps") -> None:
        super().__init__()
        self.predicts = predicts
        self.weight = WEIGHTINGS[weighting]
        alpha_bar = torch.from_numpy(1.0 - linear_betas()).cumprod(0)
        self.register_buffer("alpha_bar", alpha_bar.float(), persistent=False)

    def forward(self, model: nn.Module, *batch: Tensor) -> dict[str, Tensor]:
        """x0 (B, 3, H, W) in [-1, 1], t (B,) in 0..999, noise like x0. A learned variance is not trained here."""
        x0, t, noise = batch
        return {"denoising": (self.weight(self.alpha_bar[t]) * self.per_image(model, x0, t, noise)).mean()}

    def per_image(self, model: nn.Module, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """The mean squared error of the predicted noise in each image, (B,), unweighted."""
        alpha_bar = self.alpha_bar[t][:, None, None, None]
        x_t = alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise
        eps = as_noise(self.predicts, model(x_t, t)[:, :3].float(), x_t, alpha_bar)
        errors: Tensor = (eps - noise).square()
        return errors.flatten(1).mean(1)


def draw_noising(like: Tensor, step: int, *, seed: int, settings: DenoisingSettings) -> tuple[Tensor, Tensor]:
    """Steps t (B,) and noise (B, 3, H, W) for one training step; they depend only on the seed and the step number."""
    generator = torch.Generator().manual_seed(seed_for("noising", seed, step))
    early = torch.rand(len(like), generator=generator) < settings.early_share
    span = torch.where(early, settings.early_until, MODEL_STEPS)
    t = (torch.rand(len(like), generator=generator) * span).long()
    return t, torch.randn(like.shape, generator=generator)


def noised(truth: Tensor, rng: np.random.Generator, *, highest: int) -> Tensor:
    """A face (3, H, W) with the white noise of a random step of the prior, at most `highest`: x_t / sqrt(alpha_bar)."""
    alpha_bar = float((1 - linear_betas()).cumprod()[rng.integers(highest + 1)])
    noise = torch.from_numpy(rng.standard_normal(tuple(truth.shape), dtype=np.float32))
    return truth + math.sqrt(1 / alpha_bar - 1) * noise


def denoising_score(
    faces: list[Tensor], *, predicts: str = "eps", batch: int = 16
) -> Callable[[nn.Module], dict[str, float]]:
    """A validation with fixed noise: the mean error at seven steps over the held-out faces, each (3, H, W)."""
    objective = Denoising(predicts)
    levels = (20, 100, 200, 350, 500, 650, 850)

    def score(model: nn.Module) -> dict[str, float]:
        device = device_of(model)
        objective.to(device)
        sums: dict[int, list[Tensor]] = {level: [] for level in levels}
        for start in range(0, len(faces), batch):
            x0 = torch.stack(faces[start : start + batch])
            noise = ImageNoise(seed_for("held out", start + i) for i in range(len(x0)))(x0)
            for level in levels:
                t = torch.full((len(x0),), level)
                errors = objective.per_image(model, x0.to(device), t.to(device), noise.to(device))
                sums[level].append(errors.sum())
        means = {f"held_out_t{level}": sum(torch.stack(found).tolist()) / len(faces) for level, found in sums.items()}
        return {"held_out": sum(means.values()) / len(levels), **means}

    return score
