"""The face generator inside GFPGAN: StyleGAN2 whose feature maps are steered by spatial conditions.

Karras et al., "Analyzing and Improving the Image Quality of StyleGAN" (2020), Sec. 2 and Fig. 7 (output skips), in the
variant of GFPGAN's "clean" checkpoints: bilinear resampling instead of blur kernels and no equalised learning rate.
State-dict keys are those of the published checkpoints.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALLEST = 4  # px, the side of the constant input
TINY = 1e-8  # keeps the normalisations finite

Condition = tuple[Tensor, Tensor]  # scale and shift of half of a level's channels, both (B, C/2, side, side)


class StyleGANDecoder(nn.Module):
    """Styles, conditions and noise -> (B, 3, S, S), about [-1, 1], not clamped; S = 4 * 2 ** (len(widths) - 1).

    `widths` are the channels at 4, 8, 16, ... px. `style_mlp` turns latent noise into styles; restoring never uses it,
    it is here because it is in the published files.
    """

    def __init__(self, widths: Sequence[int], style_features: int, *, mapping_layers: int = 8) -> None:
        super().__init__()
        self.style_mlp = mapping(style_features, mapping_layers)
        self.constant_input = ConstantInput(widths[0])
        self.style_conv1 = StyleConv(widths[0], widths[0], style_features)
        self.to_rgb1 = ToRGB(widths[0], style_features)
        self.style_convs = nn.ModuleList()
        for before, after in pairwise(widths):
            self.style_convs.append(StyleConv(before, after, style_features))
            self.style_convs.append(StyleConv(after, after, style_features))
        self.to_rgbs = nn.ModuleList(ToRGB(width, style_features) for width in widths[1:])
        self.noises = StoredNoise(noise_sides(len(widths)))

    def forward(self, styles: Tensor, conditions: Sequence[Condition], noise: Sequence[Tensor]) -> Tensor:
        """`styles` (B, 2 * levels, F); `conditions` and `noise` from the smallest side to the largest."""
        x = self.constant_input(len(styles))
        x = self.style_conv1(x, styles[:, 0], noise[0])
        image: Tensor = self.to_rgb1(x, styles[:, 1])
        for k, (scale, shift) in enumerate(conditions):
            at = 2 * k + 1  # a level's image and the first convolution of the next one share a style
            x = self.style_convs[2 * k](doubled(x), styles[:, at], noise[at])
            x = steered(x, scale, shift)
            x = self.style_convs[2 * k + 1](x, styles[:, at + 1], noise[at + 1])
            image = doubled(image) + self.to_rgbs[k](x, styles[:, at + 2])
        return image


class StyleConv(nn.Module):
    """A modulated 3x3 convolution, noise of a learned strength, a bias and the activation."""

    def __init__(self, before: int, after: int, style_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))  # strength of the noise
        self.bias = nn.Parameter(torch.zeros(1, after, 1, 1))
        self.modulated_conv = ModulatedConv(before, after, style_features, kernel=3)

    def forward(self, x: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        # sqrt 2 makes up for the variance that the activation loses
        x = math.sqrt(2) * self.modulated_conv.normalised(x, style) + self.weight * noise + self.bias
        return F.leaky_relu(x, 0.2)


class ToRGB(nn.Module):
    """A level's contribution to the image: a modulated 1x1 convolution whose output keeps its scale."""

    def __init__(self, before: int, style_features: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))
        self.modulated_conv = ModulatedConv(before, 3, style_features, kernel=1)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        result: Tensor = self.modulated_conv(x, style) + self.bias
        return result


class ModulatedConv(nn.Module):
    """A convolution whose input channels are scaled by the style (StyleGAN2, Eq. 1).

    Scaling the input is the same as scaling each image's own copy of the weights, without the copies.
    """

    def __init__(self, before: int, after: int, style_features: int, *, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, after, before, kernel, kernel) / math.sqrt(before * kernel**2))
        self.modulation = nn.Linear(style_features, before)
        nn.init.ones_(self.modulation.bias)
        self.padding = kernel // 2

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        return self.scaled(x, self.modulation(style))

    def normalised(self, x: Tensor, style: Tensor) -> Tensor:
        """The same with the expected deviation of each output channel brought back to 1 (Eq. 3)."""
        scale: Tensor = self.modulation(style)
        power = scale.square() @ self.weight[0].square().sum((2, 3)).T
        return self.scaled(x, scale) * (power + TINY).rsqrt()[:, :, None, None]

    def scaled(self, x: Tensor, scale: Tensor) -> Tensor:
        """Convolution of the input with its channels scaled; `scale` is (B, C)."""
        return F.conv2d(x * scale[:, :, None, None], self.weight[0], padding=self.padding)


class ConstantInput(nn.Module):
    """The learned map that every image starts from."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, width, SMALLEST, SMALLEST))

    def forward(self, count: int) -> Tensor:
        return self.weight.expand(count, -1, -1, -1)


class StoredNoise(nn.Module):
    """The noise that a checkpoint brings, one (1, 1, side, side) for each 3x3 convolution: restoring is repeatable."""

    def __init__(self, sides: Sequence[int]) -> None:
        super().__init__()
        for k, side in enumerate(sides):
            self.register_buffer(f"noise{k}", torch.randn(1, 1, side, side))

    def forward(self) -> list[Tensor]:
        return list(self.buffers())


class UnitPower(nn.Module):
    """A latent code scaled to mean square 1."""

    def forward(self, code: Tensor) -> Tensor:
        return code * (code.square().mean(1, keepdim=True) + TINY).rsqrt()


def mapping(features: int, layers: int) -> nn.Sequential:
    """The perceptron from latent noise (B, features) to a style (B, features)."""
    steps: list[nn.Module] = [UnitPower()]
    for _ in range(layers):
        steps += [nn.Linear(features, features), nn.LeakyReLU(0.2)]
    return nn.Sequential(*steps)


def noise_sides(levels: int) -> list[int]:
    """Sides of the noise maps in px: one at 4 px, two at every larger level."""
    return [SMALLEST] + [SMALLEST * 2**k for k in range(1, levels) for _ in range(2)]


def steered(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """The second half of the channels scaled and shifted, the first left as generated (GFPGAN, Sec. 3.4)."""
    own, steerable = x.chunk(2, dim=1)
    return torch.cat([own, steerable * scale + shift], dim=1)


def doubled(x: Tensor) -> Tensor:
    """Twice the size, bilinear with half-pixel centres."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def halved(x: Tensor) -> Tensor:
    """Half the size, bilinear with half-pixel centres: the mean of each 2x2 block."""
    return F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=False)
