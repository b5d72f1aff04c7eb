"""DiffBIR (Lin et al., ECCV 2024), first version: Stable Diffusion 2.1 base, controlled by what a restorer made.

Key names are those of the published file. What the file holds besides is taken out of it once (`diffbir_state`): of
the text encoder only the embedding of the empty text is kept, which is all that restoration uses.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from unfade.nets.architecture import of_shapes
from unfade.nets.autoencoder_kl import AutoencoderKL, AutoencoderKLConfig
from unfade.nets.latent_unet import ControlNet, LatentUNet, LatentUNetConfig
from unfade.nets.text_encoder import TextEncoder, TextEncoderConfig

NETWORKS = ("model.diffusion_model.", "control_model.", "first_stage_model.")  # what restoration needs of the file
TEXT = "cond_stage_model.model."
HINT_ENCODER = "cond_encoder."  # a frozen copy of the autoencoder's encoder
PROMPT = "empty_prompt"


@dataclass(frozen=True)
class DiffBIRConfig:
    """The defaults are the published face model: 1,312,717,867 parameters, and 354,032,641 of the text encoder that
    are not carried along."""

    size: int = 512  # side of the pictures in pixels
    length: int = 77  # tokens of a text
    scale: float = 0.18215  # what a latent is multiplied with so that its deviation is near 1
    unet: LatentUNetConfig = field(default_factory=LatentUNetConfig)
    autoencoder: AutoencoderKLConfig = field(default_factory=AutoencoderKLConfig)

    def __post_init__(self) -> None:
        if self.size != self.unet.size * self.autoencoder.factor:
            raise ValueError(f"A side of {self.size} is not {self.autoencoder.factor} times that of its latent.")


class DiffBIR(nn.Module):
    """p(z | picture of the first stage): the networks of the second stage; pictures are (B, 3, H, W) in [-1, 1]."""

    empty_prompt: Tensor

    def __init__(self, config: DiffBIRConfig = DiffBIRConfig()):
        super().__init__()
        self.config = config
        self.model = nn.ModuleDict({"diffusion_model": LatentUNet(config.unet)})
        self.control_model = ControlNet(config.unet)
        self.first_stage_model = AutoencoderKL(config.autoencoder)
        self.register_buffer(PROMPT, torch.zeros(1, config.length, config.unet.context))

    def forward(self, z: Tensor, t: Tensor, hint: Tensor) -> Tensor:
        """The noise in the latent z_t (B, 4, h, w) at steps t in 0..999, (B,), with the hint's latent, like z_t."""
        text = self.empty_prompt.expand(len(z), -1, -1)
        control = self.control_model(z, hint, t, text)
        return self.model["diffusion_model"](z, t, text, control)  # type: ignore[no-any-return]

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of a picture's latent, each (B, 4, h, w). The mean is the hint, as published."""
        mean, log_variance = self.first_stage_model.encode(image)
        scale = self.config.scale
        return mean.float() * scale, (0.5 * log_variance.float()).exp() * scale

    def picture(self, latent: Tensor) -> Tensor:
        """The picture of a latent, not clamped."""
        return self.first_stage_model.decode(latent / self.config.scale).float()


def diffbir_state(published: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The tensors of a `DiffBIR` from those of the published file.

    Left out: the tables of the schedule, the first stage's SwinIR (a model of its own), the encoder of the hint, and
    the text encoder once it has said what the empty text is. Unchanged if the prompt is among them: then it was
    written by this program. Raises ValueError where the encoder of the hint is not that of the autoencoder, or the
    text encoder is not whole.
    """
    if PROMPT in published:
        return published
    kept = {key: value for key, value in published.items() if key.startswith(NETWORKS)}
    for key, value in _under(HINT_ENCODER, published).items():
        twin = kept.get(f"first_stage_model.{key}")
        if twin is None or not torch.equal(twin, value):
            raise ValueError(f"{HINT_ENCODER}{key} differs from the autoencoder's, of which it was published as a copy")
    return {**kept, PROMPT: _empty_prompt(_under(TEXT, published))}


def _under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


@torch.no_grad()
def _empty_prompt(state: Mapping[str, Tensor]) -> Tensor:
    state = {key: value for key, value in state.items() if key != "attn_mask"}  # old files hold the mask too
    try:
        vocabulary, width = state["token_embedding.weight"].shape
        layers = len({key.split(".")[2] for key in state if key.startswith("transformer.resblocks.")})
        config = TextEncoderConfig(vocabulary, len(state["positional_embedding"]), width, layers)
        with torch.device("meta"):
            encoder = TextEncoder(config)
        encoder.load_state_dict({key: value.float() for key, value in state.items()}, assign=True)
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"its text encoder is not whole ({str(error).splitlines()[-1].strip()})") from error
    return encoder.eval().empty()


ARCHITECTURE = of_shapes(
    "guide",
    (
        "model.diffusion_model.out.2.weight",
        "control_model.zero_convs.0.0.weight",
        "first_stage_model.quant_conv.weight",
    ),
    DiffBIR,
    DiffBIRConfig(),
    convert=diffbir_state,
)
