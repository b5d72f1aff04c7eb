"""LPIPS: a distance between images in the features of VGG16.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (2018), version 0.1. State-dict
keys are those of the published package. The network is built here without weights: `lpips_state` brings the two
published files, torchvision's VGG16 and the linear heads, to its keys.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unfade.errors import BadCheckpoint

SHIFT = (-0.030, -0.088, -0.188)  # ImageNet's mean and deviation, for images in [-1, 1]
SCALE = (0.458, 0.448, 0.450)
SLICES = (  # convolutions of each slice: (index in torchvision's vgg16.features, channels before, after)
    ((0, 3, 64), (2, 64, 64)),
    ((5, 64, 128), (7, 128, 128)),
    ((10, 128, 256), (12, 256, 256), (14, 256, 256)),
    ((17, 256, 512), (19, 512, 512), (21, 512, 512)),
    ((24, 512, 512), (26, 512, 512), (28, 512, 512)),
)
TINY = 1e-10  # keeps the unit length of an all-zero feature, and its gradient, finite


class LPIPS(nn.Module):
    """(restored, target), both (B, 3, H, W), RGB in [-1, 1], sides of at least 16 px -> (B,) distances.

    Equal images have distance 0. Gradients reach the images; the parameters are a measure and never learn.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scaling_layer = Scaling()
        self.net = Trunk()
        heads = [Head(convolutions[-1][-1]) for convolutions in SLICES]
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
    """VGG16 up to relu5_3: the activations before each pooling, and the last."""

    def __init__(self) -> None:
        super().__init__()
        for k, convolutions in enumerate(SLICES, start=1):
            layers = {str(n): nn.Conv2d(before, after, 3, padding=1) for n, before, after in convolutions}
            self.add_module(f"slice{k}", nn.ModuleDict(layers))

    def forward(self, x: Tensor) -> list[Tensor]:
        activations = []
        for k, part in enumerate(self.children()):
            x = F.max_pool2d(x, 2) if k else x
            for conv in part.children():
                x = F.relu(conv(x))
            activations.append(x)
        return activations


class Head(nn.Module):
    """One weight for each channel; the published model has a dropout before it, inactive as it is used."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Identity(), nn.Conv2d(channels, 1, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.model(x)
        return result


def unit_length(x: Tensor) -> Tensor:
    """(B, C, H, W) with the channels of each pixel scaled to length 1."""
    return x / (x.square().sum(1, keepdim=True) + TINY**2).sqrt()


def lpips_state(vgg16: Mapping[str, Tensor], heads: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of `LPIPS` from torchvision's vgg16 (`features.N.*`) and the linear heads (`linK.model.1.weight`).

    Other tensors (the classifier of VGG16) are ignored. Raises BadCheckpoint if one that is needed is missing.
    """
    state = {f"scaling_layer.{name}": constant for name, constant in Scaling().state_dict().items()}
    try:
        state |= {ours: vgg16[theirs] for ours, theirs in trunk_keys().items()}
        for k in range(len(SLICES)):
            state[f"lin{k}.model.1.weight"] = state[f"lins.{k}.model.1.weight"] = heads[f"lin{k}.model.1.weight"]
    except KeyError as missing:
        raise BadCheckpoint(
            f"LPIPS needs torchvision's vgg16 and the package's linear heads, but {missing} is in neither: "
            "give it the two published files."
        ) from missing
    return state


def trunk_keys() -> dict[str, str]:
    """Our key -> torchvision's key, for each tensor of the trunk."""
    numbers = [(k, convolution[0]) for k, part in enumerate(SLICES, start=1) for convolution in part]
    kinds = ("weight", "bias")
    return {f"net.slice{k}.{n}.{kind}": f"features.{n}.{kind}" for k, n in numbers for kind in kinds}
