"""The colours of one picture and the detail of another: the undecimated wavelet transform ("a trous")."""

import torch
from torch import Tensor
from torch.nn import functional as F

from unfade.devices import constant

LEVELS = 5  # as in StableSR (Wang et al., 2024) and DiffBIR: structures below about 32 px count as detail
TAPS = (0.25, 0.5, 0.25)  # the linear spline, on each axis


def with_colours_of(image: Tensor, reference: Tensor) -> Tensor:
    """The detail of `image` on the low frequencies of `reference`, both (B, C, H, W); not clamped.

    All wavelet bands but the last add up to the picture minus its low frequencies, so only the latter are computed.
    """
    return image + coarse(reference - image)


def coarse(image: Tensor, *, levels: int = LEVELS) -> Tensor:
    """The low frequencies that remain of (B, C, H, W) after `levels` of the transform; borders are repeated.

    Level i smooths with holes of 2^i pixels between the taps, on each axis.
    """
    channels = image.shape[1]
    taps = constant(image, *TAPS)
    kernel = torch.outer(taps, taps).expand(channels, 1, 3, 3)
    with torch.autocast(image.device.type, enabled=False):  # bfloat16 would lose levels of colour
        for level in range(levels):
            hole = 1 << level
            padded = F.pad(image, (hole, hole, hole, hole), mode="replicate")
            image = F.conv2d(padded, kernel, groups=channels, dilation=hole)
    return image
