"""A perceptual distance between faces that needs no download: it compares features of the prior's own encoder."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unfade.devices import device_of
from unfade.diffusion.prior import DiffusionPrior
from unfade.diffusion.schedule import linear_betas
from unfade.errors import BadInput
from unfade.nets.unet import UNet


class PriorFeatures(nn.Module):
    """The distance between the features of a prior's U-Net encoder at a small step.

    As in LPIPS (Zhang et al., 2018), but without learned weights: features at the end of each resolution are scaled to
    unit length over channels; the squared difference is summed over channels, averaged over positions and then over
    resolutions. 0 for equal images, 2 for unrelated features.

    `shifted` is for training. A network is nearly blind to a pattern that repeats with its own blocks and strides, and
    a network trained on its features would learn to draw one; so both images are shifted by a random part of a block,
    with torch's global generator.
    """

    def __init__(self, unet: nn.Module, *, t_model: int = 20, shifted: bool = False):
        super().__init__()
        if not isinstance(unet, UNet):
            raise BadInput("The feature distance needs a prior that is a U-Net; choose another perceptual term.")
        self.unet = unet.eval().requires_grad_(False)
        self.t_model = t_model  # of 1000; the features of a nearly clean image
        self.period = unet.config.patch << (len(unet.config.channel_mult) - 1) if shifted else 1
        self._scale = float((1 - linear_betas()).cumprod()[t_model]) ** 0.5

    def forward(self, image: Tensor, other: Tensor) -> Tensor:
        """(B, 3, H, W) twice, in [-1, 1], to (B,) distances; gradients reach `image` only."""
        if self.period > 1:
            image, other = self._window(image, other)
            down, right = torch.randint(self.period, (2,)).tolist()
            image, other = moved(image, down, right), moved(other, down, right)
        with torch.no_grad():
            wanted = self._features(other)
        levels = zip(self._features(image), wanted, strict=True)
        return torch.stack([(a - b).square().sum(1).mean((1, 2)) for a, b in levels]).mean(0)

    def _window(self, image: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """A random square of the prior's size, in the same place of both, if they are larger."""
        size = self.unet.config.size
        rooms = [max(0, side - size) for side in image.shape[-2:]]
        top, left = (int(torch.randint(room + 1, ())) for room in rooms)
        return tuple(each[..., top : top + size, left : left + size] for each in (image, other))  # type: ignore[return-value]

    def _features(self, image: Tensor) -> list[Tensor]:
        t = torch.full((len(image),), self.t_model, device=image.device)
        outputs = self.unet.encode(self._scale * image, self.unet.embed(t))
        return [_unit_length(outputs[i]) for i in self.unet.config.level_ends]


def feature_distance(prior: DiffusionPrior) -> Callable[[Tensor, Tensor], Tensor]:
    """The distance in a prior's features, computed on the prior's device; the pictures may be on any device."""
    features, device = PriorFeatures(prior.unet), device_of(prior)
    return lambda image, other: features(image.to(device), other.to(device)).cpu()


def moved(image: Tensor, down: int, right: int) -> Tensor:
    """(B, C, H, W) shifted by `down` and `right` pixels; the pixels that move in repeat the border."""
    height, width = image.shape[-2:]
    return F.pad(image, (right, 0, down, 0), "replicate")[..., :height, :width]


def _unit_length(features: Tensor) -> Tensor:
    features = features.float()
    return features / features.square().sum(1, keepdim=True).add(1e-10).sqrt()
