"""MANIQA: the quality of a crop, from the features of a vision transformer, attended over channels and over windows.

Yang et al., "MANIQA: Multi-dimension Attention Network for No-Reference Image Quality Assessment" (CVPRW 2022), on the
ViT-B/8 of Dosovitskiy et al. 2021. State-dict keys are those of the published checkpoints; what of these is never used,
the last blocks and the head of the transformer among it, `maniqa_state` leaves out.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unfade.errors import BadInput
from unfade.nets.architecture import of_shapes
from unfade.nets.swinir import Block as SwinBlock
from unfade.nets.swinir import Perceptron, SwinIRConfig, channels_first, channels_last, conv


@dataclass(frozen=True)
class MANIQAConfig:
    """Shape of a MANIQA. The defaults are the published one."""

    size: int = 224  # side of a crop in px, a multiple of patch * window
    patch: int = 8  # side of a patch in px
    width: int = 768  # channels of a token, and of the first stage; the second has half of them
    heads: int = 12  # of the vision transformer
    seen: tuple[int, ...] = (6, 7, 8, 9)  # its blocks whose tokens are looked at, counted from 0
    channel_blocks: int = 2  # transposed attention blocks of each stage
    groups: int = 2  # scale Swin blocks of each stage, each of two window attentions and a convolution
    window: int = 4  # patches
    window_heads: int = 4
    hidden: int = 768  # channels inside the feed-forward parts of the window attentions

    def __post_init__(self) -> None:
        if self.size % (self.patch * self.window):
            raise BadInput(f"MANIQA's size must be a multiple of {self.patch * self.window} px, not {self.size}.")

    @property
    def grid(self) -> int:
        """Patches on a side."""
        return self.size // self.patch


class MANIQA(nn.Module):
    """Crops (B, 3, size, size), RGB in [-1, 1] -> (B,) scores, higher is better; `scale` weighs the Swin blocks.

    The scale leaves no trace in the weights: 0.8 for those of KonIQ-10k, 0.13 for those of PIPAL. Raises BadInput on
    crops of another size.
    """

    def __init__(self, config: MANIQAConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or MANIQAConfig()
        half = config.width // 2
        self.vit = VisionTransformer(config)
        self.tablock1 = nn.ModuleList(ChannelAttention(config.grid**2) for _ in range(config.channel_blocks))
        self.conv1 = nn.Conv2d(config.width * len(config.seen), config.width, 1)
        self.swintransformer1 = ScaleSwin(config, config.width)
        self.tablock2 = nn.ModuleList(ChannelAttention(config.grid**2) for _ in range(config.channel_blocks))
        self.conv2 = nn.Conv2d(config.width, half, 1)
        self.swintransformer2 = ScaleSwin(config, half)
        self.fc_score = branch(half)
        self.fc_weight = branch(half)

    def forward(self, crop: Tensor, *, scale: float = 0.8) -> Tensor:
        side, grid = self.config.size, self.config.grid
        if crop.shape[1:] != (3, side, side):
            raise BadInput(f"MANIQA looks at crops (B, 3, {side}, {side}), not {tuple(crop.shape)}.")
        x = self.vit(crop).transpose(1, 2)  # (B, channels, patches)
        for block in self.tablock1:
            x = block(x)
        x = self.swintransformer1(self.conv1(x.unflatten(2, (grid, grid))), scale).flatten(2)
        for block in self.tablock2:
            x = block(x)
        x = self.swintransformer2(self.conv2(x.unflatten(2, (grid, grid))), scale).flatten(2).transpose(1, 2)
        score, weight = F.relu(self.fc_score(x)), torch.sigmoid(self.fc_weight(x))  # of each patch (Sec. 3.4)
        return (score * weight).sum((1, 2)) / weight.sum((1, 2))


class VisionTransformer(nn.Module):
    """Crops -> the tokens of the blocks that are looked at, side by side: (B, patches, width * len(seen))."""

    def __init__(self, config: MANIQAConfig) -> None:
        super().__init__()
        self.seen = config.seen
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.grid**2, config.width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, config.width, config.patch, stride=config.patch)})
        self.blocks = nn.ModuleList(ViTBlock(config.width, config.heads) for _ in range(max(config.seen) + 1))

    def forward(self, crop: Tensor) -> Tensor:
        patches = self.patch_embed["proj"](crop).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(crop), -1, -1), patches], 1) + self.pos_embed
        kept = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self.seen:
                kept.append(x[:, 1:])
        return torch.cat(kept, 2)


class ViTBlock(nn.Module):
    """Attention and feed-forward part, each after a normalisation and added to its input: (B, N, C) -> the same."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Perceptron(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        result: Tensor = x + self.mlp(self.norm2(x))
        return result


class SelfAttention(nn.Module):
    """Of every token to all: (B, N, C) -> the same."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, 2))
        result: Tensor = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return result


class ChannelAttention(nn.Module):
    """A transposed attention block (Sec. 3.2): channels attend to each other by their patches: (B, C, N) -> the same.

    The published code brings the channels back in the order in which a transposed tensor is read, which mixes them
    with the patches; the weights know it so.
    """

    def __init__(self, patches: int) -> None:
        super().__init__()
        self.c_q, self.c_k, self.c_v = (nn.Linear(patches, patches) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        attended = F.scaled_dot_product_attention(self.c_q(x), self.c_k(x), self.c_v(x))
        return attended.transpose(1, 2).reshape(x.shape) + x


class ScaleSwin(nn.Module):
    """Scale Swin transformer blocks (Sec. 3.3), whose results are weighed and added: (B, C, grid, grid) -> the same."""

    def __init__(self, config: MANIQAConfig, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(SwinGroup(config, width) for _ in range(config.groups))

    def forward(self, x: Tensor, scale: float) -> Tensor:
        for layer in self.layers:
            x = x + scale * layer(x)
        return x


class SwinGroup(nn.Module):
    """Attention in windows and in shifted windows, then a convolution: (B, C, grid, grid) -> the same."""

    def __init__(self, config: MANIQAConfig, width: int) -> None:
        super().__init__()
        heads, ratio = config.window_heads, config.hidden / width
        shape = SwinIRConfig(config.grid, embed_dim=width, heads=heads, window=config.window, mlp_ratio=ratio)
        self.blocks = nn.ModuleList(SwinBlock(shape, shift, 0.0) for shift in (0, config.window // 2))
        self.conv = conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = channels_last(x)
        for block in self.blocks:
            x = block(x, None)
        return F.relu(self.conv(channels_first(x)))


def branch(width: int) -> nn.Sequential:
    """A number for each patch; the published dropout only keeps its place among the keys."""
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Identity(), nn.Linear(width, 1))


def maniqa_state(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published tensors without those that no score depends on: the transformer's end and two convolutions."""
    last = max(MANIQAConfig.seen)
    unused = re.compile(r"vit\.(norm|head)\.|swintransformer[12]\.downsample\.")

    def is_used(key: str) -> bool:
        block = re.match(r"vit\.blocks\.(\d+)\.", key)
        return not unused.match(key) and not (block and int(block[1]) > last)

    return {key: value for key, value in published.items() if is_used(key)}


ARCHITECTURE = of_shapes(
    "quality",
    ("vit.pos_embed", "tablock1.0.c_q.weight", "fc_weight.3.weight"),
    MANIQA,
    MANIQAConfig(),
    convert=maniqa_state,
)
