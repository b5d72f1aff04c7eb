"""The U-Net of Dhariwal & Nichol, "Diffusion Models Beat GANs" (2021), with the published key names.

`patch` folds blocks of pixels into channels before the first layer and unfolds them after the last, so that a small
prior works at a quarter of the cost (1 in every published network). That alone leaves a faint grid of the blocks in
flat regions; `detail` adds two layers at full resolution, which see across the blocks' borders.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unfade.nets.architecture import of_shapes
from unfade.nets.group_norm import GroupNorm

# The noise; v (Salimans & Ho 2022); or the noise of the means of 2 x 2 pixels with the details of the clean image. The
# details of noise are as many numbers as the pixels, too many for blocks of 4 x 4 of them to go through a few channels,
# while those of a face are few and small.
PREDICTS = ("eps", "v", "details")


@dataclass(frozen=True)
class UNetConfig:
    """The defaults are the 512 px FFHQ prior of DifFace, which the paper uses: 159,788,454 parameters."""

    size: int = 512  # side of the image in pixels
    channels: int = 32  # of the first level
    channel_mult: tuple[int, ...] = (1, 2, 4, 8, 8, 16, 16)  # channels of each level, in multiples of the first
    res_blocks: tuple[int, ...] = (1, 2, 2, 2, 2, 3, 4)  # residual blocks of each level
    attention_sizes: tuple[int, ...] = (32, 16, 8)  # sides, in pixels of the feature map, at which there is attention
    head_channels: int = 64  # channels of one attention head
    resblock_updown: bool = False  # change resolution in a residual block instead of in a convolution
    learned_variance: bool = True  # predict the variance beside the noise: 6 channels out instead of 3
    patch: int = 1  # side of the blocks of pixels folded into channels
    detail: int = 0  # channels of a correction at full resolution; 0: none, as in every published network
    predicts: str = "eps"  # what the first 3 channels are, one of PREDICTS; `diffusion.prior.as_noise` converts it

    def __post_init__(self) -> None:
        if len(self.channel_mult) != len(self.res_blocks):
            raise ValueError(f"channel_mult has {len(self.channel_mult)} levels but res_blocks {len(self.res_blocks)}.")
        if self.size % (self.patch << (len(self.channel_mult) - 1)):
            raise ValueError(f"A side of {self.size} cannot be halved {len(self.channel_mult) - 1} times.")
        if self.predicts not in PREDICTS:
            raise ValueError(f"A prior predicts one of {', '.join(PREDICTS)}, not {self.predicts}.")

    @property
    def out_channels(self) -> int:
        """Channels of the output: 3 of noise and, if learned, 3 of variance."""
        return 6 if self.learned_variance else 3

    @property
    def level_ends(self) -> tuple[int, ...]:
        """Indices of the last input block of each resolution, finest first."""
        return tuple(sum(self.res_blocks[: level + 1]) + level for level in range(len(self.res_blocks)))


class UNet(nn.Module):
    """(B, 3, H, W) and t in 0..999, shape (B,), to (B, 3 or 6, H, W): noise, then variance if it is learned."""

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = config
        width = config.channels
        self.time_embed = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width))
        plan = _PixelPlan(config)
        self.input_blocks = nn.ModuleList(plan.encoder())
        self.middle_block = plan.middle()
        self.output_blocks = nn.ModuleList(plan.decoder())
        out = nn.Conv2d(width * config.channel_mult[0], config.out_channels * config.patch**2, 3, padding=1)
        self.out = nn.Sequential(group_norm(width * config.channel_mult[0]), nn.SiLU(), zeroed(out))
        self.detail = _Detail(width * config.channel_mult[0], config) if config.detail else None

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Predict the noise in x_t (and the fraction of the variance's log range) at the original steps t."""
        embedding = self.embed(t)
        skips = self.encode(x, embedding)
        h = self.middle_block(skips[-1], embedding)
        for block in self.output_blocks:
            h = block(torch.cat([h, skips.pop()], 1), embedding)
        folded = F.pixel_shuffle(self.out(h), self.config.patch)
        return folded if self.detail is None else folded + self.detail(x, h)

    def embed(self, t: Tensor) -> Tensor:
        """The embedding of steps t, (B,) to (B, 4 * channels)."""
        return self.time_embed(timestep_embedding(t, self.config.channels))  # type: ignore[no-any-return]

    def encode(self, x: Tensor, embedding: Tensor) -> list[Tensor]:
        """The outputs of all input blocks, finest first."""
        h = F.pixel_unshuffle(x, self.config.patch)
        features = []
        for block in self.input_blocks:
            h = block(h, embedding)
            features.append(h)
        return features


def timestep_embedding(t: Tensor, width: int) -> Tensor:
    """Sinusoidal embedding of (B,) steps: cosines, then sines, of frequencies 1 to 1/10000; float32 (B, width)."""
    half = width // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = t.float()[:, None] * frequencies
    embedding = torch.cat([angles.cos(), angles.sin()], 1)
    return F.pad(embedding, (0, width - 2 * half))


class _Stack(nn.Sequential):
    """Layers in a row; those that depend on the step get its embedding."""

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:  # type: ignore[override]
        for layer in self:
            x = layer(x, embedding) if isinstance(layer, _ResBlock) else layer(x)
        return x


class _ResBlock(nn.Module):
    """A residual block whose second normalisation is scaled and shifted by the step's embedding."""

    def __init__(self, channels: int, out: int, embedding: int, resample: nn.Module | None = None):
        super().__init__()
        self.resample = resample
        self.in_layers = nn.Sequential(group_norm(channels), nn.SiLU(), nn.Conv2d(channels, out, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, 2 * out))
        last = zeroed(nn.Conv2d(out, out, 3, padding=1))
        self.out_layers = nn.Sequential(group_norm(out), nn.SiLU(), nn.Identity(), last)  # Identity: where dropout was
        self.skip_connection = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        norm, act, convolve = self.in_layers
        h = act(norm(x))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = convolve(h)
        scale, shift = self.emb_layers(embedding)[..., None, None].chunk(2, 1)
        norm, *rest = self.out_layers
        h = norm(h) * (1 + scale) + shift
        for layer in rest:
            h = layer(h)
        return self.skip_connection(x) + h  # type: ignore[no-any-return]


class _Attention(nn.Module):
    """Self-attention over all positions; queries, keys and values interleaved per head (the old published order)."""

    def __init__(self, channels: int, head_channels: int):
        super().__init__()
        self.heads = max(1, channels // head_channels)
        if channels % self.heads:
            raise ValueError(f"{channels} channels cannot be divided among heads of {head_channels}.")
        self.norm = group_norm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = zeroed(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        qkv = self.qkv(self.norm(flat)).unflatten(1, (self.heads, -1)).transpose(2, 3)  # (B, heads, HW, 3 * width)
        qkv = qkv.contiguous()  # or the fused attention of the CPU cannot be used
        h = F.scaled_dot_product_attention(*qkv.chunk(3, 3))
        out: Tensor = self.proj_out(h.transpose(2, 3).flatten(1, 2))
        return (flat + out).reshape(x.shape)


class _Detail(nn.Module):
    """What the folded network cannot say: from x_t (B, 3, H, W) and its last features to (B, 3 or 6, H, W)."""

    def __init__(self, features: int, config: UNetConfig):
        super().__init__()
        self.unfold = nn.Sequential(
            group_norm(features),
            nn.SiLU(),
            nn.Conv2d(features, config.detail * config.patch**2, 3, padding=1),
            nn.PixelShuffle(config.patch),
        )
        self.mix = nn.Sequential(
            nn.Conv2d(3 + config.detail, config.detail, 3, padding=1),
            nn.SiLU(),
            zeroed(nn.Conv2d(config.detail, config.out_channels, 3, padding=1)),
        )

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return self.mix(torch.cat([x, self.unfold(h)], 1))  # type: ignore[no-any-return]


class Downsample(nn.Module):
    """(B, C, H, W) to half the sides by a strided convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)  # type: ignore[no-any-return]


class Upsample(nn.Module):
    """(B, C, H, W) to twice the sides: nearest neighbours, then a convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))  # type: ignore[no-any-return]


class PlanConfig(Protocol):
    """What the layout of a U-Net follows from; see the comments of the fields of `UNetConfig`."""

    @property
    def channels(self) -> int: ...
    @property
    def channel_mult(self) -> tuple[int, ...]: ...
    @property
    def res_blocks(self) -> tuple[int, ...]: ...
    @property
    def attention_sizes(self) -> tuple[int, ...]: ...


class Plan(ABC):
    """The layout of the blocks: walks down the levels, remembering the channels of each skip, then up again.

    Each family of networks defines its own layers.
    """

    def __init__(self, config: PlanConfig, size: int, inputs: int):
        self.config = config
        self.size = size  # side of the feature map
        self.inputs = inputs  # channels that the first layer sees
        self.channels = config.channels * config.channel_mult[0]
        self.skips: list[int] = []

    @abstractmethod
    def stack(self, *layers: nn.Module) -> nn.Module:
        """Layers in a row."""

    @abstractmethod
    def block(self, channels: int, out: int) -> nn.Module:
        """A residual block."""

    @abstractmethod
    def attention(self, channels: int) -> nn.Module:
        """What follows the residual blocks of some levels."""

    def down(self) -> nn.Module:
        """Halves the sides."""
        return Downsample(self.channels)

    def up(self) -> nn.Module:
        """Doubles the sides."""
        return Upsample(self.channels)

    def encoder(self) -> list[nn.Module]:
        """The input blocks; each leaves a skip."""
        first = nn.Conv2d(self.inputs, self.channels, 3, padding=1)
        blocks = [self._keep(self.stack(first))]
        levels = list(zip(self.config.channel_mult, self.config.res_blocks, strict=True))
        for level, (mult, count) in enumerate(levels):
            blocks += [self._keep(self.stack(*self._residual(self.channels, mult))) for _ in range(count)]
            if level < len(levels) - 1:
                blocks.append(self._keep(self.stack(self.down())))
                self.size //= 2
        return blocks

    def middle(self) -> nn.Module:
        """The block at the smallest size, always with attention."""
        width = self.channels
        return self.stack(self.block(width, width), self.attention(width), self.block(width, width))

    def decoder(self) -> list[nn.Module]:
        """The output blocks; each takes a skip."""
        blocks = []
        levels = list(zip(self.config.channel_mult, self.config.res_blocks, strict=True))
        for level, (mult, count) in reversed(list(enumerate(levels))):
            for i in range(count + 1):
                layers = self._residual(self.channels + self.skips.pop(), mult)
                if level > 0 and i == count:
                    layers.append(self.up())
                    self.size *= 2
                blocks.append(self.stack(*layers))
        return blocks

    def _keep(self, stack: nn.Module) -> nn.Module:
        self.skips.append(self.channels)
        return stack

    def _residual(self, channels: int, mult: int) -> list[nn.Module]:
        self.channels = self.config.channels * mult
        layers = [self.block(channels, self.channels)]
        if self.size in self.config.attention_sizes:
            layers.append(self.attention(self.channels))
        return layers


class _PixelPlan(Plan):
    """Of the priors on pixels."""

    def __init__(self, config: UNetConfig):
        super().__init__(config, config.size // config.patch, 3 * config.patch**2)
        self.width = 4 * config.channels  # of the step's embedding
        self.head_channels, self.updown = config.head_channels, config.resblock_updown

    def stack(self, *layers: nn.Module) -> nn.Module:
        return _Stack(*layers)

    def block(self, channels: int, out: int, resample: nn.Module | None = None) -> nn.Module:
        return _ResBlock(channels, out, self.width, resample)

    def attention(self, channels: int) -> nn.Module:
        return _Attention(channels, self.head_channels)

    def down(self) -> nn.Module:
        return self.block(self.channels, self.channels, nn.AvgPool2d(2)) if self.updown else super().down()

    def up(self) -> nn.Module:
        nearest = nn.Upsample(scale_factor=2.0, mode="nearest")
        return self.block(self.channels, self.channels, nearest) if self.updown else super().up()


def group_norm(channels: int) -> nn.GroupNorm:
    """The normalisation of these networks."""
    return GroupNorm(32, channels)


def zeroed(layer: nn.Module) -> nn.Module:
    """Start as nothing, so that every residual branch begins as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


UNETS = (UNetConfig(), UNetConfig(256, 128, (1, 1, 2, 2, 4, 4), (1,) * 6, (16,), 64, resblock_updown=True))
ARCHITECTURE = of_shapes(
    "prior",
    ("time_embed.0.weight", "input_blocks.0.0.weight", "out.2.weight"),
    UNet,
    *UNETS,
)
