"""The restorer that guides PG-Diff: it sees the noisy state, the photo and the step, and predicts the clean face.

Yang et al., "PGDiff: Guiding Diffusion Models for Versatile Face Restoration via Partial Guidance" (NeurIPS 2023), with
the generator of Wang et al., "ESRGAN" (2018). State-dict keys are those of the published file.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unfade.nets.architecture import of_shapes
from unfade.nets.unet import timestep_embedding

SLOPE, RESIDUAL = 0.2, 0.2  # of the leaky ReLUs, and of what a block adds
UNSHUFFLE = 4  # px that become channels; two doublings bring them back
STEP_WIDTH = 100  # of the embedding of the step


@dataclass(frozen=True)
class PGDiffRestorerConfig:
    """The published size."""

    width: int = 64
    growth: int = 32
    blocks: int = 23


class PGDiffRestorer(nn.Module):
    """(x_t, photo, step) -> (B, 3, H, W), not clamped.

    Both pictures are (B, 3, H, W), the photo in [-1, 1], with sides divisible by 4; the steps are (B,) in 0..999.
    """

    def __init__(self, config: PGDiffRestorerConfig = PGDiffRestorerConfig()) -> None:
        super().__init__()
        self.config = config
        self.time_embed = nn.Sequential(nn.Linear(STEP_WIDTH, 3), nn.SiLU(), nn.Linear(3, 3))
        self.generator = RRDBNet(9, config)

    def forward(self, x_t: Tensor, photo: Tensor, step: Tensor) -> Tensor:
        embedded = self.time_embed(timestep_embedding(step, STEP_WIDTH).to(x_t))
        plane = embedded[:, :, None, None].expand_as(x_t)
        result: Tensor = self.generator(torch.cat([x_t, photo, plane], 1))
        return result


class RRDBNet(nn.Module):
    """Residual-in-residual dense blocks at a quarter of the size: (B, channels, H, W) -> (B, 3, H, W)."""

    def __init__(self, channels: int, config: PGDiffRestorerConfig) -> None:
        super().__init__()
        width = config.width
        self.conv_first = conv(channels * UNSHUFFLE**2, width)
        self.body = nn.Sequential(*(RRDB(width, config.growth) for _ in range(config.blocks)))
        self.conv_body, self.conv_up1, self.conv_up2 = conv(width, width), conv(width, width), conv(width, width)
        self.conv_hr, self.conv_last = conv(width, width), conv(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_first(F.pixel_unshuffle(x, UNSHUFFLE))
        x = x + self.conv_body(self.body(x))
        for up in (self.conv_up1, self.conv_up2):
            x = F.leaky_relu(up(F.interpolate(x, scale_factor=2.0, mode="nearest")), SLOPE)
        result: Tensor = self.conv_last(F.leaky_relu(self.conv_hr(x), SLOPE))
        return result


class RRDB(nn.Module):
    """Three dense blocks and a residual around them."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (DenseBlock(width, growth) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.rdb3(self.rdb2(self.rdb1(x)))
        return x + RESIDUAL * added


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees the results of all before it."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        for k in range(5):
            self.add_module(f"conv{k + 1}", conv(width + k * growth, growth if k < 4 else width))

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        *first, last = self.children()
        for layer in first:
            seen = torch.cat([seen, F.leaky_relu(layer(seen), SLOPE)], 1)
        added: Tensor = last(seen)
        return x + RESIDUAL * added


def conv(before: int, after: int) -> nn.Conv2d:
    """3 x 3."""
    return nn.Conv2d(before, after, 3, padding=1)


ARCHITECTURE = of_shapes(
    "guide",
    ("generator.conv_first.weight", "time_embed.0.weight"),
    PGDiffRestorer,
    PGDiffRestorerConfig(),
)
