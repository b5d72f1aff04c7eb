"""Displacement of the features of a restored face: landmarks from heat maps, and LMD, their mean distance.

Gu et al., "VQFR" (2022), Sec. 4.2, on the 98 points of a stacked-hourglass network (Wang et al., "Adaptive Wing Loss
for Robust Face Alignment via Heatmap Regression", 2019).
"""

import torch
from torch import Tensor, nn

from unfade.metrics.identity import resized_levels
from unfade.nets.fan import FAN, SIZE

MEASURED = 512  # px, side of the face to which distances refer
QUARTER = 0.25  # px of the heat map: how far a point is moved to the higher of its neighbours


class LandmarkDistance(nn.Module):
    """(restored, truth), FFHQ-aligned faces (B, 3, H, W) in [-1, 1] -> LMD (B,) in px of faces of 512 px, float64.

    The network gets the whole aligned picture at 256 px, resized as by OpenCV's default and rounded to 8 bits.
    """

    def __init__(self, net: FAN) -> None:
        super().__init__()
        self.net = net.eval().requires_grad_(False)

    def forward(self, restored: Tensor, truth: Tensor) -> Tensor:
        return landmark_distance(self._points(restored), self._points(truth))

    def _points(self, face: Tensor) -> Tensor:
        levels = ((face.float() + 1) * 127.5).round()
        heat: Tensor = self.net(resized_levels(levels, SIZE) / 255)
        return decode(heat) * (MEASURED / heat.shape[-1])


def decode(heat: Tensor) -> Tensor:
    """Heat maps (B, P, H, W), one for each point -> (B, P, 2), x and y in px of the map, float64.

    The position of the maximum, moved by a quarter of a pixel towards the higher neighbour in x and in y (Newell et al.
    2016, Sec. 3.2), except at the border. The middle of the first pixel is at 0.5, so that multiplying by the ratio of
    sides gives the position in the picture. A map with values that are no numbers gives NaN. Raises ValueError on
    another shape.
    """
    if heat.ndim != 4 or min(heat.shape) < 1:
        raise ValueError(f"expected heat maps (B, P, H, W), got {tuple(heat.shape)}")
    height, width = heat.shape[-2:]
    top = heat.flatten(2).argmax(2)
    x, y = top % width, top // width
    inside = (x > 0) & (x < width - 1) & (y > 0) & (y < height - 1)
    lean_x = _value(heat, x + 1, y) - _value(heat, x - 1, y)
    lean_y = _value(heat, x, y + 1) - _value(heat, x, y - 1)
    lean = torch.stack([lean_x, lean_y], 2).sign() * inside[..., None]
    points = torch.stack([x, y], 2).cpu().double() + 0.5 + QUARTER * lean.cpu().double()  # not every device has float64
    return points.where(~heat.isnan().flatten(2).any(2, keepdim=True).cpu(), torch.nan)


def landmark_distance(restored: Tensor, truth: Tensor) -> Tensor:
    """LMD: the mean distance between points (B, P, 2) and (B, P, 2), in the pixels of the points: (B,), float64.

    The published numbers are in pixels of 512 px faces, not normalized. Raises ValueError on other shapes.
    """
    if restored.shape != truth.shape or restored.ndim != 3 or restored.shape[2] != 2:
        raise ValueError(
            f"expected points of one shape (B, P, 2), got {tuple(restored.shape)} and {tuple(truth.shape)}"
        )
    return (restored.double() - truth.double()).square().sum(2).sqrt().mean(1)


def _value(heat: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The value of each map at one position, (B, P); positions outside are moved to the border."""
    height, width = heat.shape[-2:]
    place = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    return heat.flatten(2).gather(2, place[..., None]).squeeze(2)
