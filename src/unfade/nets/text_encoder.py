"""The text side of CLIP (Radford et al., ICML 2021) as OpenCLIP trained it at size ViT-H, with its key names.

Stable Diffusion 2 is conditioned on it. Here it only encodes the empty text, once, so there is no tokenizer.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class TextEncoderConfig:
    """The defaults are ViT-H: 354,032,641 parameters, those of its contrastive head included, which are not used."""

    vocabulary: int = 49408
    length: int = 77  # tokens of a text
    width: int = 1024
    layers: int = 24
    head_channels: int = 64  # channels of one attention head


class TextEncoder(nn.Module):
    """Tokens (B, 77) to (B, 77, 1024): the output of the last layer but one, then the last normalisation.

    That is what Stable Diffusion 2 takes; the last layer's weights are in the published files and are not used.
    """

    def __init__(self, config: TextEncoderConfig):
        super().__init__()
        self.config = config
        self.positional_embedding = nn.Parameter(torch.zeros(config.length, config.width))
        self.text_projection = nn.Parameter(torch.zeros(config.width, config.width))
        self.logit_scale = nn.Parameter(torch.zeros(()))
        self.transformer = _Transformer(config)
        self.token_embedding = nn.Embedding(config.vocabulary, config.width)
        self.ln_final = nn.LayerNorm(config.width)

    def forward(self, tokens: Tensor) -> Tensor:
        """The embedding of each token, given those before it."""
        h = self.token_embedding(tokens) + self.positional_embedding
        return self.ln_final(self.transformer(h))  # type: ignore[no-any-return]

    def empty(self) -> Tensor:
        """The encoding of the empty text, (1, 77, 1024): its start, its end, and zeros to the full length."""
        start, end = self.config.vocabulary - 2, self.config.vocabulary - 1  # the last two of the vocabulary
        tokens = torch.zeros(1, self.config.length, dtype=torch.long, device=self.positional_embedding.device)
        tokens[0, 0], tokens[0, 1] = start, end
        return self(tokens)  # type: ignore[no-any-return]


class _Transformer(nn.Module):
    def __init__(self, config: TextEncoderConfig):
        super().__init__()
        self.resblocks = nn.ModuleList([_Block(config) for _ in range(config.layers)])

    def forward(self, x: Tensor) -> Tensor:
        """All layers but the last."""
        mask = torch.full((x.shape[1], x.shape[1]), -torch.inf, device=x.device).triu(1)  # hides later positions
        for block in self.resblocks[:-1]:
            x = block(x, mask)
        return x


class _Block(nn.Module):
    def __init__(self, config: TextEncoderConfig):
        super().__init__()
        width = config.width
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, width // config.head_channels, batch_first=True)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = _MLP(width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        h = self.ln_1(x)
        x = x + self.attn(h, h, h, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))  # type: ignore[no-any-return]


class _MLP(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(nn.functional.gelu(self.c_fc(x)))  # type: ignore[no-any-return]
