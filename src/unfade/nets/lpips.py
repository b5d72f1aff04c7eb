"""LPIPS: a distance between images in the features of VGG16 or AlexNet.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (2018), version 0.1. State-dict
keys are those of the published package. The network is built here without weights: `lpips_state` brings the two
published files, torchvision's classifier and the linear heads, to its keys.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unfade.errors import BadCheckpoint
from unfade.nets.architecture import Architecture

SHIFT = (-0.030, -0.088, -0.188)  # ImageNet's mean and deviation, for images in [-1, 1]
SCALE = (0.458, 0.448, 0.450)


@dataclass(frozen=True)
class Convolution:
    """One of torchvision's, by its number in `features`."""

    number: int
    before: int  # channels
    after: int
    kernel: int = 3
    stride: int = 1

    @property
    def padding(self) -> int:
        """Torchvision's: for AlexNet's first, of 11 at stride 4, less than half."""
        return 2 if self.kernel > 3 else 1


@dataclass(frozen=True)
class Backbone:
    """A classifier up to its last activation, in slices whose ends are compared."""

    slices: tuple[tuple[Convolution, ...], ...]
    pooled: tuple[int, ...]  # slices that begin with a pooling at stride 2
    pool: int = 2  # its kernel


def _vgg16() -> Backbone:
    widths, counts, starts = (64, 128, 256, 512, 512), (2, 2, 3, 3, 3), (0, 5, 10, 17, 24)
    slices, before = [], 3
    for width, count, start in zip(widths, counts, starts, strict=True):
        channels = (before, *(width,) * count)
        slices.append(tuple(Convolution(start + 2 * i, channels[i], width) for i in range(count)))
        before = width
    return Backbone(tuple(slices), (1, 2, 3, 4))


VGG16 = _vgg16()
ALEXNET = Backbone(
    (
        (Convolution(0, 3, 64, kernel=11, stride=4),),
        (Convolution(3, 64, 192, kernel=5),),
        (Convolution(6, 192, 384),),
        (Convolution(8, 384, 256),),
        (Convolution(10, 256, 256),),
    ),
    pooled=(1, 2),
    pool=3,
)
TINY = 1e-10  # keeps the unit length of an all-zero feature, and its gradient, finite


class LPIPS(nn.Module):
    """(restored, target), both (B, 3, H, W), RGB in [-1, 1] -> (B,) distances; sides of 16 px or more, 32 for AlexNet.

    Equal images have distance 0. Gradients reach the images; the parameters are a measure and never learn.
    """

    def __init__(self, backbone: Backbone = VGG16) -> None:
        super().__init__()
        self.scaling_layer = Scaling()
        self.net = Trunk(backbone)
        heads = [Head(convolutions[-1].after) for convolutions in backbone.slices]
        for k, head in enumerate(heads):
            self.add_module(f"lin{k}", head)
        self.lins = nn.ModuleList(heads)  # the same heads again: published files hold them twice
        self.requires_grad_(False)

    def forward(self, restored: Tensor, target: Tensor) -> Tensor:
        pairs = zip(self.features(restored), self.features(target), self.lins, strict=True)
        distances = [head((a - b) ** 2).mean((1, 2, 3)) for a, b, head in pairs]
        return torch.stack(distances).sum(0)

    def features(self, image: Tensor) -> list[Tensor]:
        """Activations of the five slices, each pixel's channels of length 1."""
        return [unit_length(activation) for activation in self.net(self.scaling_layer(image))]


class Scaling(nn.Module):
    """[-1, 1] -> ImageNet's normalisation."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        return (image - self.shift) / self.scale


class Trunk(nn.Module):
    """The activations at the end of each slice: before each pooling, and the last."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        for k, convolutions in enumerate(backbone.slices, start=1):
            layers = {str(c.number): nn.Conv2d(c.before, c.after, c.kernel, c.stride, c.padding) for c in convolutions}
            self.add_module(f"slice{k}", nn.ModuleDict(layers))

    def forward(self, x: Tensor) -> list[Tensor]:
        activations = []
        for k, part in enumerate(self.children()):
            if k in self.backbone.pooled:
                x = F.max_pool2d(x, self.backbone.pool, 2)
            for conv in part.children():
                x = F.relu(conv(x))
            activations.append(x)
        return activations


class Head(nn.Module):
    """One weight for each channel; the published model has a dropout before it, which is inactive in evaluation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Identity(), nn.Conv2d(channels, 1, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.model(x)
        return result


def unit_length(x: Tensor) -> Tensor:
    """(B, C, H, W) with the channels of each pixel scaled to length 1."""
    return x / (x.square().sum(1, keepdim=True) + TINY**2).sqrt()


def lpips_state(
    classifier: Mapping[str, Tensor], heads: Mapping[str, Tensor], backbone: Backbone = VGG16
) -> dict[str, Tensor]:
    """State dict of `LPIPS` from torchvision's classifier (`features.N.*`) and the heads (`linK.model.1.weight`).

    Other tensors (the classifier's last layers) are ignored. Raises BadCheckpoint if one that is needed is missing.
    """
    state = {f"scaling_layer.{name}": constant for name, constant in Scaling().state_dict().items()}
    try:
        state |= {ours: classifier[theirs] for ours, theirs in trunk_keys(backbone).items()}
        for k in range(len(backbone.slices)):
            state[f"lin{k}.model.1.weight"] = state[f"lins.{k}.model.1.weight"] = heads[f"lin{k}.model.1.weight"]
    except KeyError as missing:
        raise BadCheckpoint(
            f"LPIPS needs torchvision's classifier and the package's linear heads, but {missing} is in neither: "
            "give it the two published files."
        ) from missing
    return state


def trunk_keys(backbone: Backbone = VGG16) -> dict[str, str]:
    """Our key -> torchvision's key, for each tensor of the trunk."""
    numbers = [(k, convolution.number) for k, part in enumerate(backbone.slices, start=1) for convolution in part]
    kinds = ("weight", "bias")
    return {f"net.slice{k}.{n}.{kind}": f"features.{n}.{kind}" for k, n in numbers for kind in kinds}


VGG_ARCHITECTURE = Architecture(
    "perceptual",
    ("features.28.weight", "lin4.model.1.weight"),
    lambda config: LPIPS(),
    lambda state: [{}],
    convert=lambda state: lpips_state(state, state),
    files=2,
)
ALEX_ARCHITECTURE = Architecture(
    "perceptual",
    ("features.10.weight", "lin4.model.1.weight"),
    lambda config: LPIPS(ALEXNET),
    lambda state: [{}],
    convert=lambda state: lpips_state(state, state, ALEXNET),
    files=2,
)
