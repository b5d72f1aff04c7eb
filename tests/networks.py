"""Networks small enough for tests: the U-Net of the golden chains, a smaller one, and fakes that know an answer."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from recorded import fill_module
from unfade.diffusion.prior import DiffusionPrior
from unfade.nets.unet import UNet, UNetConfig

B32 = UNetConfig(size=32, channels=32, channel_mult=(1, 2), res_blocks=(1, 1), attention_sizes=(16,), head_channels=32)
FOLDED32 = replace(B32, patch=2, attention_sizes=(8,))  # a quarter of the work, for whole adaptations


def filled_unet(config: UNetConfig = B32) -> UNet:
    """A U-Net with the weights that its key names give, ready to be evaluated."""
    return fill_module(UNet(config)).eval().requires_grad_(False)


def tiny_prior(spacing: str = "20") -> DiffusionPrior:
    """The prior of the golden chains, for 32 px."""
    return DiffusionPrior(filled_unet(), 32, spacing=spacing).eval()


class Answers(nn.Module):
    """Stands in for a U-Net: `answer(x_t, t)` is what it predicts. It remembers the steps it was asked for."""

    def __init__(self, answer: Callable[[Tensor, Tensor], Tensor]):
        super().__init__()
        self.answer = answer
        self.asked: list[int] = []
        self.weight = nn.Parameter(torch.zeros(()), requires_grad=False)  # says on which device it is

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.asked.append(int(t[0]))
        return self.answer(x, t)


def fake_prior(answer: Callable[[Tensor, Tensor], Tensor] = lambda x, t: x, spacing: str = "250") -> DiffusionPrior:
    """A 32 px prior that costs nothing; by default it takes all it sees for noise."""
    return DiffusionPrior(Answers(answer), 32, spacing=spacing)


class CountingNoise:
    """Standard normal noise from one generator, counted."""

    def __init__(self, seed: int = 0):
        self.draws = 0
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, like: Tensor) -> Tensor:
        self.draws += 1
        return torch.randn(like.shape, generator=self._generator)
