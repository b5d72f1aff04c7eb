"""The U-Net of latent diffusion (Rombach et al., CVPR 2022) and the copy of its encoder that controls it.

As in Stable Diffusion 2: every attention is a transformer that also looks at the embedding of a text, with linear
projections around it. The control is that of ControlNet (Zhang et al., ICCV 2023), where the hint is a latent beside
z_t at full size instead of a picture (DiffBIR, Lin et al., ECCV 2024). Both with the published key names.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unfade.nets.unet import Plan, group_norm, timestep_embedding, zeroed


@dataclass(frozen=True)
class LatentUNetConfig:
    """The defaults are Stable Diffusion 2.1 base: 865,910,724 parameters, 363,153,280 more in its control."""

    size: int = 64  # side of the latent, an eighth of the picture's
    latent_channels: int = 4  # of z_t, of the hint and of the predicted noise
    channels: int = 320  # of the first level
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)  # channels of each level, in multiples of the first
    res_blocks: tuple[int, ...] = (2, 2, 2, 2)  # residual blocks of each level
    attention_sizes: tuple[int, ...] = (64, 32, 16)  # sides of the feature map at which there are transformers
    head_channels: int = 64  # channels of one attention head
    context: int = 1024  # width of the text's embedding

    def __post_init__(self) -> None:
        if len(self.channel_mult) != len(self.res_blocks):
            raise ValueError(f"channel_mult has {len(self.channel_mult)} levels but res_blocks {len(self.res_blocks)}.")


class _Encoder(nn.Module):
    """The half that the U-Net and its control have in common."""

    def __init__(self, config: LatentUNetConfig, inputs: int):
        super().__init__()
        self.config = config
        width = config.channels
        self.time_embed = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width))
        self._plan = plan = _Plan(config, inputs)
        self.input_blocks = nn.ModuleList(plan.encoder())
        self.middle_block = plan.middle()

    def encode(self, x: Tensor, t: Tensor, context: Tensor) -> tuple[list[Tensor], Tensor]:
        """The outputs of all input blocks and the middle, finest first; and the embedding of the steps."""
        embedding = self.time_embed(timestep_embedding(t, self.config.channels))
        features = []
        for block in (*self.input_blocks, self.middle_block):
            x = block(x, embedding, context)
            features.append(x)
        return features, embedding


class LatentUNet(_Encoder):
    """Predicts the noise in a latent: z_t (B, 4, H, W), t in 0..999 of shape (B,) and a text (B, L, context).

    H and W are multiples of 8 in the published network, two halvings fewer than it has levels.
    """

    def __init__(self, config: LatentUNetConfig):
        super().__init__(config, config.latent_channels)
        self.output_blocks = nn.ModuleList(self._plan.decoder())
        width = config.channels * config.channel_mult[0]
        last = zeroed(nn.Conv2d(width, config.latent_channels, 3, padding=1))
        self.out = nn.Sequential(group_norm(width), nn.SiLU(), last)

    def forward(self, z: Tensor, t: Tensor, context: Tensor, control: Sequence[Tensor] = ()) -> Tensor:
        """The noise, (B, 4, H, W). `control` is the output of a `ControlNet`, added to each skip and to the middle."""
        features, embedding = self.encode(z, t, context)
        if control:
            features = [mine + added for mine, added in zip(features, control, strict=True)]
        h = features.pop()
        for block in self.output_blocks:
            h = block(torch.cat([h, features.pop()], 1), embedding, context)
        return self.out(h)  # type: ignore[no-any-return]


class ControlNet(_Encoder):
    """What a hint changes in the U-Net: one tensor for each input block and one for the middle, 13 as published.

    Before training its last layers are zero, so that it changes nothing.
    """

    def __init__(self, config: LatentUNetConfig):
        super().__init__(config, 2 * config.latent_channels)
        *skips, middle = (_zero_conv(width) for width in (*self._plan.skips, self._plan.channels))
        self.zero_convs = nn.ModuleList(skips)
        self.middle_block_out = middle

    def forward(self, z: Tensor, hint: Tensor, t: Tensor, context: Tensor) -> list[Tensor]:
        """z_t and the hint are (B, 4, H, W), t is (B,) in 0..999, the text (B, L, context)."""
        features, _ = self.encode(torch.cat([z, hint], 1), t, context)
        layers = (*self.zero_convs, self.middle_block_out)
        return [layer(h) for layer, h in zip(layers, features, strict=True)]


class _Stack(nn.Sequential):
    """Layers in a row; each gets the inputs that it needs."""

    def forward(self, x: Tensor, embedding: Tensor, context: Tensor) -> Tensor:  # type: ignore[override]
        for layer in self:
            if isinstance(layer, _ResBlock):
                x = layer(x, embedding)
            elif isinstance(layer, _SpatialTransformer):
                x = layer(x, context)
            else:
                x = layer(x)
        return x


class _ResBlock(nn.Module):
    """A residual block to which the step's embedding is added between its convolutions."""

    def __init__(self, channels: int, out: int, embedding: int):
        super().__init__()
        self.in_layers = nn.Sequential(group_norm(channels), nn.SiLU(), nn.Conv2d(channels, out, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, out))
        last = zeroed(nn.Conv2d(out, out, 3, padding=1))
        self.out_layers = nn.Sequential(group_norm(out), nn.SiLU(), nn.Identity(), last)  # Identity: where dropout was
        self.skip_connection = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.in_layers(x) + self.emb_layers(embedding)[..., None, None]
        return self.skip_connection(x) + self.out_layers(h)  # type: ignore[no-any-return]


class _SpatialTransformer(nn.Module):
    """A transformer over all positions of a feature map (B, C, H, W) that looks at a text (B, L, context)."""

    def __init__(self, channels: int, config: LatentUNetConfig):
        super().__init__()
        self.norm = nn.GroupNorm(32, channels, eps=1e-6)  # not the 1e-5 of the residual blocks
        self.proj_in = nn.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList([_TransformerBlock(channels, config)])
        self.proj_out = zeroed(nn.Linear(channels, channels))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        h = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))
        for block in self.transformer_blocks:
            h = block(h, context)
        out: Tensor = self.proj_out(h)
        return x + out.transpose(1, 2).reshape(x.shape)


class _TransformerBlock(nn.Module):
    """Attention to itself, attention to the text, then a gated layer; each after a normalisation, each residual."""

    def __init__(self, channels: int, config: LatentUNetConfig):
        super().__init__()
        heads = channels // config.head_channels
        self.attn1 = _CrossAttention(channels, channels, heads)
        self.ff = _FeedForward(channels)
        self.attn2 = _CrossAttention(channels, config.context, heads)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels) for _ in range(3))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        h = self.norm1(x)
        x = x + self.attn1(h, h)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))  # type: ignore[no-any-return]


class _CrossAttention(nn.Module):
    """Queries of x (B, N, C), keys and values of a context (B, L, width)."""

    def __init__(self, channels: int, context: int, heads: int):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(context, channels, bias=False)
        self.to_v = nn.Linear(context, channels, bias=False)
        self.to_out = nn.Sequential(nn.Linear(channels, channels), nn.Identity())  # Identity: where dropout was

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        return self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class _FeedForward(nn.Module):
    """Two layers, the first gated by a GELU (Shazeer, 2020)."""

    def __init__(self, channels: int):
        super().__init__()
        self.net = nn.Sequential(_GEGLU(channels, 4 * channels), nn.Identity(), nn.Linear(4 * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)  # type: ignore[no-any-return]


class _GEGLU(nn.Module):
    def __init__(self, channels: int, out: int):
        super().__init__()
        self.proj = nn.Linear(channels, 2 * out)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, -1)
        return value * F.gelu(gate)  # type: ignore[no-any-return]


class _Plan(Plan):
    """The layout that all these U-Nets share, with the layers of this one."""

    def __init__(self, config: LatentUNetConfig, inputs: int):
        super().__init__(config, config.size, inputs)
        self.layers = config

    def stack(self, *layers: nn.Module) -> nn.Module:
        return _Stack(*layers)

    def block(self, channels: int, out: int) -> nn.Module:
        return _ResBlock(channels, out, 4 * self.layers.channels)

    def attention(self, channels: int) -> nn.Module:
        return _SpatialTransformer(channels, self.layers)


def _zero_conv(channels: int) -> nn.Module:
    return nn.Sequential(zeroed(nn.Conv2d(channels, channels, 1)))
