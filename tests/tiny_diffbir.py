"""A DiffBIR of 32 px with the shapes of the recorded one."""

from unfade.nets.autoencoder_kl import AutoencoderKLConfig
from unfade.nets.diffbir import DiffBIRConfig
from unfade.nets.latent_unet import LatentUNetConfig

TINY = DiffBIRConfig(
    size=32,
    length=7,
    unet=LatentUNetConfig(
        size=16,
        channels=32,
        channel_mult=(1, 2),
        res_blocks=(1, 1),
        attention_sizes=(16, 8),
        head_channels=16,
        context=64,
    ),
    autoencoder=AutoencoderKLConfig(channels=32, channel_mult=(1, 2), res_blocks=1),
)
