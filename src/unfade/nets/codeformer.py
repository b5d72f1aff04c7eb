"""CodeFormer: a transformer that predicts the codes of the clean face from a degraded one.

Zhou et al., "Towards Robust Blind Face Restoration with Codebook Lookup Transformer" (2022), stages II and III.
State-dict keys are those of the published checkpoint.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unfade.errors import BadInput
from unfade.nets.architecture import Architecture, Config, from_header, to_header, without_size
from unfade.nets.vqgan import Encoder, Generator, Quantizer, ResBlock, VQGANConfig, conv

EPSILON = 1e-5  # added to the variances that `adain` divides by (published)


@dataclass(frozen=True)
class CodeFormerConfig:
    """Shape of a CodeFormer. The defaults are the published network: 94,112,707 parameters, 512 px faces."""

    autoencoder: VQGANConfig = VQGANConfig()
    dim: int = 512  # channels of the transformer
    heads: int = 8  # attention heads in every layer
    layers: int = 9
    fusion_sizes: tuple[int, ...] = (32, 64, 128, 256)  # sides of the maps where the input's features join, px

    def __post_init__(self) -> None:
        if self.dim % self.heads:
            raise BadInput(f"CodeFormer's dim {self.dim} must be a multiple of its {self.heads} heads.")
        if unknown := sorted(set(self.fusion_sizes) - set(self.autoencoder.sizes)):
            raise BadInput(
                f"CodeFormer fuses maps of sides {self.autoencoder.sizes}, not {unknown}: change fusion_sizes."
            )


class Encoded(NamedTuple):
    """What the encoder sees in a face."""

    lq_feat: Tensor  # the latent, (B, code_channels, n, n)
    maps: dict[int, Tensor]  # by side in pixels: what fusion may take over from the input


class Prediction(NamedTuple):
    """What the transformer makes of it."""

    logits: Tensor  # (B, n * n, codes), row order
    lq_feat: Tensor  # (B, code_channels, n, n)
    maps: dict[int, Tensor]

    @property
    def codes(self) -> Tensor:
        """The most likely code of each cell, (B, n * n) int64."""
        return self.logits.argmax(2)


class CodeFormer(nn.Module):
    """(B, 3, size, size) in [-1, 1] -> the same, not clamped; RGB, of the configuration's size only.

    Raises BadInput for a picture of another size.
    """

    def __init__(self, config: CodeFormerConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or CodeFormerConfig()
        vq, dim = config.autoencoder, config.dim
        self.position_emb = nn.Parameter(torch.zeros(vq.sizes[-1] ** 2, dim))
        self.encoder = Encoder(vq)
        self.quantize = Quantizer(vq.codes, vq.code_channels)
        self.generator = Generator(vq)
        self.feat_emb = nn.Linear(vq.code_channels, dim)
        self.ft_layers = nn.ModuleList(TransformerLayer(dim, config.heads) for _ in range(config.layers))
        self.idx_pred_layer = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, vq.codes, bias=False))
        widths = dict(zip(vq.sizes, vq.widths, strict=True))
        self.fuse_convs_dict = nn.ModuleDict({str(size): Fusion(widths[size]) for size in config.fusion_sizes})

    def forward(self, x: Tensor, fidelity: float = 0.5, *, adain: bool = True) -> Tensor:
        """`fidelity` w in 0..1: 0 for the cleanest face, 1 for the closest to the input (Eq. 7).

        With `adain`, as in the published inference, the codes' features take on the statistics of the input's.
        """
        seen = self.predict_codes(x)
        style = seen.lq_feat if adain else None
        return self.decode(seen.codes, fidelity=fidelity, maps=seen.maps, style=style)

    def encode(self, x: Tensor) -> Encoded:
        """The latent of a face, and the features that fusion may need."""
        size = self.config.autoencoder.size
        if tuple(x.shape[1:]) != (3, size, size):
            raise BadInput(
                f"This CodeFormer restores faces of (3, {size}, {size}), got {tuple(x.shape[1:])}: resize them first."
            )
        return Encoded(*self.encoder.with_maps(x, self.config.fusion_sizes))

    def predict_codes(self, x: Tensor) -> Prediction:
        """Which codes a clean version of this face would have."""
        encoded = self.encode(x)
        return Prediction(self.logits(encoded.lq_feat), *encoded)

    def logits(self, lq_feat: Tensor) -> Tensor:
        """(B, code_channels, n, n) -> (B, n * n, codes)."""
        x = self.feat_emb(lq_feat.flatten(2).transpose(1, 2))
        for layer in self.ft_layers:
            x = layer(x, self.position_emb)
        result: Tensor = self.idx_pred_layer(x)
        return result

    def decode(
        self,
        codes: Tensor,
        *,
        fidelity: float = 0.0,
        maps: Mapping[int, Tensor] | None = None,
        style: Tensor | None = None,
    ) -> Tensor:
        """The face of (B, n * n) codes.

        With a `fidelity` above 0 the encoder's `maps` join in; `style` is a latent whose statistics the codes'
        features take on. Raises BadInput for a fidelity outside 0..1, or above 0 without all maps.
        """
        latent = self.quantize.lookup(codes)
        if style is not None:
            latent = adaptive_instance_norm(latent, style)
        restored: Tensor = self.generator(latent, self._fusions(fidelity, maps or {}))
        return restored

    def _fusions(self, fidelity: float, maps: Mapping[int, Tensor]) -> dict[int, partial[Tensor]]:
        if not 0 <= fidelity <= 1:
            raise BadInput(f"CodeFormer's fidelity must lie in 0..1, got {fidelity}.")
        if fidelity == 0:
            return {}
        if missing := sorted(set(self.config.fusion_sizes) - maps.keys()):
            raise BadInput(
                f"A fidelity of {fidelity} needs the encoder's maps of sides {missing}: pass those of encode()."
            )
        # The input's features are evidence, not what fusion should learn to change: no gradient to the encoder
        return {
            size: partial(self.fuse_convs_dict[str(size)], maps[size].detach(), fidelity)
            for size in self.config.fusion_sizes
        }


class TransformerLayer(nn.Module):
    """Attention and a perceptron, each normalised first; only queries and keys get the positions."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.linear1 = nn.Linear(dim, 2 * dim)
        self.linear2 = nn.Linear(2 * dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """(B, n, dim) and (n, dim) -> (B, n, dim)."""
        h = self.norm1(x)
        placed = h + positions
        x = x + self.self_attn(placed, placed, h, need_weights=False)[0]
        result: Tensor = x + self.linear2(F.gelu(self.linear1(self.norm2(x))))
        return result


class Fusion(nn.Module):
    """Controllable feature transformation: the input's features scale and shift the generator's (Eq. 7)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encode_enc = ResBlock(2 * width, width)
        self.scale = nn.Sequential(conv(width, width), nn.LeakyReLU(0.2), conv(width, width))
        self.shift = nn.Sequential(conv(width, width), nn.LeakyReLU(0.2), conv(width, width))

    def forward(self, seen: Tensor, fidelity: float, x: Tensor) -> Tensor:
        both = self.encode_enc(torch.cat([seen, x], 1))
        result: Tensor = x + fidelity * (x * self.scale(both) + self.shift(both))
        return result


def adaptive_instance_norm(content: Tensor, style: Tensor) -> Tensor:
    """`content` with the mean and deviation of each of `style`'s maps; both (B, C, n, n).

    Huang and Belongie, "Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization" (2017), Eq. 8.
    """
    mean, deviation = statistics(content)
    wanted_mean, wanted_deviation = statistics(style)
    return (content - mean) / deviation * wanted_deviation + wanted_mean


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation (unbiased, as published) of each map, (B, C, 1, 1) each."""
    variance, mean = torch.var_mean(x, (2, 3), keepdim=True, correction=1)
    return mean, (variance + EPSILON).sqrt()


def with_size(config: CodeFormerConfig) -> Config:
    """The header of a CodeFormer's file: the side of its pictures, which is the autoencoder's, at the top too."""
    return {"size": config.autoencoder.size, **to_header(config)}


def built(config: Config) -> CodeFormer:
    """The network of a header. Raises BadInput where its two sides differ."""
    settings = from_header(CodeFormerConfig, without_size(config))
    side = settings.autoencoder.size
    if config.get("size", side) != side:
        raise BadInput(f"This CodeFormer restores {side} px faces, not {config['size']} px: use the file's own size.")
    return CodeFormer(settings)


ARCHITECTURE = Architecture(
    "restorer",
    ("position_emb", "quantize.embedding.weight", "encoder.blocks.0.weight", "feat_emb.weight"),
    built,
    lambda state: [with_size(CodeFormerConfig())],
)
