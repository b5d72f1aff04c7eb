"""The face embedding that dlib calls dlib_face_recognition_resnet_model_v1, on which the identity distance rests.

King, "dlib-models" (2017): the residual network of 34 layers of He et al., "Deep Residual Learning for Image
Recognition" (2016), with some layers left out (29 convolutions stay) and half as many filters in each.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from unfade.devices import constant
from unfade.errors import BadInput
from unfade.nets.architecture import of_shapes

SIDE = 150  # px, side of the chip
MEAN = (122.782, 117.001, 104.298)  # RGB in 0..255, of its training pictures
RANGE = 256  # levels that become a range of 1


@dataclass(frozen=True)
class DlibFaceConfig:
    """Shape of the network. The defaults are the published one: 5,607,488 parameters."""

    widths: tuple[int, ...] = (32, 64, 128, 256, 256)  # channels of each stage; all but the first halve the sides
    blocks: tuple[int, ...] = (3, 4, 3, 3, 1)  # residual blocks in each stage
    embedding: int = 128  # length of the embedding


class DlibFace(nn.Module):
    """Chips of faces (B, 3, 150, 150), RGB in [-1, 1] -> (B, embedding), not normalised.

    The Euclidean distance of two embeddings measures how different two people are. The affine layers that replace the
    batch normalisation of the training are part of the convolutions here. Raises BadInput on another size.
    """

    def __init__(self, config: DlibFaceConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DlibFaceConfig()
        self.first = nn.Conv2d(3, config.widths[0], 7, stride=2)
        stages: list[nn.Module] = []
        before = config.widths[0]
        for number, (width, count) in enumerate(zip(config.widths, config.blocks, strict=True)):
            stages += [Block(before if k == 0 else width, width, halves=number > 0 and k == 0) for k in range(count)]
            before = width
        self.blocks = nn.Sequential(*stages)
        self.last = nn.Linear(before, config.embedding, bias=False)

    def forward(self, chips: Tensor) -> Tensor:
        if chips.shape[1:] != (3, SIDE, SIDE):
            raise BadInput(f"This network embeds chips (B, 3, {SIDE}, {SIDE}), not {tuple(chips.shape)}: align first.")
        levels = (chips + 1) * 127.5
        x = self.first((levels - constant(levels, *MEAN).view(1, 3, 1, 1)) / RANGE)
        x = self.blocks(F.max_pool2d(F.relu(x), 3, stride=2))
        result: Tensor = self.last(x.mean((2, 3)))
        return result


class Block(nn.Module):
    """conv-ReLU-conv and the shortcut, added and activated; one that halves pools its shortcut."""

    def __init__(self, before: int, after: int, *, halves: bool) -> None:
        super().__init__()
        self.halves = halves
        self.conv1 = nn.Conv2d(before, after, 3, stride=2 if halves else 1, padding=0 if halves else 1)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = F.avg_pool2d(x, 2) if self.halves else x
        return F.relu(padded_sum(self.conv2(F.relu(self.conv1(x))), shortcut))


def padded_sum(first: Tensor, second: Tensor) -> Tensor:
    """The sum of (B, C, H, W) and (B, D, I, J), each with zeros after its channels, rows and columns to fit the other.

    So dlib adds: a shortcut has fewer channels than its block, and of 8 px a pooling makes 4 where a convolution
    without padding makes 3.
    """
    full = [max(pair) for pair in zip(first.shape, second.shape, strict=True)]
    return _padded(first, full) + _padded(second, full)


def _padded(x: Tensor, full: list[int]) -> Tensor:
    missing = [want - have for want, have in zip(full, x.shape, strict=True)]
    return F.pad(x, (0, missing[3], 0, missing[2], 0, missing[1]))


ARCHITECTURE = of_shapes(
    "identity",
    ("first.weight", "blocks.0.conv1.weight", "last.weight"),
    DlibFace,
    DlibFaceConfig(),
)
