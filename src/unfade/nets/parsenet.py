"""ParseNet: which part of the face a pixel belongs to, in the 19 classes of CelebAMask-HQ.

Chen et al., "Progressive Semantic-Aware Style Transformation for Blind Face Restoration" (2021): an encoder,
residual blocks at the small size and a decoder. State-dict keys are those of the published checkpoint.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from unfade.errors import BadInput
from unfade.nets.architecture import of_shapes

BACKGROUND = (0, 14, 16, 17, 18)  # background, hat, necklace, neck, cloth: not pasted back into the photo


@dataclass(frozen=True)
class ParseNetConfig:
    """Shape of a ParseNet. The defaults are the published network for 512 px faces: 21,303,254 parameters."""

    classes: int = 19  # of CelebAMask-HQ
    width: int = 64  # channels at the full size; doubled at each halving
    widest: int = 256  # no level has more channels
    halvings: int = 4  # 512 px -> 32 px
    blocks: int = 10  # residual blocks at the smallest size

    @property
    def widths(self) -> list[int]:
        """Channels at each level, from the full size to the smallest."""
        return [min(self.width * 2**k, self.widest) for k in range(self.halvings + 1)]


class ParseNet(nn.Module):
    """Faces (B, 3, H, W), RGB in [-1, 1] -> logits (B, classes, H, W); `parse` gives the most likely class.

    H and W are multiples of 2 ** halvings and at least twice that, for borders are mirrored; BadInput otherwise.
    """

    def __init__(self, config: ParseNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ParseNetConfig()
        w = config.widths
        pairs = list(pairwise(w))
        self.encoder = nn.Sequential(MirroredConv(3, w[0]), *(ResidualBlock(a, b, down=2) for a, b in pairs))
        self.body = nn.Sequential(*(ResidualBlock(w[-1], w[-1]) for _ in range(config.blocks)))
        self.decoder = nn.Sequential(*(ResidualBlock(b, a, up=2) for a, b in reversed(pairs)))
        self.out_img_conv = MirroredConv(w[0], 3)
        self.out_mask_conv = MirroredConv(w[0], config.classes)

    def forward(self, face: Tensor) -> Tensor:
        result: Tensor = self.out_mask_conv(self.features(face))
        return result

    def parse(self, face: Tensor) -> Tensor:
        """The most likely class of each pixel: (B, H, W) int64."""
        return self.forward(face).argmax(1)

    def picture(self, face: Tensor) -> Tensor:
        """The second head, which learned to repeat the face: (B, 3, H, W)."""
        result: Tensor = self.out_img_conv(self.features(face))
        return result

    def features(self, face: Tensor) -> Tensor:
        """What both heads read: (B, width, H, W)."""
        unit = 2**self.config.halvings
        if any(side % unit or side < 2 * unit for side in face.shape[-2:]):
            raise BadInput(
                f"ParseNet needs sides that are multiples of {unit} px from {2 * unit} on, not {tuple(face.shape)}."
            )
        small = self.encoder(face)
        result: Tensor = self.decoder(small + self.body(small))
        return result


class ResidualBlock(nn.Module):
    """Two normalised convolutions; the first enlarges or the second halves, and the shortcut does the same."""

    def __init__(self, before: int, after: int, *, up: int = 1, down: int = 1) -> None:
        super().__init__()
        self.shortcut_func: nn.Module = nn.Identity()
        if before != after or (up, down) != (1, 1):
            self.shortcut_func = MirroredConv(before, after, up=up, down=down)
        self.conv1 = NormalisedConv(before, after, up=up)
        self.conv2 = NormalisedConv(after, after, down=down)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.shortcut_func(x) + self.conv2(F.leaky_relu(self.conv1(x), 0.2))
        return result


class MirroredConv(nn.Module):
    """A 3x3 convolution with mirrored borders, after enlarging (nearest) by `up`, in steps of `down`."""

    def __init__(self, before: int, after: int, *, up: int = 1, down: int = 1, bias: bool = True) -> None:
        super().__init__()
        self.up = up
        self.conv2d = nn.Conv2d(before, after, 3, stride=down, padding=1, padding_mode="reflect", bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.up == 1 else F.interpolate(x, scale_factor=self.up, mode="nearest")
        result: Tensor = self.conv2d(x)
        return result


class NormalisedConv(MirroredConv):
    """The same, without bias, followed by a batch normalisation."""

    def __init__(self, before: int, after: int, *, up: int = 1, down: int = 1) -> None:
        super().__init__(before, after, up=up, down=down, bias=False)
        self.norm = Norm(after)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.norm(super().forward(x))
        return result


class Norm(nn.Module):
    """A batch normalisation; separate for the published key `norm.norm`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.norm(x)
        return result


ARCHITECTURE = of_shapes(
    "parser",
    ("encoder.0.conv2d.weight", "out_mask_conv.conv2d.weight"),
    ParseNet,
    ParseNetConfig(),
)
