"""VQFR, version 2: a face made of the entries of a codebook of clean textures, bent towards the degraded one.

Gu et al., "VQFR: Blind Face Restoration with Vector-Quantized Dictionary and Parallel Decoder" (2022), as published
later with predicted codes. State-dict keys are those of the published checkpoint. The main branch needs torchvision
(extra `vqfr`) for its deformable convolutions; the rest, and a fidelity of 0, do without it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unfade.errors import BadInput, UnfadeError
from unfade.nets import vqgan
from unfade.nets.architecture import of_shapes
from unfade.nets.vqgan import Attention, Downsample, Quantizer, Upsample, conv, norm

NOT_IN_FORWARD = ("encoder", "feat2index")  # submodules that an image gives no gradient: they choose the codes


@dataclass(frozen=True)
class VQFRConfig:
    """Shape of a VQFR. The defaults are the published version 2: 83,486,539 parameters, 512 px faces, 16 x 16 codes."""

    size: int = 512  # side of the face, px
    channels: int = 64  # of the finest level
    channel_mult: tuple[int, ...] = (1, 2, 2, 4, 4, 8)  # channels of each level over `channels`, finest first
    res_blocks: int = 2  # in each level; at the coarsest one each has attention after it
    codes: int = 1024  # entries of the codebook
    code_channels: int = 256  # length of an entry
    input_channels: int = 32  # of the features that the main branch sees of the degraded face
    deformable_groups: int = 4  # parts of the channels that are bent each in its own way

    def __post_init__(self) -> None:
        coarsest = 2 ** (len(self.channel_mult) - 1)
        if self.size % coarsest:
            raise BadInput(
                f"A VQFR of {len(self.channel_mult)} levels needs a size divisible by {coarsest}, not {self.size}: "
                "change size or channel_mult."
            )
        if any(width % 32 or width % self.deformable_groups for width in self.widths):
            raise BadInput(
                f"A VQFR's widths must be multiples of 32 and of its {self.deformable_groups} deformable groups, "
                f"not {self.widths}: change channels or deformable_groups."
            )

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level, finest first."""
        return tuple(self.channels * factor for factor in self.channel_mult)

    @property
    def grid(self) -> int:
        """Side of the grid of codes."""
        return self.size >> (len(self.channel_mult) - 1)


class VQFR(nn.Module):
    """Degraded face (B, 3, size, size), RGB in [-1, 1] -> restored face, same shape, about [-1, 1], not clamped.

    Raises BadInput on another size or a fidelity outside 0..1, UnfadeError where torchvision is missing.
    """

    def __init__(self, config: VQFRConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or VQFRConfig()
        self.encoder = Encoder(config)
        self.feat2index = nn.Sequential(
            nn.LayerNorm(config.code_channels), nn.Linear(config.code_channels, config.codes)
        )
        self.decoder = TextureDecoder(config)
        self.main_branch = MainBranch(config)
        self.inpfeat_extraction = conv(3, config.input_channels)
        self.quantizer = Quantizer(config.codes, config.code_channels)

    def forward(self, face: Tensor, fidelity: float = 1.0) -> Tensor:
        """`fidelity` in 0..1 weighs the main branch: 0 for textures of the codebook alone, 1 for the closest to the
        input.
        """
        return self.decode(self.predict_codes(face), face, fidelity=fidelity)

    def encode(self, face: Tensor) -> Tensor:
        """The latent of a face: (B, 3, size, size) -> (B, code_channels, grid, grid)."""
        self._check(face)
        latent: Tensor = self.encoder(face)
        return latent

    def logits(self, latent: Tensor) -> Tensor:
        """How likely each code is in each cell: (B, code_channels, grid, grid) -> (B, grid * grid, codes)."""
        result: Tensor = self.feat2index(latent.flatten(2).transpose(1, 2))
        return result

    def predict_codes(self, face: Tensor) -> Tensor:
        """The most likely codes of a clean version of this face: (B, grid * grid) int64, row order."""
        return self.logits(self.encode(face)).argmax(2)

    def textures(self, codes: Tensor) -> list[Tensor]:
        """What the texture decoder makes of (B, grid * grid) codes at each level, coarsest first: (B, width, s, s)."""
        maps: list[Tensor] = self.decoder(self.quantizer.lookup(codes))
        return maps

    def decode_textures(self, codes: Tensor) -> Tensor:
        """The face of the codes alone, whatever the input looked like: (B, 3, size, size)."""
        return self.decoder.image(self.textures(codes)[-1])

    def decode(self, codes: Tensor, face: Tensor, *, fidelity: float = 1.0) -> Tensor:
        """The face of the codes, its textures bent to where the degraded `face` has them (parallel decoder)."""
        if not 0 <= fidelity <= 1:
            raise BadInput(f"VQFR's fidelity must lie in 0..1, got {fidelity}.")
        if fidelity == 0:
            return self.decode_textures(codes)
        self._check(face)
        textures = self.textures(codes)
        main = self.main_branch(textures, self.inpfeat_extraction(face))
        return self.decoder.image(textures[-1] + fidelity * main)

    def _check(self, face: Tensor) -> None:
        size = self.config.size
        if tuple(face.shape[1:]) != (3, size, size):
            raise BadInput(
                f"This VQFR restores faces of (3, {size}, {size}), got {tuple(face.shape[1:])}: resize them first."
            )


class Encoder(nn.Module):
    """Face to latent: (B, 3, size, size) -> (B, code_channels, grid, grid)."""

    def __init__(self, config: VQFRConfig) -> None:
        super().__init__()
        widths = config.widths
        self.conv_in = conv(3, widths[0])
        self.blocks = nn.ModuleList([level(widths[0], widths[0], config.res_blocks, attention=len(widths) == 1)])
        for width, out in pairwise(widths):
            attention = len(self.blocks) == len(widths) - 1
            self.blocks.append(level(width, out, config.res_blocks, Downsample(width), attention=attention))
        self.mid_blocks = middle(widths[-1])
        self.conv_out = activated(widths[-1], config.code_channels)

    def forward(self, face: Tensor) -> Tensor:
        x = self.conv_in(face)
        for block in self.blocks:
            x = block(x)
        latent: Tensor = self.conv_out(self.mid_blocks(x))
        return latent


class TextureDecoder(nn.Module):
    """Latent to features: (B, code_channels, grid, grid) -> one (B, width, side, side) per level, coarsest first."""

    def __init__(self, config: VQFRConfig) -> None:
        super().__init__()
        widths = config.widths[::-1]
        self.conv_in = conv(config.code_channels, widths[0])
        self.blocks = nn.ModuleList([level(widths[0], widths[0], config.res_blocks, attention=True)])
        for width, out in pairwise(widths):
            self.blocks.append(level(width, out, config.res_blocks, Upsample(width), attention=False))
        self.mid_blocks = middle(widths[0])
        self.conv_out = activated(widths[-1], 3)

    def forward(self, latent: Tensor) -> list[Tensor]:
        x = self.mid_blocks(self.conv_in(latent))
        maps = []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return maps

    def image(self, finest: Tensor) -> Tensor:
        """The picture of the finest level's features."""
        result: Tensor = self.conv_out(finest)
        return result


class MainBranch(nn.Module):
    """Bends the textures of each level to the degraded face, and joins them from the coarsest to the finest."""

    def __init__(self, config: VQFRConfig) -> None:
        super().__init__()
        widths = dict(zip(names(config), config.widths[::-1], strict=True))  # coarsest first
        growing = [(name, width, out) for (_, width), (name, out) in pairwise(widths.items())]
        before = dict(zip(widths, [0, *widths.values()], strict=False))
        self.decoder_dict = nn.ModuleDict({name: ResBlock(2 * out, out) for name, _, out in growing})
        self.pre_upsample_dict = nn.ModuleDict(
            {name: nn.Sequential(nn.Upsample(scale_factor=2.0), conv(width, out)) for name, width, out in growing}
        )
        self.align_func_dict = nn.ModuleDict(
            {name: TextureWarp(width, before[name], config) for name, width in widths.items()}
        )

    def forward(self, textures: Sequence[Tensor], seen: Tensor) -> Tensor:
        """Textures, coarsest first, and (B, input_channels, size, size) of the input -> (B, channels, size, size)."""
        x, *finer = self.bent(textures, seen)
        for (name, join), bent in zip(self.decoder_dict.items(), finer, strict=True):
            x = join(torch.cat([self.pre_upsample_dict[name](x), bent], 1))
        return x

    def bent(self, textures: Sequence[Tensor], seen: Tensor) -> Iterator[Tensor]:
        """The textures of each level where the input has them, coarsest first."""
        guide = None
        for warp, texture in zip(self.align_func_dict.values(), textures, strict=True):
            bent, guide = warp(texture, resized(seen, texture.shape[-1]), guide)
            yield bent


class TextureWarp(nn.Module):
    """Moves textures to where the degraded face has them (texture warping module of the paper)."""

    def __init__(self, width: int, before: int, config: VQFRConfig) -> None:
        super().__init__()
        self.offset_conv1 = nn.Sequential(
            nn.Conv2d(width + config.input_channels, width, 1),
            norm(width),
            nn.SiLU(),
            nn.Conv2d(width, width, 7, padding=3, groups=width),
            norm(width),
            nn.SiLU(),
            nn.Conv2d(width, width, 1),
        )
        self.offset_conv2 = nn.Sequential(conv(width + before, width), norm(width), nn.SiLU())
        self.dcn = DeformableConv(width, config.deformable_groups)

    def forward(self, texture: Tensor, seen: Tensor, coarser: Tensor | None) -> tuple[Tensor, Tensor]:
        """The texture where the input has it, and the guide that says where, for the next finer level to go by.

        All are (B, width, side, side), but `seen` has the input's channels and `coarser`, a guide, half the side.
        """
        x = self.offset_conv1(torch.cat([seen, texture], 1))
        if coarser is not None:
            x = torch.cat([x, 2 * resized(coarser, x.shape[-1])], 1)  # a shift is twice as many of the finer pixels
        guide = self.offset_conv2(x)
        return self.dcn(texture, guide), guide


class DeformableConv(nn.Conv2d):
    """A 3x3 convolution with a learned position and weight for each tap.

    Zhu et al., "Deformable ConvNets v2: More Deformable, Better Results" (2019), Eq. 1. Both arguments are
    (B, width, H, W): the features that are read, and those that determine where.
    """

    def __init__(self, width: int, groups: int) -> None:
        super().__init__(width, width, 3, padding=1)
        self.conv_offset = conv(width, groups * 3 * 9)  # vertical and horizontal shift and weight of nine taps
        for parameter in self.conv_offset.parameters():
            nn.init.zeros_(parameter)  # the paper starts from no shift and weights of one half

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:  # type: ignore[override]
        shifts, weights = self.conv_offset(guide).tensor_split([self.conv_offset.out_channels * 2 // 3], 1)
        return deform_conv2d(x, shifts, weights.sigmoid(), self.weight, self.bias)


def deform_conv2d(x: Tensor, shifts: Tensor, weights: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """torchvision's deformable 3x3 convolution. Raises UnfadeError where torchvision cannot be imported."""
    try:
        ops = import_module("torchvision.ops")  # here and not above: all else works without it
    except (ImportError, RuntimeError, OSError) as error:  # the latter two: one that was built for another torch
        raise UnfadeError(
            f"VQFR above a fidelity of 0 needs a torchvision that fits torch {torch.__version__}, "
            f"got '{error}': pip install 'unfade[vqfr]'."
        ) from error
    result: Tensor = ops.deform_conv2d(x, shifts, kernel, bias, padding=1, mask=weights)
    return result


class ResBlock(vqgan.ResBlock):
    """That of the VQGAN, under a name of this checkpoint."""

    beside = "residual_func"


def resized(x: Tensor, side: int) -> Tensor:
    """(B, C, H, W) -> (B, C, side, side), bilinear."""
    return F.interpolate(x, (side, side), mode="bilinear", align_corners=False)


def names(config: VQFRConfig) -> list[str]:
    """The published names of the levels, coarsest first: Level_32, ..., Level_1."""
    return [f"Level_{1 << level}" for level in reversed(range(len(config.channel_mult)))]


def level(width: int, out: int, blocks: int, *resize: nn.Module, attention: bool) -> nn.Sequential:
    """A change of size, if any, then residual blocks, each with attention after it at the coarsest level."""
    parts: list[nn.Module] = [*resize]
    for block in range(blocks):
        parts += [ResBlock(out if block else width, out), *([Attention(out)] if attention else [])]
    return nn.Sequential(*parts)


def middle(width: int) -> nn.Sequential:
    """The blocks at the coarsest level, next to the latent."""
    return nn.Sequential(ResBlock(width, width), Attention(width), ResBlock(width, width))


def activated(width: int, out: int) -> nn.Sequential:
    """The last convolution, of normalised features."""
    return nn.Sequential(norm(width), nn.SiLU(), conv(width, out))


ARCHITECTURE = of_shapes(
    "restorer",
    ("feat2index.1.weight", "quantizer.embedding.weight", "inpfeat_extraction.weight"),
    VQFR,
    VQFRConfig(),
)
