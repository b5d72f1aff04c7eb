"""The face embedding of the NTIRE 2025 challenge's identity check: a 50-layer residual network trained with AdaFace.

Kim et al., "AdaFace: Quality Adaptive Margin for Face Recognition" (CVPR 2022), on the improved residual blocks of Deng
et al. 2019. State-dict keys are those of the published checkpoints within `model.`; `adaface_state` takes them out.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from unfade.errors import BadInput
from unfade.nets.architecture import of_shapes

SHRINK = 16  # input side over the side of the last features


@dataclass(frozen=True)
class AdaFaceConfig:
    """Shape of an embedding network. The defaults are the published IR-50: 43,585,600 parameters."""

    size: int = 112  # side of the face in px, a multiple of 16
    width: int = 64  # channels of the first stage; doubled at each of the three others
    blocks: tuple[int, int, int, int] = (3, 4, 14, 3)  # residual blocks in each stage, the first of stride 2
    embedding: int = 512  # length of the embedding

    def __post_init__(self) -> None:
        if self.size % SHRINK:
            raise BadInput(f"AdaFace's size must be a multiple of {SHRINK} px, not {self.size}.")


class AdaFace(nn.Module):
    """Aligned faces (B, 3, size, size), BGR in [-1, 1], by ArcFace's template -> (B, embedding), not normalised.

    It is a measure: used in eval mode only, so the published dropout only keeps its place among the keys. Raises
    BadInput on another size.
    """

    def __init__(self, config: AdaFaceConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or AdaFaceConfig()
        widths = [config.width * 2**k for k in range(4)]
        self.input_layer = nn.Sequential(conv3(3, widths[0]), nn.BatchNorm2d(widths[0]), nn.PReLU(widths[0]))
        blocks: list[nn.Module] = []
        for before, after, count in zip([widths[0], *widths], widths, config.blocks, strict=False):
            blocks += [Block(before if k == 0 else after, after, 2 if k == 0 else 1) for k in range(count)]
        self.body = nn.Sequential(*blocks)
        cells = (config.size // SHRINK) ** 2
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(widths[3]),
            nn.Identity(),
            nn.Flatten(),
            nn.Linear(widths[3] * cells, config.embedding),
            nn.BatchNorm1d(config.embedding, affine=False),
        )

    def forward(self, face: Tensor) -> Tensor:
        side = self.config.size
        if face.shape[1:] != (3, side, side):
            raise BadInput(f"AdaFace embeds faces (B, 3, {side}, {side}), not {tuple(face.shape)}: align them first.")
        result: Tensor = self.output_layer(self.body(self.input_layer(face)))
        return result


class Block(nn.Module):
    """BN-conv-BN-PReLU-conv-BN and the shortcut, which is projected where the width changes, else subsampled."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if before != after:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(before),
            conv3(before, after),
            nn.BatchNorm2d(after),
            nn.PReLU(after),
            conv3(after, after, stride),
            nn.BatchNorm2d(after),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.shortcut_layer(x) + self.res_layer(x)
        return result


def conv3(before: int, after: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution without bias, for a normalisation follows."""
    return nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)


def adaface_state(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network alone, without the head that it was trained with."""
    return {key.removeprefix("model."): value for key, value in published.items() if key.startswith("model.")}


ARCHITECTURE = of_shapes(
    "identity",
    ("model.input_layer.0.weight", "model.body.0.res_layer.1.weight", "model.output_layer.3.weight"),
    AdaFace,
    AdaFaceConfig(),
    convert=adaface_state,
)
