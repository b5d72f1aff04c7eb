"""RetinaFace: faces and their five landmarks in a photo, in one pass.

Deng et al., "RetinaFace: Single-Shot Multi-Level Face Localisation in the Wild" (2020), on a ResNet-50 or a MobileNet
of a quarter of the width. State-dict keys are those of the published checkpoints: detection_Resnet50_Final,
and the MobileNet of the "1 MB" detector, which is activated by ReLU. (Other MobileNets of the same keys were trained
with a LeakyReLU of slope 0.1 and are not built here.)
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unfade.errors import BadInput
from unfade.nets.architecture import of_shapes

MEAN = (104.0, 117.0, 123.0)  # of the training pictures, BGR in 0..255: what the published weights expect removed
STRIDES = (8, 16, 32)  # px per cell of the three levels
PER_CELL = 2  # square priors around the centre of each cell
CENTRE, SIZE = 0.1, 0.2  # variances: the unit of the predicted offsets (SSD)
POINTS = 5  # left eye, right eye, nose, left and right corner of the mouth, as seen in the picture

Anchors = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class RetinaFaceConfig:
    """Shape of a detector. The defaults are the published ResNet-50: 27,293,600 parameters."""

    backbone: str = "resnet50"  # a name in BACKBONES
    width: int = 64  # channels of its first layer; the three levels have 8, 16 and 32 times as many
    features: int = 256  # channels of the pyramid, a multiple of 4
    anchors: Anchors = ((16, 32), (64, 128), (256, 512))  # px, sides of the two priors of a cell at each stride

    def __post_init__(self) -> None:
        if self.backbone not in BACKBONES:
            raise BadInput(f"RetinaFace's backbone must be one of {', '.join(BACKBONES)}, not {self.backbone}.")
        if self.features % 4:
            raise BadInput(f"RetinaFace's features must be a multiple of 4, not {self.features}.")


class Offsets(NamedTuple):
    """The network's output for each of the P priors of each photo."""

    boxes: Tensor  # (B, P, 4): centre x, y and log width, height, relative to the prior
    scores: Tensor  # (B, P): the probability of a face
    points: Tensor  # (B, P, 10): x, y of five landmarks, relative to the prior


class RetinaFace(nn.Module):
    """Photos (B, 3, H, W), RGB in [-1, 1], any size -> Offsets from `priors(H, W, anchors=config.anchors)`.

    Raises BadInput on anything but a batch of colour photos.
    """

    mean: Tensor

    def __init__(self, config: RetinaFaceConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or RetinaFaceConfig()
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        f = config.features
        self.body = BACKBONES[config.backbone](config.width)
        self.fpn = Pyramid([k * config.width for k in (8, 16, 32)], f)
        self.ssh1 = Context(f)
        self.ssh2 = Context(f)
        self.ssh3 = Context(f)
        self.ClassHead = heads(f, 2)  # no face, face
        self.BboxHead = heads(f, 4)
        self.LandmarkHead = heads(f, 2 * POINTS)

    def forward(self, photo: Tensor) -> Offsets:
        if photo.ndim != 4 or photo.shape[1] != 3:
            raise BadInput(f"RetinaFace needs photos (B, 3, H, W), not {tuple(photo.shape)}: add the batch dimension.")
        bgr = (photo.flip(1) + 1) * 127.5 - self.mean
        levels = self.fpn(self.body(bgr))
        levels = [ssh(x) for ssh, x in zip((self.ssh1, self.ssh2, self.ssh3), levels, strict=True)]
        boxes, logits, points = (
            torch.cat([head(x) for head, x in zip(group, levels, strict=True)], dim=1)
            for group in (self.BboxHead, self.ClassHead, self.LandmarkHead)
        )
        return Offsets(boxes, logits.softmax(-1)[..., 1], points)


class Pyramid(nn.Module):
    """Three levels of one width, each with what the coarser ones saw added to it."""

    def __init__(self, widths: list[int], features: int) -> None:
        super().__init__()
        self.output1, self.output2, self.output3 = (conv(width, features, kernel=1) for width in widths)
        self.merge1 = conv(features, features)
        self.merge2 = conv(features, features)

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        fine, middle, coarse = self.output1(levels[0]), self.output2(levels[1]), self.output3(levels[2])
        middle = self.merge2(middle + F.interpolate(coarse, middle.shape[-2:], mode="nearest"))
        fine = self.merge1(fine + F.interpolate(middle, fine.shape[-2:], mode="nearest"))
        return [fine, middle, coarse]


class Context(nn.Module):
    """The same cell seen through 3x3, 5x5 and 7x7 windows, side by side (SSH), the larger ones as chains of 3x3."""

    def __init__(self, features: int) -> None:
        super().__init__()
        half, quarter = features // 2, features // 4
        self.conv3X3 = linear_conv(features, half)
        self.conv5X5_1 = conv(features, quarter)
        self.conv5X5_2 = linear_conv(quarter, quarter)
        self.conv7X7_2 = conv(quarter, quarter)
        self.conv7x7_3 = linear_conv(quarter, quarter)

    def forward(self, x: Tensor) -> Tensor:
        shared = self.conv5X5_1(x)
        windows = [self.conv3X3(x), self.conv5X5_2(shared), self.conv7x7_3(self.conv7X7_2(shared))]
        return F.relu(torch.cat(windows, dim=1))


class Head(nn.Module):
    """`values` numbers for each prior of each cell: (B, C, h, w) -> (B, 2 h w, values)."""

    def __init__(self, features: int, values: int) -> None:
        super().__init__()
        self.values = values
        self.conv1x1 = nn.Conv2d(features, PER_CELL * values, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv1x1(x).permute(0, 2, 3, 1).reshape(len(x), -1, self.values)
        return result


class MobileNet(nn.Module):
    """MobileNet v1 up to stride 32: the activations at strides 8, 16 and 32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        w = [width * 2**k for k in range(6)]
        self.stage1 = nn.Sequential(
            conv(3, w[0], stride=2),
            separable(w[0], w[1]),
            separable(w[1], w[2], stride=2),
            separable(w[2], w[2]),
            separable(w[2], w[3], stride=2),
            separable(w[3], w[3]),
        )
        self.stage2 = nn.Sequential(separable(w[3], w[4], stride=2), *(separable(w[4], w[4]) for _ in range(5)))
        self.stage3 = nn.Sequential(separable(w[4], w[5], stride=2), separable(w[5], w[5]))

    def forward(self, x: Tensor) -> list[Tensor]:
        fine = self.stage1(x)
        middle = self.stage2(fine)
        return [fine, middle, self.stage3(middle)]


class ResNet50(nn.Module):
    """ResNet-50 without its classifier: the activations at strides 8, 16 and 32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        w = width
        self.conv1 = nn.Conv2d(3, w, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(w)
        self.layer1 = bottlenecks(w, w, 3, stride=1)
        self.layer2 = bottlenecks(4 * w, 2 * w, 4, stride=2)
        self.layer3 = bottlenecks(8 * w, 4 * w, 6, stride=2)
        self.layer4 = bottlenecks(16 * w, 8 * w, 3, stride=2)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, stride=2, padding=1)
        fine = self.layer2(self.layer1(x))
        middle = self.layer3(fine)
        return [fine, middle, self.layer4(middle)]


class Bottleneck(nn.Module):
    """1x1, 3x3 (which takes the stride) and 1x1 convolutions to four times the width, and the shortcut."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        after = 4 * width
        self.conv1 = nn.Conv2d(before, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, after, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(after)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.downsample = linear_conv(before, after, kernel=1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        residual = F.relu(self.bn1(self.conv1(x)))
        residual = F.relu(self.bn2(self.conv2(residual)))
        return F.relu(self.bn3(self.conv3(residual)) + self.downsample(x))


def bottlenecks(before: int, width: int, blocks: int, *, stride: int) -> nn.Sequential:
    """One layer of a ResNet; its first block may halve the size."""
    first = Bottleneck(before, width, stride)
    return nn.Sequential(first, *(Bottleneck(4 * width, width, 1) for _ in range(blocks - 1)))


def linear_conv(before: int, after: int, *, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution and its batch normalisation."""
    layer = nn.Conv2d(before, after, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(after))


def conv(before: int, after: int, *, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution, its batch normalisation and a ReLU."""
    return linear_conv(before, after, kernel=kernel, stride=stride, groups=groups).append(nn.ReLU())


def separable(before: int, after: int, *, stride: int = 1) -> nn.Sequential:
    """A 3x3 convolution of each channel alone, then a 1x1 convolution of them all."""
    return nn.Sequential(*conv(before, before, stride=stride, groups=before), *conv(before, after, kernel=1))


def heads(features: int, values: int) -> nn.ModuleList:
    """One head for each level."""
    return nn.ModuleList(Head(features, values) for _ in STRIDES)


BACKBONES: dict[str, Callable[[int], nn.Module]] = {"resnet50": ResNet50, "mobilenet": MobileNet}
RESNET50 = RetinaFaceConfig()
MOBILENET025 = RetinaFaceConfig(  # 426,608 parameters, and smaller priors
    backbone="mobilenet",
    width=8,
    features=64,
    anchors=((10, 20), (32, 64), (128, 256)),
)


@dataclass(frozen=True)
class RetinaFaceSettings:
    """Which of the priors count as a face. The defaults are those of CodeFormer's code."""

    min_score: float = 0.8  # probability; facexlib uses 0.97
    overlap: float = 0.4  # intersection over union above which the less probable of two boxes is dropped

    def __post_init__(self) -> None:
        if not (0 <= self.min_score <= 1 and 0 <= self.overlap <= 1):
            raise BadInput(f"min_score and overlap lie in 0..1, but are {self.min_score} and {self.overlap}.")


class Faces(NamedTuple):
    """The N faces of one photo, the most probable first. Positions are in px; (0, 0) is the upper left."""

    boxes: Tensor  # (N, 4): left, top, right, bottom; may reach beyond the photo
    scores: Tensor  # (N,): probability
    points: Tensor  # (N, 5, 2): x, y of left eye, right eye, nose, left and right corner of the mouth


@torch.no_grad()
def detect(net: RetinaFace, photo: Tensor, *, settings: RetinaFaceSettings | None = None) -> list[Faces]:
    """The faces in each photo of a batch (B, 3, H, W), RGB in [-1, 1]. The network is expected in eval mode."""
    settings = settings or RetinaFaceSettings()
    height, width = photo.shape[-2:]
    offsets, anchors = net(photo), priors(height, width, anchors=net.config.anchors).to(photo.device)
    px = torch.tensor([width, height]).to(offsets.boxes)
    return [
        likely(decode_boxes(boxes, anchors) * px.repeat(2), scores, decode_points(points, anchors) * px, settings)
        for boxes, scores, points in zip(*offsets, strict=True)
    ]


def likely(boxes: Tensor, scores: Tensor, points: Tensor, settings: RetinaFaceSettings) -> Faces:
    """Those of one photo's P candidates that are probable enough and not the same face again, on the CPU.

    A GPU would be waited for at each kept face; so it is at the first of these lines only.
    """
    above = (scores > settings.min_score).nonzero()[:, 0]
    boxes, scores, points = (part[above].cpu() for part in (boxes, scores, points))
    kept = suppress(boxes, scores, overlap=settings.overlap)
    return Faces(boxes[kept], scores[kept], points[kept])


def priors(height: int, width: int, *, anchors: Anchors) -> Tensor:
    """(P, 4): centre x, y, width and height of each prior, in fractions of a photo of that many px.

    Level by level, row by row; the two priors of a cell lie side by side. The sides of a cell's priors are equal in px.
    """
    return torch.cat([level_priors(height, width, *level) for level in zip(STRIDES, anchors, strict=True)])


def level_priors(height: int, width: int, stride: int, sides: tuple[int, ...]) -> Tensor:
    """The priors of one level: a cell is there even if only part of it lies in the photo."""
    rows, columns = -(-height // stride), -(-width // stride)
    y, x, side = torch.meshgrid(
        (torch.arange(rows, dtype=torch.float64) + 0.5) * stride,
        (torch.arange(columns, dtype=torch.float64) + 0.5) * stride,
        torch.tensor(sides, dtype=torch.float64),
        indexing="ij",
    )
    return torch.stack([x / width, y / height, side / width, side / height], dim=-1).reshape(-1, 4).float()


def decode_boxes(offsets: Tensor, priors: Tensor) -> Tensor:
    """(P, 4) offsets -> left, top, right, bottom in fractions of the photo (Liu et al., "SSD" (2016), Eq. 2)."""
    centre = priors[:, :2] + offsets[:, :2] * CENTRE * priors[:, 2:]
    half = priors[:, 2:] * (offsets[:, 2:] * SIZE).exp() / 2
    return torch.cat([centre - half, centre + half], dim=1)


def decode_points(offsets: Tensor, priors: Tensor) -> Tensor:
    """(P, 10) offsets -> (P, 5, 2) landmarks in fractions of the photo."""
    return priors[:, None, :2] + offsets.reshape(-1, POINTS, 2) * CENTRE * priors[:, None, 2:]


def suppress(boxes: Tensor, scores: Tensor, *, overlap: float = 0.4) -> Tensor:
    """Greedy non-maximum suppression: indices of the kept boxes, the most probable first.

    `boxes` is (N, 4) in px, `scores` (N,). A box is dropped if it overlaps a more probable kept one by more than
    `overlap` (intersection over union); of equal scores the earlier one counts as more probable.
    """
    order = scores.argsort(descending=True, stable=True)
    kept = order[:0]
    while len(order):
        first, order = order[:1], order[1:]
        kept = torch.cat([kept, first])
        order = order[overlaps(boxes[first], boxes[order]) <= overlap]
    return kept


def overlaps(box: Tensor, boxes: Tensor) -> Tensor:
    """Intersection over union of (1, 4) with (N, 4) boxes: (N,). The last pixel belongs to a box, as published."""
    top_left = torch.maximum(box[:, :2], boxes[:, :2])
    bottom_right = torch.minimum(box[:, 2:], boxes[:, 2:])
    common = (bottom_right - top_left + 1).clamp(min=0).prod(1)
    return common / (area(box) + area(boxes) - common)


def area(boxes: Tensor) -> Tensor:
    """Pixels of (N, 4) boxes whose last pixel belongs to them: (N,)."""
    return (boxes[:, 2:] - boxes[:, :2] + 1).prod(1)


RESNET50_ARCHITECTURE = of_shapes(
    "detector", ("body.layer1.0.conv1.weight", "ClassHead.0.conv1x1.weight"), RetinaFace, RESNET50
)
MOBILENET025_ARCHITECTURE = of_shapes(
    "detector", ("body.stage1.0.0.weight", "ClassHead.0.conv1x1.weight"), RetinaFace, MOBILENET025
)
