"""StyleGAN2's discriminator: what GFPGAN's training sets against its restorer.

Karras et al., "Analyzing and Improving the Image Quality of StyleGAN" (2020), Sec. 4.1 and Fig. 7 (residual
discriminator) and App. B; equalised learning rate and minibatch standard deviation are those of Karras et al.,
"Progressive Growing of GANs" (2018), Sec. 4.1 and 3. State-dict keys are those of the published checkpoints.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unfade.errors import BadInput
from unfade.nets.architecture import Architecture, Config, count, from_header, to_header
from unfade.nets.stylegan import SMALLEST, TINY

WIDEST = 512  # channels up to 32 px
BINOMIAL = (1.0, 3.0, 3.0, 1.0)  # taps of the blur before a stride, in each direction (App. B)


@dataclass(frozen=True)
class StyleGANDiscriminatorConfig:
    """Shape of the discriminator. The defaults are GFPGAN's at 512 px: 24,030,753 parameters."""

    size: int = 512  # side of the image in px, a power of two from 8 on
    channel_multiplier: int = 1  # on the channels of levels above 32 px: 1 in GFPGAN's training, 2 in StyleGAN2's
    narrow: float = 1.0  # on the channels of every level
    group: int = 4  # images whose standard deviation is taken together (App. B)

    def __post_init__(self) -> None:
        if self.size < 2 * SMALLEST or self.size & (self.size - 1):
            raise BadInput(f"The discriminator's size must be a power of two from {2 * SMALLEST} px, not {self.size}.")
        if self.group < 1 or min(self.widths) < 1:
            raise BadInput(
                f"The discriminator's group and channels must be at least 1, not {self.group} and {self.widths}: "
                f"choose another group, or another narrow than {self.narrow}."
            )

    @property
    def widths(self) -> list[int]:
        """Channels at size, size / 2, ..., 4 px."""
        sides = [self.size >> k for k in range((self.size // SMALLEST).bit_length())]
        wide = WIDEST * 32 * self.channel_multiplier
        return [int(self.narrow * (WIDEST if side <= 32 else wide // side)) for side in sides]


class StyleGANDiscriminator(nn.Module):
    """Image (B, 3, size, size), RGB in [-1, 1] -> (B, 1) logits, high for real.

    The images of a batch meet only in the standard deviation, so B must be at most `group` or a multiple of it.
    Raises BadInput on another batch or size.
    """

    def __init__(self, config: StyleGANDiscriminatorConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or StyleGANDiscriminatorConfig()
        widths = config.widths
        deepest = widths[-1]
        self.conv_body = nn.Sequential(
            nn.Sequential(EqualConv(3, widths[0], 1), BiasedActivation(widths[0])),
            *(ResBlock(before, after) for before, after in pairwise(widths)),
        )
        self.final_conv = nn.Sequential(EqualConv(deepest + 1, deepest, 3), BiasedActivation(deepest))
        self.final_linear = nn.Sequential(ActiveLinear(deepest * SMALLEST**2, deepest), EqualLinear(deepest, 1))

    def forward(self, image: Tensor) -> Tensor:
        side = self.config.size
        if image.shape[1:] != (3, side, side):
            raise BadInput(f"This discriminator judges (B, 3, {side}, {side}), not {tuple(image.shape)}: resize first.")
        x = with_deviation(self.conv_body(image), self.config.group)
        result: Tensor = self.final_linear(self.final_conv(x).flatten(1))
        return result


class ResBlock(nn.Module):
    """Two convolutions, the second to half the side, beside a linear way; (B, before, S, S) -> (B, after, S/2, S/2)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(EqualConv(before, before, 3), BiasedActivation(before))
        self.conv2 = nn.Sequential(
            Blur(padding=2), EqualConv(before, after, 3, stride=2, padding=0), BiasedActivation(after)
        )
        # a 1x1 convolution with a stride sees every other pixel only: the blur need not make the rest
        self.skip = nn.Sequential(Blur(padding=1, stride=2), EqualConv(before, after, 1))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = (self.conv2(self.conv1(x)) + self.skip(x)) / math.sqrt(2)  # keeps the variance (Sec. 4.1)
        return result


class EqualConv(nn.Module):
    """A convolution without bias whose weights are stored at unit variance and scaled at every use.

    So every layer learns at the same speed (equalised learning rate). By default the side does not change.
    """

    def __init__(self, before: int, after: int, kernel: int, *, stride: int = 1, padding: int | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(after, before, kernel, kernel))
        self.scale = equalising(self.weight)
        self.stride = stride
        self.padding = kernel // 2 if padding is None else padding

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.scale, stride=self.stride, padding=self.padding)


class EqualLinear(nn.Module):
    """A linear layer with the same scaling, (B, before) -> (B, after); its bias is not scaled."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(after, before))
        self.bias = nn.Parameter(torch.zeros(after))
        self.scale = equalising(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias)


class ActiveLinear(EqualLinear):
    """A linear layer and the activation: one module, for the published keys count them as one."""

    def forward(self, x: Tensor) -> Tensor:
        return activated(super().forward(x))


class BiasedActivation(nn.Module):
    """A bias for each channel and the activation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return activated(x + self.bias[:, None, None])


class Blur(nn.Module):
    """Every channel through the binomial low-pass of sum 1, with zeros around the image.

    The side S becomes (S + 2 * padding - 4) // stride + 1.
    """

    kernel: Tensor

    def __init__(self, *, padding: int, stride: int = 1) -> None:
        super().__init__()
        taps = torch.tensor(BINOMIAL)
        taps = taps / taps.sum()
        self.register_buffer("kernel", torch.outer(taps, taps), persistent=False)  # not in the published files
        self.padding = padding
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        width = x.shape[1]
        each = self.kernel.expand(width, 1, -1, -1)
        return F.conv2d(x, each, stride=self.stride, padding=self.padding, groups=width)


def with_deviation(x: Tensor, group: int) -> Tensor:
    """(B, C, H, W) -> (B, C + 1, H, W): the minibatch standard deviation as one more channel, constant in each image.

    It is the mean over channels and pixels of the deviation within the image's group. A batch smaller than `group` is
    one group; otherwise it makes M = B / group of them and every M-th image belongs together, as published. Raises
    BadInput on a batch that does not divide.
    """
    group = min(group, len(x))
    if len(x) % group:
        raise BadInput(f"A batch above {group} images must be a multiple of {group}, not {len(x)}: drop the last ones.")
    groups = x.float().reshape(group, -1, *x.shape[1:])  # in half precision TINY would be 0
    deviation = (groups.var(0, correction=0) + TINY).sqrt().mean((1, 2, 3))
    channel = deviation.repeat(group)[:, None, None, None].expand(-1, 1, *x.shape[2:])
    return torch.cat([x, channel.to(x.dtype)], dim=1)


def equalising(weight: Tensor) -> float:
    """The factor that brings weights of unit variance to He's: 1 / sqrt of the inputs of one output."""
    return 1 / math.sqrt(weight[0].numel())


def activated(x: Tensor) -> Tensor:
    """LeakyReLU of slope 0.2; sqrt 2 makes up for the power that it loses."""
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


def shape_of(state: Mapping[str, Tensor]) -> list[Config]:
    """The header of a file: all but the group of the standard deviation, which leaves no trace."""
    size = SMALLEST << count(state, r"conv_body\.(\d+)\.skip\.")
    first, deepest = state["conv_body.0.0.weight"].shape[0], state["final_conv.0.weight"].shape[0]
    usual = StyleGANDiscriminatorConfig.channel_multiplier
    multiplier = round(first * size / (32 * deepest)) if size > 32 else usual
    return [to_header(StyleGANDiscriminatorConfig(size, multiplier, deepest / WIDEST))]


ARCHITECTURE = Architecture(
    "discriminator",
    ("conv_body.0.0.weight", "conv_body.1.skip.1.weight", "final_conv.0.weight"),
    lambda config: StyleGANDiscriminator(from_header(StyleGANDiscriminatorConfig, config)),
    shape_of,
)
