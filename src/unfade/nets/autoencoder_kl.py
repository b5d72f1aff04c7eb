"""The autoencoder of latent diffusion (Rombach et al., CVPR 2022, App. G), with the published key names.

Its blocks are those of VQGAN.
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from unfade.nets.vqgan import Attention, Downsample, ResBlock, Upsample, conv, norm


@dataclass(frozen=True)
class AutoencoderKLConfig:
    """The defaults are those of Stable Diffusion: 83,653,863 parameters, an eighth of the side, 4 channels."""

    channels: int = 128  # of the first level
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)  # channels of each level, in multiples of the first
    res_blocks: int = 2  # of each level of the encoder; the decoder has one more
    latent_channels: int = 4

    @property
    def factor(self) -> int:
        """How much smaller a latent is than its picture, on each side."""
        return 1 << (len(self.channel_mult) - 1)


class AutoencoderKL(nn.Module):
    """Pictures (B, 3, H, W) in [-1, 1] to the mean and spread of a latent, and back. H and W are multiples of 8.

    Latents are as the decoder wants them; a diffusion model sees them times its own scale.
    """

    def __init__(self, config: AutoencoderKLConfig):
        super().__init__()
        self.config = config
        width = config.latent_channels
        self.encoder = _Encoder(config)
        self.decoder = _Decoder(config)
        self.quant_conv = nn.Conv2d(2 * width, 2 * width, 1)
        self.post_quant_conv = nn.Conv2d(width, width, 1)

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and the logarithm of the variance, each (B, 4, H / 8, W / 8); the latter in -30..20 as published."""
        mean, log_variance = self.quant_conv(self.encoder(image)).chunk(2, 1)
        return mean, log_variance.clamp(-30, 20)

    def decode(self, latent: Tensor) -> Tensor:
        """(B, 4, h, w) to (B, 3, 8 h, 8 w), not clamped."""
        return self.decoder(self.post_quant_conv(latent))  # type: ignore[no-any-return]


class _Encoder(nn.Module):
    def __init__(self, config: AutoencoderKLConfig):
        super().__init__()
        widths = [config.channels * mult for mult in config.channel_mult]
        self.conv_in = conv(3, widths[0])
        self.down = nn.ModuleList()
        for level, (before, width) in enumerate(zip([widths[0], *widths], widths, strict=False)):
            blocks = [_ResBlock(before if i == 0 else width, width) for i in range(config.res_blocks)]
            last = level == len(widths) - 1
            self.down.append(_Level(blocks, downsample=None if last else Downsample(width)))
        self.mid = _Middle(widths[-1])
        self.norm_out = norm(widths[-1])
        self.conv_out = conv(widths[-1], 2 * config.latent_channels)

    def forward(self, image: Tensor) -> Tensor:
        h = self.conv_in(image)
        for level in self.down:
            h = level(h)
        return self.conv_out(F.silu(self.norm_out(self.mid(h))))  # type: ignore[no-any-return]


class _Decoder(nn.Module):
    """Its levels are numbered like the encoder's, so it runs through them backwards."""

    def __init__(self, config: AutoencoderKLConfig):
        super().__init__()
        widths = [config.channels * mult for mult in config.channel_mult]
        self.conv_in = conv(config.latent_channels, widths[-1])
        self.mid = _Middle(widths[-1])
        self.up = nn.ModuleList()
        for level, (width, before) in enumerate(zip(widths, [*widths[1:], widths[-1]], strict=True)):
            blocks = [_ResBlock(before if i == 0 else width, width) for i in range(config.res_blocks + 1)]
            self.up.append(_Level(blocks, upsample=None if level == 0 else Upsample(width)))
        self.norm_out = norm(widths[0])
        self.conv_out = conv(widths[0], 3)

    def forward(self, latent: Tensor) -> Tensor:
        h = self.mid(self.conv_in(latent))
        for level in reversed(self.up):
            h = level(h)
        return self.conv_out(F.silu(self.norm_out(h)))  # type: ignore[no-any-return]


class _Level(nn.Module):
    """Residual blocks, then a change of size where there is one."""

    def __init__(
        self, blocks: list["_ResBlock"], *, downsample: nn.Module | None = None, upsample: nn.Module | None = None
    ):
        super().__init__()
        self.block = nn.ModuleList(blocks)
        self.downsample, self.upsample = downsample, upsample

    def forward(self, x: Tensor) -> Tensor:
        for layer in (*self.block, self.downsample, self.upsample):
            x = x if layer is None else layer(x)
        return x


class _Middle(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.block_1 = _ResBlock(channels, channels)
        self.attn_1 = Attention(channels)
        self.block_2 = _ResBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))  # type: ignore[no-any-return]


class _ResBlock(ResBlock):
    beside = "nin_shortcut"
