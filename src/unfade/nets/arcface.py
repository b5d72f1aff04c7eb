"""The face embedding behind the identity angle: an 18-layer residual network trained with ArcFace.

Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition" (2019), with its improved residual block,
one grey channel and no squeeze-excitation. State-dict keys are those of the published checkpoints.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from unfade.devices import constant
from unfade.errors import BadInput
from unfade.nets.architecture import of_shapes

LUMA = (0.2989, 0.5870, 0.1140)  # ITU-R BT.601, as rounded by the published code
SHRINK = 16  # input side over the side of the last features: one pooling, three strides


@dataclass(frozen=True)
class ArcFaceConfig:
    """Shape of an embedding network. The defaults are the published ResNet-18: 25,627,081 parameters."""

    size: int = 128  # side of the grey face in px, a multiple of 16
    width: int = 64  # channels of the first stage; doubled at each of the three others
    blocks: tuple[int, int, int, int] = (2, 2, 2, 2)  # residual blocks in each stage
    embedding: int = 512  # length of the embedding

    def __post_init__(self) -> None:
        if self.size % SHRINK:
            raise BadInput(f"ArcFace's size must be a multiple of {SHRINK} px, not {self.size}.")


class ArcFace(nn.Module):
    """Grey aligned faces (B, 1, size, size) in [-1, 1] -> (B, embedding), not normalised; `grey` makes the input.

    It is a measure: used in eval mode only, so the published dropout before the last layer is left out. Raises BadInput
    on another size or number of channels.
    """

    def __init__(self, config: ArcFaceConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ArcFaceConfig()
        w1, w2, w3, w4 = (config.width * 2**k for k in range(4))
        n1, n2, n3, n4 = config.blocks
        self.conv1 = conv3(1, w1)
        self.bn1 = nn.BatchNorm2d(w1)
        self.prelu = nn.PReLU()
        self.layer1 = stage(w1, w1, n1, stride=1)
        self.layer2 = stage(w1, w2, n2, stride=2)
        self.layer3 = stage(w2, w3, n3, stride=2)
        self.layer4 = stage(w3, w4, n4, stride=2)
        self.bn4 = nn.BatchNorm2d(w4)
        self.fc5 = nn.Linear(w4 * (config.size // SHRINK) ** 2, config.embedding)
        self.bn5 = nn.BatchNorm1d(config.embedding)

    def forward(self, face: Tensor) -> Tensor:
        side = self.config.size
        if face.shape[1:] != (1, side, side):
            raise BadInput(
                f"ArcFace embeds grey faces (B, 1, {side}, {side}), not {tuple(face.shape)}: use grey first."
            )
        x = F.max_pool2d(self.prelu(self.bn1(self.conv1(face))), 2)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        result: Tensor = self.bn5(self.fc5(self.bn4(x).flatten(1)))
        return result


class IRBlock(nn.Module):
    """BN-conv-BN-PReLU-conv-BN and the shortcut, activated after the sum by the same PReLU."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm2d(before)
        self.conv1 = conv3(before, before)
        self.bn1 = nn.BatchNorm2d(before)
        self.prelu = nn.PReLU()
        self.conv2 = conv3(before, after, stride)
        self.bn2 = nn.BatchNorm2d(after)
        self.downsample: nn.Module | None = None
        if stride != 1 or before != after:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        residual = self.prelu(self.bn1(self.conv1(self.bn0(x))))
        result: Tensor = self.prelu(self.bn2(self.conv2(residual)) + shortcut)
        return result


def stage(before: int, after: int, blocks: int, *, stride: int) -> nn.Sequential:
    """Residual blocks of one width; the first may change width and size."""
    return nn.Sequential(IRBlock(before, after, stride), *(IRBlock(after, after, 1) for _ in range(blocks - 1)))


def conv3(before: int, after: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution without bias, for a normalisation follows."""
    return nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)


def grey(face: Tensor, size: int = 128) -> Tensor:
    """(B, 3, H, W), RGB in [-1, 1] -> (B, 1, size, size), bilinear without antialiasing, as GFPGAN does."""
    luma = (face * constant(face, *LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    return F.interpolate(luma, (size, size), mode="bilinear", align_corners=False)


ARCHITECTURE = of_shapes(
    "identity",
    ("conv1.weight", "prelu.weight", "fc5.weight"),
    ArcFace,
    ArcFaceConfig(),
)
