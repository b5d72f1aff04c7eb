"""The face alignment network: stacked hourglasses that draw a heat map for each of 98 landmarks (WFLW).

Wang et al., "Adaptive Wing Loss for Robust Face Alignment via Heatmap Regression" (ICCV 2019): the network of Bulat &
Tzimiropoulos (ICCV 2017) with coordinates as channels (Liu et al., 2018), and from the second hourglass on those of the
face's boundary, which the one before has drawn. State-dict keys are those of the file that facexlib (MIT) publishes.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unfade.nets.architecture import of_shapes

SIZE = 256  # px that the network sees
WIDTH = 256  # channels of the hourglasses
BOUNDARY = 0.05  # a boundary map above this is boundary


@dataclass(frozen=True)
class FANConfig:
    """The published size."""

    landmarks: int = 98
    hourglasses: int = 4
    depth: int = 4  # halvings within an hourglass


class FAN(nn.Module):
    """(B, 3, 256, 256), RGB in [0, 1] -> heat maps (B, landmarks, 64, 64)."""

    def __init__(self, config: FANConfig = FANConfig()) -> None:
        super().__init__()
        self.config = config
        maps = config.landmarks + 1  # the last is the boundary
        self.conv1 = CoordConv(3 + 3, 64, 7, stride=2)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2, self.conv3, self.conv4 = Block(64, 128), Block(128, 128), Block(128, WIDTH)
        for k in range(config.hourglasses):
            self.add_module(f"m{k}", Hourglass(config.depth, first=k == 0))
            self.add_module(f"top_m_{k}", Block(WIDTH, WIDTH))
            self.add_module(f"conv_last{k}", nn.Conv2d(WIDTH, WIDTH, 1))
            self.add_module(f"bn_end{k}", nn.BatchNorm2d(WIDTH))
            self.add_module(f"l{k}", nn.Conv2d(WIDTH, maps, 1))
            if k < config.hourglasses - 1:
                self.add_module(f"bl{k}", nn.Conv2d(WIDTH, WIDTH, 1))
                self.add_module(f"al{k}", nn.Conv2d(maps, WIDTH, 1))

    def forward(self, face: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(face)))
        x = self.conv4(self.conv3(F.avg_pool2d(self.conv2(x), 2)))
        part = dict(self.named_children())
        maps: Tensor | None = None
        for k in range(self.config.hourglasses):
            seen = part[f"top_m_{k}"](part[f"m{k}"](x, maps))
            seen = F.relu(part[f"bn_end{k}"](part[f"conv_last{k}"](seen)))
            maps = part[f"l{k}"](seen)
            if f"bl{k}" in part:
                x = x + part[f"bl{k}"](seen) + part[f"al{k}"](maps)
        assert maps is not None
        points: Tensor = maps[:, :-1]
        return points


class CoordConv(nn.Module):
    """A convolution that sees where it is: row, column and distance from the middle, and those of a boundary."""

    def __init__(self, channels: int, width: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, kernel, stride, kernel // 2)

    def forward(self, x: Tensor, boundary: Tensor | None = None) -> Tensor:
        rows, columns = (torch.linspace(-1, 1, side, device=x.device, dtype=x.dtype) for side in x.shape[-2:])
        place = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
        distance = place.square().sum(0, keepdim=True).sqrt()
        where = torch.cat([place, distance / distance.amax()]).expand(len(x), -1, -1, -1)
        seen = [x, where]
        if boundary is not None:
            seen.append(where[:, :2] * (boundary > BOUNDARY))
        result: Tensor = self.conv(torch.cat(seen, 1))
        return result


class Hourglass(nn.Module):
    """Halves and doubles again, adding what each size has seen; `maps` are those of the hourglass before."""

    def __init__(self, depth: int, *, first: bool) -> None:
        super().__init__()
        self.depth = depth
        self.coordconv = CoordConv(WIDTH + 3 + (0 if first else 2), WIDTH, 1)
        for level in range(depth, 0, -1):
            for name in ("b1", "b2", "b3"):
                self.add_module(f"{name}_{level}", Block(WIDTH, WIDTH))
        self.b2_plus_1 = Block(WIDTH, WIDTH)

    def forward(self, x: Tensor, maps: Tensor | None) -> Tensor:
        return self._level(self.depth, self.coordconv(x, None if maps is None else maps[:, -1:]))

    def _level(self, level: int, x: Tensor) -> Tensor:
        beside, before, after = (getattr(self, f"{name}_{level}") for name in ("b1", "b2", "b3"))
        low = before(F.avg_pool2d(x, 2))
        low = after(self._level(level - 1, low) if level > 1 else self.b2_plus_1(low))
        result: Tensor = beside(x) + F.interpolate(low, scale_factor=2.0, mode="nearest")
        return result


class Block(nn.Module):
    """Three convolutions in a row, normalised before each; their results side by side, and a residual."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        widths = (before, after // 2, after // 4)
        for k, (wide, narrow) in enumerate(zip(widths, (after // 2, after // 4, after // 4), strict=True), start=1):
            self.add_module(f"bn{k}", nn.BatchNorm2d(wide))
            self.add_module(f"conv{k}", nn.Conv2d(wide, narrow, 3, padding=1, bias=False))
        self.downsample: nn.Module = nn.Identity()
        if before != after:
            self.downsample = nn.Sequential(nn.BatchNorm2d(before), nn.ReLU(), nn.Conv2d(before, after, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        seen = [x]
        for k in (1, 2, 3):
            normal, conv = getattr(self, f"bn{k}"), getattr(self, f"conv{k}")
            seen.append(conv(F.relu(normal(seen[-1]))))
        result: Tensor = torch.cat(seen[1:], 1) + self.downsample(x)
        return result


ARCHITECTURE = of_shapes(
    "landmarks",
    ("m0.coordconv.conv.weight", "l0.weight"),
    FAN,
    FANConfig(),
)
