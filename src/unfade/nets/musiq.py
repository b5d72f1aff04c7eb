"""MUSIQ: the quality of a picture of any size and shape, from patches of it at several scales.

Ke et al., "MUSIQ: Multi-scale Image Quality Transformer" (ICCV 2021). State-dict keys are those of the PyTorch files
that were converted from the authors' own; sizes are changed as there, by plain bicubic interpolation.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unfade.errors import BadInput
from unfade.nets.architecture import of_shapes


@dataclass(frozen=True)
class MUSIQConfig:
    """Shape of a MUSIQ. The defaults are the published one: 27,125,825 parameters."""

    hidden: int = 384  # channels of a token
    mlp: int = 1152  # channels inside the feed-forward part of a block
    heads: int = 6
    layers: int = 14
    patch: int = 32  # side of a patch in px, a multiple of 4
    grid: int = 10  # the places of all pictures are hashed to grid x grid embeddings (Sec. 3.3)
    longer_sides: tuple[int, ...] = (224, 384)  # px of the resized copies; the picture at its own size comes after them
    width: int = 64  # channels of the convolutions before the transformer, a multiple of GROUPS

    @property
    def scales(self) -> int:
        """The resized copies and the picture itself."""
        return len(self.longer_sides) + 1


GROUPS = 32  # of all group normalisations
EXPANSION = 4  # of the bottleneck block


class MUSIQ(nn.Module):
    """Pictures (B, 3, H, W), RGB in [-1, 1] -> (B,) mean opinions; of the KonIQ-10k weights 0..100, higher is better.

    All pictures of a batch have one size, any whose resized copies have a pixel left; larger ones have more tokens.
    Raises BadInput on pictures that are too narrow.
    """

    def __init__(self, config: MUSIQConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or MUSIQConfig()
        deep = config.width * EXPANSION
        self.conv_root = StandardisedConv(3, config.width, 7, stride=2)
        self.gn_root = nn.GroupNorm(GROUPS, config.width, eps=1e-6)
        self.block1 = Bottleneck(config.width, deep)
        self.embedding = nn.Linear(deep * (config.patch // 4) ** 2, config.hidden)
        self.transformer_encoder = Encoder(config)
        self.head = nn.Linear(config.hidden, 1)

    def forward(self, picture: Tensor) -> Tensor:
        tokens, places, scales = [], [], []
        for scale, copy in enumerate(self.copies(picture)):
            patches, place = cut(copy, self.config)
            tokens.append(self.embed(patches))
            places.append(place)
            scales.append(torch.full_like(place, scale))
        encoded = self.transformer_encoder(torch.cat(tokens, 1), torch.cat(places), torch.cat(scales))
        result: Tensor = self.head(encoded[:, 0]).squeeze(1)
        return result

    def copies(self, picture: Tensor) -> Iterator[Tensor]:
        """The picture resized to each longer side, then at its own size."""
        height, width = picture.shape[-2:]
        for side in self.config.longer_sides:
            size = tuple(round(length * side / max(height, width)) for length in (height, width))
            if min(size) < 1:
                raise BadInput(f"MUSIQ makes nothing of {width} x {height} pixels; the shorter side is too short.")
            yield F.interpolate(picture, size, mode="bicubic", align_corners=False)
        yield picture

    def embed(self, patches: Tensor) -> Tensor:
        """(B, N, 3, patch, patch) -> tokens (B, N, hidden). Features are flattened pixel by pixel, channels inmost."""
        x = F.relu(self.gn_root(self.conv_root(patches.flatten(0, 1))))
        x = self.block1(F.max_pool2d(padded_as(x, 3, 2), 3, 2))
        tokens: Tensor = self.embedding(x.permute(0, 2, 3, 1).flatten(1))
        return tokens.view(*patches.shape[:2], -1)


class StandardisedConv(nn.Conv2d):
    """A convolution without bias whose filters have mean 0 and deviation 1 (Qiao et al. 2019); sizes are divided by
    the stride and rounded up, whatever the kernel."""

    def __init__(self, before: int, after: int, kernel: int, stride: int = 1) -> None:
        super().__init__(before, after, kernel, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        deviation, mean = torch.std_mean(self.weight, (1, 2, 3), keepdim=True)
        x = padded_as(x, self.kernel_size[0], self.stride[0])
        return F.conv2d(x, (self.weight - mean) / (deviation + 1e-5), stride=self.stride)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 and a projected shortcut, each with a group normalisation."""

    def __init__(self, width: int, after: int) -> None:
        super().__init__()
        self.conv1 = StandardisedConv(width, width, 1)
        self.gn1 = nn.GroupNorm(GROUPS, width, eps=1e-4)
        self.conv2 = StandardisedConv(width, width, 3)
        self.gn2 = nn.GroupNorm(GROUPS, width, eps=1e-4)
        self.conv3 = StandardisedConv(width, after, 1)
        self.gn3 = nn.GroupNorm(GROUPS, after, eps=1e-4)
        self.conv_proj = StandardisedConv(width, after, 1)
        self.gn_proj = nn.GroupNorm(GROUPS, after, eps=1e-4)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.gn_proj(self.conv_proj(x))
        x = F.relu(self.gn1(self.conv1(x)))
        x = F.relu(self.gn2(self.conv2(x)))
        return F.relu(shortcut + self.gn3(self.conv3(x)))


class Encoder(nn.Module):
    """Tokens (B, N, hidden), their places (N,) in the hashed grid and their scales (N,) -> (B, 1 + N, hidden)."""

    def __init__(self, config: MUSIQConfig) -> None:
        super().__init__()
        self.cls = nn.Parameter(torch.zeros(1, 1, config.hidden))
        self.posembed_input = nn.ParameterDict({"position_emb": torch.zeros(1, config.grid**2, config.hidden)})
        self.scaleembed_input = nn.ParameterDict({"scale_emb": torch.zeros(config.scales, config.hidden)})
        blocks = {f"encoderblock_{k}": Block(config) for k in range(config.layers)}
        self.transformer = nn.ModuleDict(blocks)
        self.encoder_norm = nn.LayerNorm(config.hidden, eps=1e-6)

    def forward(self, tokens: Tensor, places: Tensor, scales: Tensor) -> Tensor:
        tokens = tokens + self.posembed_input["position_emb"][0, places] + self.scaleembed_input["scale_emb"][scales]
        x = torch.cat([self.cls.expand(len(tokens), -1, -1), tokens], 1)
        for block in self.transformer.values():
            x = block(x)
        result: Tensor = self.encoder_norm(x)
        return result


class Block(nn.Module):
    """Attention and feed-forward part, each after a normalisation and added to its input."""

    def __init__(self, config: MUSIQConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden, eps=1e-6)
        self.attention = Attention(config)
        self.norm2 = nn.LayerNorm(config.hidden, eps=1e-6)
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(config.hidden, config.mlp), "fc2": nn.Linear(config.mlp, config.hidden)}
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        result: Tensor = x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))
        return result


class Attention(nn.Module):
    """Of every token to all: (B, N, hidden) -> the same."""

    def __init__(self, config: MUSIQConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.query, self.key, self.value, self.out = (nn.Linear(config.hidden, config.hidden) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        split = [part(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)]
        result: Tensor = self.out(F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2))
        return result


def cut(picture: Tensor, config: MUSIQConfig) -> tuple[Tensor, Tensor]:
    """(B, 3, H, W) -> patches (B, N, 3, patch, patch), row by row, and the places (N,) of each in the hashed grid.

    A picture whose sides are not multiples of the patch is padded on all sides with zeros, which are grey. The place
    of a patch, row and column, is its share of the picture's height and width in steps of the grid (Sec. 3.3).
    """
    side = config.patch
    picture = padded_as(picture, side, side)
    patches = picture.unfold(2, side, side).unfold(3, side, side)  # (B, 3, rows, columns, side, side)
    rows, columns = (torch.arange(n, device=picture.device) * config.grid // n for n in patches.shape[2:4])
    places = (rows[:, None] * config.grid + columns).flatten()
    return patches.permute(0, 2, 3, 1, 4, 5).flatten(1, 2), places


def padded_as(x: Tensor, kernel: int, stride: int) -> Tensor:
    """With as many zeros as a window needs to be at every stride, the odd one below and on the right."""
    pad = []
    for length in reversed(x.shape[-2:]):
        missing = max((-(-length // stride) - 1) * stride + kernel - length, 0)
        pad += [missing // 2, missing - missing // 2]
    return F.pad(x, pad)


ARCHITECTURE = of_shapes(
    "quality",
    ("conv_root.weight", "transformer_encoder.posembed_input.position_emb", "head.weight"),
    MUSIQ,
    MUSIQConfig(),
)
