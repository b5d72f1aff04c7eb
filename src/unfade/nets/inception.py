"""The features behind FID and KID: Inception v3 as the TensorFlow graph of 2015-12-05 has it.

Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (2016), Fig. 5 to 7 and Table 1. That graph
differs from the paper's network: the average poolings of its blocks do not count the padding, its last block pools by
maximum, it has 1008 classes. State-dict keys are those of the published file, which are torchvision's.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unfade.nets.architecture import of_shapes

SEEN = 299  # px, side of what the network sees
Kernel = tuple[int, int]  # height, width
Step = tuple[int, Kernel] | tuple[int, Kernel, Kernel]  # channels and kernel; with two kernels, two convolutions fork
Chains = Mapping[str, tuple[Step, ...]]  # name of a branch -> the convolutions that follow one another in it

POINT, SQUARE3, SQUARE5 = (1, 1), (3, 3), (5, 5)
ROW3, COLUMN3, ROW7, COLUMN7 = (1, 3), (3, 1), (1, 7), (7, 1)
average = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
maximum = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)
halve = partial(F.max_pool2d, kernel_size=3, stride=2)


@dataclass(frozen=True)
class InceptionConfig:
    """Shape of the network. The defaults are the published one: 23,850,960 parameters with the classifier."""

    width: float = 1.0  # times the paper's channels, all of which are multiples of 16
    classes: int = 1008  # of the classifier, which the features do without

    @property
    def features(self) -> int:
        """Length of what the network gives."""
        return round(2048 * self.width)


class Inception(nn.Module):
    """Pictures (B, 3, H, W), RGB in [-1, 1] -> (B, 2048) features; `seen` brings them to 299 px first.

    A measure: it wants eval mode. `fc`, the classifier, is there because the published file has it.
    """

    def __init__(self, config: InceptionConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or InceptionConfig()
        w = config.width
        self.Conv2d_1a_3x3 = conv(3, 32 * w, SQUARE3, stride=2, padding=(0, 0))
        self.Conv2d_2a_3x3 = conv(32 * w, 32 * w, SQUARE3, padding=(0, 0))
        self.Conv2d_2b_3x3 = conv(32 * w, 64 * w, SQUARE3)
        self.Conv2d_3b_1x1 = conv(64 * w, 80 * w, POINT)
        self.Conv2d_4a_3x3 = conv(80 * w, 192 * w, SQUARE3, padding=(0, 0))
        self.Mixed_5b = Mixed(192, squares(32), w)
        self.Mixed_5c = Mixed(256, squares(64), w)
        self.Mixed_5d = Mixed(288, squares(64), w)
        self.Mixed_6a = Mixed(288, SHRINKING_SQUARES, w, halving=True)
        self.Mixed_6b = Mixed(768, lines(128), w)
        self.Mixed_6c = Mixed(768, lines(160), w)
        self.Mixed_6d = Mixed(768, lines(160), w)
        self.Mixed_6e = Mixed(768, lines(192), w)
        self.Mixed_7a = Mixed(768, SHRINKING_LINES, w, halving=True)
        self.Mixed_7b = Mixed(1280, FORKS, w)
        self.Mixed_7c = Mixed(2048, FORKS, w, by_maximum=True)
        self.fc = nn.Linear(config.features, config.classes)

    def forward(self, image: Tensor) -> Tensor:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(seen(image))))
        x = halve(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(halve(x))))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        result: Tensor = x.mean((2, 3))
        return result


class Mixed(nn.Module):
    """Branches side by side, each a chain of convolutions; the last begins with a pooling, or is one if it halves."""

    def __init__(
        self, before: int, chains: Chains, width: float, *, halving: bool = False, by_maximum: bool = False
    ) -> None:
        super().__init__()
        self.names = {name: [list(_names(name, steps, i)) for i in range(len(steps))] for name, steps in chains.items()}
        self.pool = maximum if by_maximum else average
        self.halving = halving
        for branch, steps in chains.items():
            channels = before
            for i, (after, *kernels) in enumerate(steps):
                stride = 2 if halving and i == len(steps) - 1 else 1
                for name, kernel in zip(self.names[branch][i], kernels, strict=True):
                    self.add_module(name, conv(channels * width, after * width, kernel, stride=stride))
                channels = after

    def forward(self, x: Tensor) -> Tensor:
        outputs = [self._along(branch, self.pool(x) if branch == POOLED else x) for branch in self.names]
        return torch.cat([*outputs, halve(x)] if self.halving else outputs, 1)

    def _along(self, branch: str, x: Tensor) -> Tensor:
        for names in self.names[branch]:
            x = torch.cat([self.get_submodule(name)(x) for name in names], 1)
        return x


def _names(branch: str, steps: tuple[Step, ...], i: int) -> Iterator[str]:
    """Of the convolutions of one step: branch1x1, branch7x7_2, branch3x3_2a and branch3x3_2b."""
    number = f"_{i + 1}" if len(steps) > 1 else ""
    yield from (f"{branch}{number}{letter}" for letter in ("ab" if len(steps[i]) > 2 else ("",)))


class Normalised(nn.Module):
    """Convolution, normalisation, ReLU."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        self.bn = nn.BatchNorm2d(conv.out_channels, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


def conv(before: float, after: float, kernel: Kernel, *, stride: int = 1, padding: Kernel | None = None) -> Normalised:
    """Padded so that the size stays, but for what halves it: that has no padding."""
    if padding is None:
        padding = (kernel[0] // 2, kernel[1] // 2) if stride == 1 else (0, 0)
    return Normalised(nn.Conv2d(round(before), round(after), kernel, stride, padding, bias=False))


POOLED = "branch_pool"


def squares(pooled: int) -> Chains:
    """Fig. 5: a 5x5 and two 3x3 convolutions beside each other, at 35 x 35."""
    return {
        "branch1x1": ((64, POINT),),
        "branch5x5": ((48, POINT), (64, SQUARE5)),
        "branch3x3dbl": ((64, POINT), (96, SQUARE3), (96, SQUARE3)),
        POOLED: ((pooled, POINT),),
    }


def lines(c: int) -> Chains:
    """Fig. 6 with n = 7: convolutions along rows and columns, at 17 x 17."""
    return {
        "branch1x1": ((192, POINT),),
        "branch7x7": ((c, POINT), (c, ROW7), (192, COLUMN7)),
        "branch7x7dbl": ((c, POINT), (c, COLUMN7), (c, ROW7), (c, COLUMN7), (192, ROW7)),
        POOLED: ((192, POINT),),
    }


# Fig. 10: smaller and deeper at once
SHRINKING_SQUARES: Chains = {
    "branch3x3": ((384, SQUARE3),),
    "branch3x3dbl": ((64, POINT), (96, SQUARE3), (96, SQUARE3)),
}
SHRINKING_LINES: Chains = {
    "branch3x3": ((192, POINT), (320, SQUARE3)),
    "branch7x7x3": ((192, POINT), (192, ROW7), (192, COLUMN7), (192, SQUARE3)),
}
FORKS: Chains = {  # Fig. 7: at 8 x 8 the filter banks widen
    "branch1x1": ((320, POINT),),
    "branch3x3": ((384, POINT), (384, ROW3, COLUMN3)),
    "branch3x3dbl": ((448, POINT), (384, SQUARE3), (384, ROW3, COLUMN3)),
    POOLED: ((192, POINT),),
}


def seen(image: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 3, 299, 299), bilinear without antialiasing: a picture of that size is not changed."""
    if image.shape[-2:] == (SEEN, SEEN):
        return image
    return F.interpolate(image, (SEEN, SEEN), mode="bilinear", align_corners=False)


def inception_state(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published tensors, with the counters of normalisations, which older files lack and nothing reads."""
    means = [key for key in published if key.endswith(".bn.running_mean")]
    counters = {key.replace("running_mean", "num_batches_tracked"): torch.tensor(0) for key in means}
    return {**counters, **published}


ARCHITECTURE = of_shapes(
    "features",
    ("Conv2d_1a_3x3.conv.weight", "Mixed_7c.branch_pool.conv.weight", "fc.weight"),
    Inception,
    InceptionConfig(),
    convert=inception_state,
)
