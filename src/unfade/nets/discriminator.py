"""The discriminator of the image-level losses: a U-Net with spectral norm that judges every pixel.

Wang et al., "Real-ESRGAN" (2021), Sec. 3.3; state-dict keys are those of the published checkpoints.
"""

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm  # not the newer parametrization: its keys are not the published ones
from torch.nn.utils.spectral_norm import SpectralNorm

from unfade.nets.architecture import Architecture


class UNetDiscriminatorSN(nn.Module):
    """(B, 3, H, W) in [0, 1] -> (B, 1, H, W) logits, high for real. H and W are multiples of 8.

    `features` are the channels of its first layer: 64 as published, 4,376,897 parameters. In training mode each
    forward pass is one power iteration of every spectral norm.
    """

    def __init__(self, features: int = 64) -> None:
        super().__init__()
        f = features
        self.conv0 = nn.Conv2d(3, f, 3, padding=1)
        self.conv1 = halving(f, 2 * f)
        self.conv2 = halving(2 * f, 4 * f)
        self.conv3 = halving(4 * f, 8 * f)
        self.conv4 = keeping(8 * f, 4 * f)
        self.conv5 = keeping(4 * f, 2 * f)
        self.conv6 = keeping(2 * f, f)
        self.conv7 = keeping(f, f)
        self.conv8 = keeping(f, f)
        self.conv9 = nn.Conv2d(f, 1, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        full = activated(self.conv0(image))
        half = activated(self.conv1(full))
        quarter = activated(self.conv2(half))
        x = activated(self.conv3(quarter))
        x = activated(self.conv4(doubled(x))) + quarter  # skips are added after the activation
        x = activated(self.conv5(doubled(x))) + half
        x = activated(self.conv6(doubled(x))) + full
        result: Tensor = self.conv9(activated(self.conv8(activated(self.conv7(x)))))
        return result


def halving(before: int, after: int) -> nn.Module:
    """Convolution to half the size, spectrally normalised."""
    return normalised(nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False))


def keeping(before: int, after: int) -> nn.Module:
    """Convolution that keeps the size, spectrally normalised."""
    return normalised(nn.Conv2d(before, after, 3, padding=1, bias=False))


def normalised(conv: nn.Conv2d) -> nn.Conv2d:
    """The convolution under spectral normalisation, one power iteration for each training pass."""
    return spectral_norm(conv)


def pass_by(network: nn.Module, passes: int) -> None:
    """Change the spectral norms of a network in training mode as so many passes would, without any."""
    hooks = [(hook, module) for module in network.modules() for hook in module._forward_pre_hooks.values()]
    for hook, module in hooks:
        for _ in range(passes if isinstance(hook, SpectralNorm) else 0):
            hook(module, None)


def activated(x: Tensor) -> Tensor:
    """LeakyReLU of slope 0.2."""
    return F.leaky_relu(x, 0.2)


def doubled(x: Tensor) -> Tensor:
    """Twice the size, bilinear with half-pixel centres."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


ARCHITECTURE = Architecture(
    "discriminator",
    ("conv0.weight", "conv1.weight_orig", "conv9.weight"),
    lambda config: UNetDiscriminatorSN(config["features"]),
    lambda state: [{"features": state["conv0.weight"].shape[0]}],
)
