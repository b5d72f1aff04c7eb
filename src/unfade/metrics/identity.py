"""Identity error of a restored face: the angle between its embedding and the truth's, "Deg." in VQFR's tables.

Gu et al., "VQFR: Blind Face Restoration with Vector-Quantized Dictionary and Parallel Decoder" (2022), Sec. 4.2, with
the ArcFace network of nets/arcface.py.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unfade.devices import constant
from unfade.nets.arcface import ArcFace

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
LEAST = 1.0  # degrees; the published mean leaves smaller angles out


class IdentityAngle(nn.Module):
    """(restored, truth), FFHQ-aligned faces (B, 3, H, W) in [-1, 1] -> angles (B,) in degrees, float64.

    The network gets the whole aligned picture in grey, resized and rounded to 8 bits, as in VQFR's script.
    """

    def __init__(self, net: ArcFace) -> None:
        super().__init__()
        self.net = net.eval().requires_grad_(False)

    def forward(self, restored: Tensor, truth: Tensor) -> Tensor:
        return identity_angle(self._embedding(restored), self._embedding(truth))

    def _embedding(self, face: Tensor) -> Tensor:
        result: Tensor = self.net(in_levels(face, self.net.config.size))
        return result


def identity_angle(first: Tensor, second: Tensor) -> Tensor:
    """The angle in degrees, 0..180, between embeddings (B, D) and (B, D): (B,), float64.

    Raises ValueError on different shapes.
    """
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(f"expected embeddings of one shape (B, D), got {tuple(first.shape)} and {tuple(second.shape)}")
    cosine = F.cosine_similarity(first.cpu().double(), second.cpu().double())  # not every device has float64
    return torch.rad2deg(cosine.clamp(-1, 1).arccos())


def in_levels(face: Tensor, size: int) -> Tensor:
    """(B, 3, H, W) in [-1, 1] -> grey (B, 1, size, size) in [-1, 1], 8 bit before and after the bilinear resizing."""
    levels = ((face.float() + 1) * 127.5).round()
    luma = (levels * constant(levels, *LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True).round()
    return resized_levels(luma, size) / 127.5 - 1


def resized_levels(levels: Tensor, size: int) -> Tensor:
    """Levels of 8 bits (B, C, H, W) -> (B, C, size, size), bilinear, rounded to whole levels as OpenCV does."""
    small = F.interpolate(levels, (size, size), mode="bilinear", align_corners=False)
    return (small + 0.5).floor()  # rounds halves up: from 512 to 128 px every fourth value is a half


def published_angles(angles: Sequence[float]) -> list[float]:
    """The angles that enter the published mean: those of at least 1 degree."""
    return [angle for angle in angles if angle >= LEAST]
