"""The Bayer network of Gharbi et al., "Deep Joint Demosaicking and Denoising" (SIGGRAPH Asia 2016).

In the shape of the published `bayer.pth` (mgharbi/demosaicnet): its keys, 560,886 numbers. It differs from the paper's
network in two ways: it gets no noise level, and its last layer at half size is a product, features times masks.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unfade.nets.architecture import Architecture, count

TILE = 2  # side of the Bayer pattern


class BayerDemosaicNet(nn.Module):
    """(B, 3, h, w) RGB in [0, 1], 0 where a colour was not measured -> (B, 3, h, w) RGB, about [0, 1], not clipped.

    The pattern is G R / B G from the upper left corner. Sides of at least 2 pixels; odd ones are continued by their
    mirror image to whole tiles. As the paper's authors use it, every convolution sees zeros around its picture, so the
    outermost pixels are less sure than the others.
    """

    def __init__(self, *, depth: int = 15, width: int = 64) -> None:
        super().__init__()
        self.main_processor = nn.Sequential(half_size_layers(depth, width))
        self.residual_predictor = nn.Conv2d(width, 3 * TILE**2, 1)
        self.upsampler = nn.ConvTranspose2d(3 * TILE**2, 3, TILE, stride=TILE, groups=3)
        post_conv = nn.Conv2d(6, width, 3, padding=1)
        last = {"post_conv": post_conv, "post_relu": nn.ReLU(), "output": nn.Conv2d(width, 3, 1)}
        self.fullres_processor = nn.Sequential(OrderedDict(last))

    def forward(self, mosaic: Tensor) -> Tensor:
        height, width = mosaic.shape[-2:]
        whole = F.pad(mosaic, (0, width % TILE, 0, height % TILE), mode="reflect")
        features, masks = self.main_processor(whole).chunk(2, dim=1)
        upsampled = self.upsampler(self.residual_predictor(features * masks))
        colours: Tensor = self.fullres_processor(torch.cat([whole, upsampled], dim=1))
        return colours[..., :height, :width]


def half_size_layers(depth: int, width: int) -> OrderedDict[str, nn.Module]:
    """One tile of the mosaic becomes one pixel; then `depth` convolutions, the last of twice the width."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(pack_mosaic=nn.Conv2d(3, TILE**2, TILE, stride=TILE))
    before = TILE**2
    for k in range(1, depth + 1):
        after = 2 * width if k == depth else width
        layers[f"conv{k}"] = nn.Conv2d(before, after, 3, padding=1)
        layers[f"relu{k}"] = nn.ReLU()
        before = after
    return layers


ARCHITECTURE = Architecture(
    "demosaic",
    ("main_processor.pack_mosaic.weight", "upsampler.weight"),
    lambda config: BayerDemosaicNet(**config),
    lambda state: [
        {
            "depth": count(state, r"main_processor\.conv(\d+)\.weight"),
            "width": state["residual_predictor.weight"].shape[1],
        }
    ],
)
