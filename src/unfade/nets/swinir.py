"""SwinIR with the unshuffle variant: image restoration with Swin transformers.

Liang et al., "SwinIR: Image Restoration Using Swin Transformer" (2021). The variant of this package's paper (and of
DifFace and DiffBIR) first moves blocks of pixels into channels, so that the transformer works on a small grid, and ends
with nearest-neighbour upsampling and convolutions. State-dict keys are those of the published checkpoints.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unfade.errors import BadInput
from unfade.nets.architecture import Architecture, Config, count, from_header, to_header, without_size
from unfade.nets.windows import from_windows, relative_positions, shift_mask, to_windows

MEAN = (0.4488, 0.4371, 0.4040)  # of DIV2K, RGB in [0, 1]: subtracted from the input, added back to the output
UPSCALES = (1, 2, 4, 8)


@dataclass(frozen=True)
class SwinIRConfig:
    """Shape of a SwinIR. The defaults are the paper's network: 15,792,587 parameters, 512 px faces."""

    img_size: int = 64  # side of the transformer's grid whose shift masks are stored: 512 px / unshuffle
    embed_dim: int = 180  # channels of the transformer
    depths: tuple[int, ...] = (6,) * 8  # blocks in each residual group
    heads: int = 6  # attention heads in every block
    window: int = 8  # side of an attention window, in cells of the grid
    mlp_ratio: float = 2.0  # hidden over input channels of the perceptrons
    unshuffle: int = 8  # side of the pixel block that becomes one cell
    upscale: int = 8  # cells to output pixels; equal to unshuffle in a restorer: the picture keeps its size
    upsample_features: int = 64  # channels of the upsampling tail
    drop_path: float = 0.1  # stochastic depth of the last block, rising linearly from 0; active in training only

    def __post_init__(self) -> None:
        if self.upscale not in UPSCALES:
            raise BadInput(f"SwinIR's upscale must be one of {UPSCALES}, not {self.upscale}.")
        if self.embed_dim % self.heads:
            raise BadInput(f"SwinIR's embed_dim {self.embed_dim} must be a multiple of its {self.heads} heads.")
        if self.img_size % self.window:
            raise BadInput(f"SwinIR's img_size {self.img_size} must be a multiple of its window {self.window}.")


SMALL = SwinIRConfig(  # 1.9 M parameters: the shape of the built-in 128 px restorer
    img_size=32,
    embed_dim=128,
    depths=(2, 2, 2, 2),
    heads=4,
    unshuffle=4,
    upscale=4,
    upsample_features=32,
    drop_path=0.0,
)


class SwinIR(nn.Module):
    """(B, 3, H, W) in [0, 1] -> (B, 3, H, W) * upscale / unshuffle, about [0, 1], not clamped; RGB, any H and W.

    Sizes that are not a multiple of window * unshuffle are mirrored at the bottom and right, and cropped afterwards
    (the published code pads to the window before unshuffling, and fails on most of them).
    """

    mean: Tensor

    def __init__(self, config: SwinIRConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SwinIRConfig()
        width, tail = config.embed_dim, config.upsample_features
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.conv_first = nn.Sequential(nn.PixelUnshuffle(config.unshuffle), conv(3 * config.unshuffle**2, width))
        self.patch_embed = PatchNorm(width)
        self.layers = nn.ModuleList(ResidualGroup(config, drops) for drops in drop_rates(config))
        self.norm = nn.LayerNorm(width)
        self.conv_after_body = conv(width, width)
        self.conv_before_upsample = nn.Sequential(conv(width, tail), nn.LeakyReLU(0.01))
        self.doublings = UPSCALES.index(config.upscale)
        for k in range(1, self.doublings + 1):
            self.add_module(f"conv_up{k}", conv(tail, tail))
        self.conv_hr = conv(tail, tail)
        self.conv_last = conv(tail, 3)
        self.apply(initialise)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = padded_by_reflection(x, self.config.window * self.config.unshuffle) - self.mean
        first = self.conv_first(x)
        restored = self.upsample(self.conv_after_body(self.body(first)) + first) + self.mean
        up, down = self.config.upscale, self.config.unshuffle
        return restored[..., : height * up // down, : width * up // down]

    def body(self, x: Tensor) -> Tensor:
        """Residual groups of transformer blocks: (B, C, h, w) -> the same."""
        mask = None
        if tuple(x.shape[-2:]) != (self.config.img_size,) * 2:
            mask = shift_mask(x.shape[-2], x.shape[-1], self.config.window, x.device)
        x = self.patch_embed(channels_last(x))
        for layer in self.layers:
            x = layer(x, mask)
        return channels_first(self.norm(x))

    def upsample(self, x: Tensor) -> Tensor:
        """Cells to pixels: (B, C, h, w) -> (B, 3, h * upscale, w * upscale)."""
        x = self.conv_before_upsample(x)
        for k in range(1, self.doublings + 1):
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = F.leaky_relu(self.get_submodule(f"conv_up{k}")(x), 0.2)
        result: Tensor = self.conv_last(F.leaky_relu(self.conv_hr(x), 0.2))
        return result


class PatchNorm(nn.Module):
    """The normalisation before the first group; separate for the published key `patch_embed.norm`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.norm(x)
        return result


class ResidualGroup(nn.Module):
    """Transformer blocks, then a convolution, around a skip connection: (B, h, w, C) -> the same."""

    def __init__(self, config: SwinIRConfig, drops: list[float]) -> None:
        super().__init__()
        self.residual_group = Blocks(config, drops)
        self.conv = conv(config.embed_dim, config.embed_dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return channels_last(self.conv(channels_first(self.residual_group(x, mask)))) + x


class Blocks(nn.Module):
    """Transformer blocks; every second one looks through windows shifted by half a window."""

    def __init__(self, config: SwinIRConfig, drops: list[float]) -> None:
        super().__init__()
        half = config.window // 2 if config.img_size > config.window else 0
        self.blocks = nn.ModuleList(Block(config, half * (i % 2), drop) for i, drop in enumerate(drops))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        for block in self.blocks:
            x = block(x, mask)
        return x


class Block(nn.Module):
    """Window attention and a perceptron, each after a LayerNorm and around a skip connection (Swin, Eq. 3)."""

    attn_mask: Tensor | None

    def __init__(self, config: SwinIRConfig, shift: int, drop: float) -> None:
        super().__init__()
        self.window, self.shift, self.drop = config.window, shift, drop
        mask = shift_mask(config.img_size, config.img_size, config.window) if shift else None
        self.register_buffer("attn_mask", mask)
        self.norm1 = nn.LayerNorm(config.embed_dim)
        self.attn = WindowAttention(config.embed_dim, config.heads, config.window)
        self.norm2 = nn.LayerNorm(config.embed_dim)
        self.mlp = Perceptron(config.embed_dim, int(config.embed_dim * config.mlp_ratio))
        self.register_load_state_dict_pre_hook(keep_constants)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.dropped(self.attend(self.norm1(x), mask))
        return x + self.dropped(self.mlp(self.norm2(x)))

    def attend(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Attention in the windows of (B, h, w, C), shifted or not; `mask` stands in for the block's own."""
        if not self.shift:
            return from_windows(self.attn(to_windows(x, self.window), None), x)
        shifted = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        attended = self.attn(to_windows(shifted, self.window), self.attn_mask if mask is None else mask)
        return torch.roll(from_windows(attended, x), (self.shift, self.shift), (1, 2))

    def dropped(self, branch: Tensor) -> Tensor:
        """Stochastic depth: the branch of an image is left out with probability `drop`, in training only."""
        if not self.training or self.drop == 0:
            return branch
        kept = branch.new_empty(branch.shape[0], 1, 1, 1).bernoulli_(1 - self.drop)
        return branch * (kept / (1 - self.drop))


class WindowAttention(nn.Module):
    """Self-attention inside each window, with a learned bias for each relative position (Swin, Eq. 4)."""

    relative_position_index: Tensor

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        self.register_buffer("relative_position_index", relative_positions(window))
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_load_state_dict_pre_hook(keep_constants)  # type: ignore[no-untyped-call]

    def forward(self, windows: Tensor, mask: Tensor | None) -> Tensor:
        """`windows` is (B, n, window**2, C); `mask` (n, window**2, window**2) is added to the attention, or None."""
        q, k, v = (self.by_head(part) for part in self.qkv(windows).chunk(3, dim=-1))
        bias = self.position_bias() if mask is None else self.position_bias() + mask.unsqueeze(1)
        attention = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1) + bias.to(q.dtype)
        attended = attention.softmax(-1).to(v.dtype) @ v
        result: Tensor = self.proj(attended.transpose(2, 3).flatten(-2))
        return result

    def by_head(self, x: Tensor) -> Tensor:
        """(B, n, window**2, C) -> (B, n, heads, window**2, C / heads)."""
        return x.view(*x.shape[:-1], self.heads, -1).transpose(2, 3)

    def position_bias(self) -> Tensor:
        """(heads, window**2, window**2)."""
        return self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)


class Perceptron(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return result


def conv(before: int, after: int) -> nn.Conv2d:
    """A 3 x 3 convolution that keeps the size."""
    return nn.Conv2d(before, after, 3, padding=1)


def channels_last(x: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h, w, C); no copy where the convolutions already store channels last."""
    return x.permute(0, 2, 3, 1).contiguous()


def channels_first(x: Tensor) -> Tensor:
    """(B, h, w, C) -> (B, C, h, w), never a copy: the convolutions run on this layout as it is."""
    return x.permute(0, 3, 1, 2)


def padded_by_reflection(x: Tensor, multiple: int) -> Tensor:
    """Mirrors (B, C, H, W) at its bottom and right until both sides are multiples; again and again if it is small."""
    for dim in (-2, -1):
        if missing := -x.shape[dim] % multiple:
            x = x.index_select(dim, reflected_indices(x.shape[dim], x.shape[dim] + missing, x.device))
    return x


def reflected_indices(side: int, wanted: int, device: torch.device) -> Tensor:
    """0 1 2 1 0 1 2 ... for side 3: a border pixel is not repeated."""
    period = max(2 * (side - 1), 1)
    index = torch.arange(wanted, device=device) % period
    return torch.minimum(index, period - index)


def drop_rates(config: SwinIRConfig) -> list[list[float]]:
    """Stochastic depth of each block, by group: rises linearly from 0 to `drop_path` over all blocks."""
    last = max(sum(config.depths) - 1, 1)
    rates = [config.drop_path * i / last for i in range(sum(config.depths))]
    starts = [sum(config.depths[:i]) for i in range(len(config.depths))]
    return [rates[start : start + depth] for start, depth in zip(starts, config.depths, strict=True)]


def initialise(module: nn.Module) -> None:
    """Linear layers as in Swin: a truncated normal of standard deviation 0.02, no bias."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


def keep_constants(module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Masks and indices follow from the configuration: a file may lack them, or hold those of another image size.

    A network on the meta device has no numbers to keep and takes the file's.
    """
    for name, buffer in module.named_buffers(recurse=False):
        if not buffer.is_meta:
            state_dict[prefix + name] = buffer


def shape_of(state: Mapping[str, Tensor]) -> list[Config]:
    """The header of a file: all but stochastic depth, which leaves no trace, follows from the shapes."""
    first, table = state["conv_first.1.weight"], state[_BLOCK + "attn.relative_position_bias_table"]
    unshuffle, window = math.isqrt(first.shape[1] // 3), (math.isqrt(table.shape[0]) + 1) // 2
    masks = state.get(_BLOCK.replace("blocks.0", "blocks.1") + "attn_mask")
    shape = SwinIRConfig(
        img_size=window if masks is None else window * math.isqrt(masks.shape[0]),
        embed_dim=first.shape[0],
        depths=tuple(
            count(state, rf"layers\.{k}\.residual_group\.blocks\.(\d+)\.")
            for k in range(count(state, r"layers\.(\d+)\."))
        ),
        heads=table.shape[1],
        window=window,
        mlp_ratio=state[_BLOCK + "mlp.fc1.weight"].shape[0] / first.shape[0],
        unshuffle=unshuffle,
        upscale=2 ** count(state, r"conv_up(\d+)\."),
        upsample_features=state["conv_before_upsample.0.weight"].shape[0],
    )
    return [{"size": shape.img_size * unshuffle, **to_header(shape)}]


_BLOCK = "layers.0.residual_group.blocks.0."
ARCHITECTURE = Architecture(
    "restorer",
    ("conv_first.1.weight", _BLOCK + "attn.relative_position_bias_table", "conv_before_upsample.0.weight"),
    lambda config: SwinIR(from_header(SwinIRConfig, without_size(config))),
    shape_of,
)
