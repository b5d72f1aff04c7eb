"""GFPGAN v1 clean: a U-Net reads the degraded face and steers a pre-trained StyleGAN2.

Wang et al., "Towards Real-World Blind Face Restoration with Generative Facial Prior" (2021), Sec. 3: the shape of the
checkpoints 1.3 and 1.4. State-dict keys are those of the published checkpoints.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from unfade.errors import BadInput
from unfade.nets.architecture import of_shapes
from unfade.nets.stylegan import SMALLEST, Condition, StyleGANDecoder, doubled, halved, noise_sides

WIDEST = 512  # channels of StyleGAN2 up to 32 px
NOT_IN_FORWARD = ("toRGB", "stylegan_decoder.style_mlp")  # submodules without a gradient when only the image is used


@dataclass(frozen=True)
class GFPGANConfig:
    """Shape of a GFPGAN. The defaults are versions 1.3 and 1.4: 86,444,252 parameters."""

    size: int = 512  # side of the face in px, a power of two from 8 on
    style_features: int = 512  # length of a style code
    channel_multiplier: int = 2  # on the channels of levels above 32 px, as in StyleGAN2
    narrow: float = 1.0  # on the channels of every level
    mapping_layers: int = 8  # of the perceptron that restoring does not use

    def __post_init__(self) -> None:
        if self.size < 2 * SMALLEST or self.size & (self.size - 1):
            raise BadInput(f"GFPGAN's size must be a power of two from {2 * SMALLEST} px on, not {self.size}.")
        if any(width < 2 or width % 2 for width in self.widths):
            raise BadInput(
                f"GFPGAN's channels must be even, not {self.widths}: choose another narrow than {self.narrow}."
            )

    @property
    def sides(self) -> list[int]:
        """Sides of the levels in px: 4, 8, ..., size."""
        return [SMALLEST << k for k in range((self.size // SMALLEST).bit_length())]

    @property
    def widths(self) -> list[int]:
        """Channels of StyleGAN2 at each level; the U-Net has half of them, for it steers half of them."""
        return [
            int(self.narrow * (WIDEST if side <= 32 else WIDEST * 32 * self.channel_multiplier // side))
            for side in self.sides
        ]


@dataclass(frozen=True)
class Encoding:
    """What the U-Net reads from a face."""

    styles: Tensor  # (B, 2 * levels, style_features), one for each modulated convolution
    features: tuple[Tensor, ...]  # of the U-Net's second half, (B, C, side, side) for side 8, 16, ..., size


class GFPGAN(nn.Module):
    """Degraded face (B, 3, size, size), RGB in [-1, 1] -> restored face, same shape, about [-1, 1], not clamped.

    `noise` is one (B or 1, 1, side, side) for each of `noise_sides`; by default the stored maps, so that the same face
    gives the same result. Raises BadInput on another size, or another number of noise maps.
    """

    def __init__(self, config: GFPGANConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or GFPGANConfig()
        f = [width // 2 for width in config.widths]
        growing = list(pairwise(f))
        self.conv_body_first = nn.Conv2d(3, f[-1], 1)
        self.conv_body_down = nn.ModuleList(ResBlock(wide, deep, halved) for deep, wide in reversed(growing))
        self.final_conv = nn.Conv2d(f[0], f[0], 3, padding=1)
        self.conv_body_up = nn.ModuleList(ResBlock(deep, wide, doubled) for deep, wide in growing)
        self.toRGB = nn.ModuleList(nn.Conv2d(width, 3, 1) for width in f[1:])
        self.final_linear = nn.Linear(f[0] * SMALLEST**2, 2 * len(f) * config.style_features)
        self.stylegan_decoder = StyleGANDecoder(
            config.widths, config.style_features, mapping_layers=config.mapping_layers
        )
        self.condition_scale = nn.ModuleList(condition(width, start=1.0) for width in f[1:])
        self.condition_shift = nn.ModuleList(condition(width, start=0.0) for width in f[1:])

    def forward(self, face: Tensor, *, noise: Sequence[Tensor] | None = None) -> Tensor:
        return self.decode(self.encode(face), noise=noise)

    def encode(self, face: Tensor) -> Encoding:
        """The styles and the features that the face is restored from."""
        side = self.config.size
        if face.shape[-2:] != (side, side):
            raise BadInput(f"This GFPGAN restores {side} px faces, not {tuple(face.shape)}: resize them first.")
        x = activated(self.conv_body_first(face))
        skips = []
        for down in self.conv_body_down:
            x = down(x)
            skips.append(x)
        x = activated(self.final_conv(x))
        styles = self.final_linear(x.flatten(1)).unflatten(1, (-1, self.config.style_features))
        features = []
        for up, skip in zip(self.conv_body_up, reversed(skips), strict=True):
            x = up(x + skip)
            features.append(x)
        return Encoding(styles, tuple(features))

    def conditions(self, encoding: Encoding) -> list[Condition]:
        """Scale and shift of the generator's steerable channels, from 8 px to the full size."""
        parts = zip(self.condition_scale, self.condition_shift, encoding.features, strict=True)
        return [(scale(x), shift(x)) for scale, shift, x in parts]

    def decode(self, encoding: Encoding, *, noise: Sequence[Tensor] | None = None) -> Tensor:
        """The restored face of an encoding."""
        noise = self.stylegan_decoder.noises() if noise is None else noise
        if len(noise) != len(self.noise_sides):
            raise BadInput(f"This GFPGAN needs {len(self.noise_sides)} noise maps, not {len(noise)}: see noise_sides.")
        result: Tensor = self.stylegan_decoder(encoding.styles, self.conditions(encoding), noise)
        return result

    def pyramid(self, encoding: Encoding) -> list[Tensor]:
        """Faces as the U-Net alone sees them, 8 px to the full size: for the pyramid loss (Sec. 3.2)."""
        return [to_rgb(x) for to_rgb, x in zip(self.toRGB, encoding.features, strict=True)]

    @property
    def noise_sides(self) -> list[int]:
        """Sides in px of the noise maps, in the order in which they are used."""
        return noise_sides(len(self.config.sides))


class ResBlock(nn.Module):
    """Two convolutions with a change of size between them, and a linear skip."""

    def __init__(self, before: int, after: int, resized: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.resized = resized
        self.conv1 = nn.Conv2d(before, before, 3, padding=1)
        self.conv2 = nn.Conv2d(before, after, 3, padding=1)
        self.skip = nn.Conv2d(before, after, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        residual = activated(self.conv2(self.resized(activated(self.conv1(x)))))
        result: Tensor = residual + self.skip(self.resized(x))
        return result


def condition(width: int, *, start: float) -> nn.Sequential:
    """Features of a level -> scales or shifts of as many channels, about `start` before training."""
    last = nn.Conv2d(width, width, 3, padding=1)
    assert last.bias is not None
    nn.init.constant_(last.bias, start)
    return nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(0.2), last)


def activated(x: Tensor) -> Tensor:
    """LeakyReLU of slope 0.2."""
    return F.leaky_relu(x, 0.2)


ARCHITECTURE = of_shapes(
    "restorer",
    ("conv_body_first.weight", "stylegan_decoder.constant_input.weight"),
    GFPGAN,
    GFPGANConfig(),
)
