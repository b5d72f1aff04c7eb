"""VQGAN: an autoencoder whose latent cells are entries of a learned codebook, and its discriminator.

Esser et al., "Taming Transformers for High-Resolution Image Synthesis" (2021), in the shape of Zhou et al., "Towards
Robust Blind Face Restoration with Codebook Lookup Transformer" (2022), stage I. State-dict keys are those of the
published checkpoints.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from unfade.errors import BadInput
from unfade.nets.architecture import Architecture, count, of_shapes

GROUPS = 32  # of every group normalisation
COMMITMENT = 0.25  # beta: weight of the pull of the latent towards its code (van den Oord et al. 2017, Eq. 3)

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class VQGANConfig:
    """Shape of the autoencoder. The defaults are CodeFormer's: 63,740,099 parameters, 512 px faces, 16 x 16 codes."""

    size: int = 512  # side of the picture, px
    channels: int = 64  # of the finest level
    channel_mult: tuple[int, ...] = (1, 2, 2, 4, 4, 8)  # channels of each level over `channels`, finest first
    res_blocks: int = 2  # in each level
    attention_sizes: tuple[int, ...] = (16,)  # sides of the maps with self-attention, px
    codes: int = 1024  # entries of the codebook
    code_channels: int = 256  # length of an entry

    def __post_init__(self) -> None:
        if self.size % 2 ** (len(self.channel_mult) - 1):
            raise BadInput(
                f"A VQGAN of {len(self.channel_mult)} levels needs a size divisible by "
                f"{2 ** (len(self.channel_mult) - 1)}, not {self.size}: change size or channel_mult."
            )
        if any(width % GROUPS for width in self.widths):
            raise BadInput(f"A VQGAN's widths must be multiples of {GROUPS}, not {self.widths}: change channels.")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level, finest first."""
        return tuple(self.channels * factor for factor in self.channel_mult)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Side of each level's maps in pixels, finest first; the last one is the side of the grid of codes."""
        return tuple(self.size >> level for level in range(len(self.channel_mult)))


class VQAutoEncoder(nn.Module):
    """(B, 3, size, size) in about [-1, 1] -> the same, not clamped; RGB.

    The gradient passes the choice of codes as if it were the identity (straight-through).
    """

    def __init__(self, config: VQGANConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or VQGANConfig()
        self.encoder = Encoder(config)
        self.quantize = Quantizer(config.codes, config.code_channels)
        self.generator = Generator(config)

    def forward(self, x: Tensor) -> Tensor:
        z = self.encoder(x)
        restored: Tensor = self.generator(z + (self.quantize.lookup(self.quantize.nearest(z)) - z).detach())
        return restored

    def encode(self, x: Tensor) -> Tensor:
        """The codes of a picture: (B, 3, size, size) -> (B, n * n) int64 in row order, n the side of the grid."""
        return self.quantize.nearest(self.encoder(x))

    def decode(self, codes: Tensor) -> Tensor:
        """The picture of (B, n * n) codes: (B, 3, size, size)."""
        restored: Tensor = self.generator(self.quantize.lookup(codes))
        return restored


class Encoder(nn.Module):
    """Picture to latent: (B, 3, size, size) -> (B, code_channels, n, n)."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        self.last_of_level: dict[int, int] = {}  # index of the last residual block at that side of the map
        blocks: list[nn.Module] = [conv(3, config.channels)]
        width = config.channels
        for level, (size, out) in enumerate(zip(config.sizes, config.widths, strict=True)):
            if level:
                blocks.append(Downsample(width))
            for _ in range(config.res_blocks):
                self.last_of_level[size] = len(blocks)
                blocks += residual(width, out, attention=size in config.attention_sizes)
                width = out
        blocks += [*middle(width), norm(width), conv(width, config.code_channels)]
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x

    def with_maps(self, x: Tensor, sizes: Collection[int]) -> tuple[Tensor, dict[int, Tensor]]:
        """The latent, and for each side in `sizes` the map after the last residual block of that level."""
        wanted = {self.last_of_level[size]: size for size in sizes}
        maps: dict[int, Tensor] = {}
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in wanted:
                maps[wanted[index]] = x
        return x, maps


class Quantizer(nn.Module):
    """The codebook: `codes` entries of `channels` numbers."""

    def __init__(self, codes: int, channels: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codes, channels)
        nn.init.uniform_(self.embedding.weight, -1 / codes, 1 / codes)

    def distances(self, z: Tensor) -> Tensor:
        """Squared distances of each cell to each entry: (B, channels, n, n) -> (B, n * n, codes)."""
        cells, entries = z.flatten(2).transpose(1, 2), self.embedding.weight
        return cells.square().sum(2, keepdim=True) + entries.square().sum(1) - 2 * cells @ entries.t()

    def nearest(self, z: Tensor) -> Tensor:
        """The nearest entry of each cell: (B, channels, n, n) -> (B, n * n) int64, row order."""
        return self.distances(z).argmin(2)

    def lookup(self, codes: Tensor) -> Tensor:
        """(B, n * n) codes of a square grid -> their entries, (B, channels, n, n)."""
        entries: Tensor = self.embedding(codes)
        side = round(codes.shape[1] ** 0.5)
        return entries.transpose(1, 2).reshape(len(codes), -1, side, side)

    def loss(self, z: Tensor, codes: Tensor) -> Tensor:
        """What teaches the codebook and ties the latent to it (van den Oord et al. 2017, Eq. 3); a scalar."""
        entries = self.lookup(codes)
        return F.mse_loss(entries, z.detach()) + COMMITMENT * F.mse_loss(z, entries.detach())


class Generator(nn.Module):
    """Latent to picture: (B, code_channels, n, n) -> (B, 3, size, size)."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        self.first_of_level: dict[int, int] = {}  # index of the first residual block at that side of the map
        width = config.widths[-1]
        blocks: list[nn.Module] = [conv(config.code_channels, width), *middle(width)]
        for size, out in zip(reversed(config.sizes), reversed(config.widths), strict=True):
            if size != config.sizes[-1]:
                blocks.append(Upsample(width))
            self.first_of_level[size] = len(blocks)
            for _ in range(config.res_blocks):
                blocks += residual(width, out, attention=size in config.attention_sizes)
                width = out
        blocks += [norm(width), conv(width, 3)]
        self.blocks = nn.ModuleList(blocks)

    def forward(self, z: Tensor, changes: Mapping[int, Change] | None = None) -> Tensor:
        """`changes` are applied to the map after the first residual block of the level of that side."""
        due = {self.first_of_level[size]: change for size, change in (changes or {}).items()}
        for index, block in enumerate(self.blocks):
            z = block(z)
            if index in due:
                z = due[index](z)
        return z


def residual(width: int, out: int, *, attention: bool) -> list[nn.Module]:
    """A residual block, and attention after it."""
    return [ResBlock(width, out), *([Attention(out)] if attention else [])]


def middle(width: int) -> list[nn.Module]:
    """The blocks at the coarsest level, next to the latent."""
    return [ResBlock(width, width), Attention(width), ResBlock(width, width)]


class ResBlock(nn.Module):
    """Two normalised 3x3 convolutions beside an identity, or a 1x1 convolution where the width changes."""

    beside = "conv_out"  # name of that 1x1 convolution in the checkpoint

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.norm1 = norm(width)
        self.conv1 = conv(width, out)
        self.norm2 = norm(out)
        self.conv2 = conv(out, out)
        self.add_module(self.beside, nn.Conv2d(width, out, 1) if width != out else nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        result: Tensor = self.get_submodule(self.beside)(x) + h
        return result


class Attention(nn.Module):
    """Self-attention of one head over all cells of a map, added to it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = norm(width)
        self.q = nn.Conv2d(width, width, 1)
        self.k = nn.Conv2d(width, width, 1)
        self.v = nn.Conv2d(width, width, 1)
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (project(h).flatten(2).transpose(1, 2) for project in (self.q, self.k, self.v))
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        result: Tensor = x + self.proj_out(seen)
        return result


class Downsample(nn.Module):
    """Half the size by a strided convolution that looks one pixel beyond the right and the bottom only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return result


class Upsample(nn.Module):
    """Twice the size: each pixel four times, then a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return result


class VQGANDiscriminator(nn.Module):
    """Judges patches: (B, 3, H, W) in [-1, 1] -> (B, 1, about H / 2^layers, W / 2^layers) logits, high for real.

    Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks" (2017). With the defaults
    6,960,961 parameters.
    """

    def __init__(self, features: int = 64, layers: int = 4) -> None:
        super().__init__()
        main: list[nn.Module] = [nn.Conv2d(3, features, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        width = features
        for layer in range(1, layers + 1):
            out = features * min(2**layer, 8)
            stride = 1 if layer == layers else 2
            main += [nn.Conv2d(width, out, 4, stride, padding=1, bias=False), nn.BatchNorm2d(out), nn.LeakyReLU(0.2)]
            width = out
        self.main = nn.Sequential(*main, nn.Conv2d(width, 1, 4, padding=1))

    def forward(self, image: Tensor) -> Tensor:
        result: Tensor = self.main(image)
        return result


def conv(width: int, out: int) -> nn.Conv2d:
    """Convolution that keeps the size."""
    return nn.Conv2d(width, out, 3, padding=1)


def norm(width: int) -> nn.GroupNorm:
    """Group normalisation with the published epsilon."""
    return nn.GroupNorm(GROUPS, width, eps=1e-6)


ARCHITECTURE = of_shapes(
    "vqgan",
    ("quantize.embedding.weight", "encoder.blocks.0.weight", "generator.blocks.0.weight"),
    VQAutoEncoder,
    VQGANConfig(),
)


DISCRIMINATOR_ARCHITECTURE = Architecture(
    "discriminator",
    ("main.0.weight", "main.3.running_mean"),
    lambda config: VQGANDiscriminator(config["features"], config["layers"]),
    lambda state: [{"features": state["main.0.weight"].shape[0], "layers": count(state, r"main\.(\d+)\.running_mean")}],
)
