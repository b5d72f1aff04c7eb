"""A DiffBIR of 32 px with the shapes of the recorded one."""

import torch
from torch import Tensor

from recorded import fill_module
from unfade.nets.autoencoder_kl import AutoencoderKLConfig
from unfade.nets.diffbir import DiffBIR, DiffBIRConfig
from unfade.nets.latent_unet import LatentUNetConfig
from unfade.nets.text_encoder import TextEncoder, TextEncoderConfig

TEXT = TextEncoderConfig(vocabulary=100, length=7, width=64, layers=3)  # one head, as its width has it

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


def tiny_diffbir() -> DiffBIR:
    """Filled, with a text that is not nothing."""
    return fill_module(DiffBIR(TINY)).eval().requires_grad_(False)


def as_published(network: DiffBIR) -> dict[str, Tensor]:
    """A file as its authors would write it: with the text encoder, a copy of the encoder, SwinIR, tables of numbers."""
    state = {key: value for key, value in network.state_dict().items() if key != "empty_prompt"}
    encoder = {k: v for k, v in state.items() if k.startswith(("first_stage_model.enc", "first_stage_model.quant"))}
    copied = {key.replace("first_stage_model", "cond_encoder"): value.clone() for key, value in encoder.items()}
    text = {
        f"cond_stage_model.model.{key}": value for key, value in fill_module(TextEncoder(TEXT)).state_dict().items()
    }
    more = {
        "betas": torch.ones(1000),
        "logvar": torch.zeros(1000),
        "preprocess_model.conv_first.1.weight": torch.ones(2),
    }
    return {**state, **copied, **text, "cond_stage_model.model.attn_mask": torch.zeros(7, 7), **more}
