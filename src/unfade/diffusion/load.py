"""A prior from a name, a file or a run folder."""

from pathlib import Path
from typing import Any

import torch

from unfade.devices import Device, choose_device
from unfade.diffusion.prior import DiffusionPrior
from unfade.errors import BadCheckpoint
from unfade.nets.unet import UNet, UNetConfig
from unfade.store.checkpoints import Weights, load_state, read_weights
from unfade.training.modes import undrawn
from unfade.zoo.models import find_weights


def load_prior(spec: str | Path = "small-prior", *, device: Device = "auto") -> DiffusionPrior:
    """A prior in evaluation mode.

    `spec` is a name, a .safetensors file or a run folder. Raises UnknownModel, BadCheckpoint for weights of another
    kind, BadInput for a device that is not there.
    """
    device = choose_device(device)
    path = find_weights(spec, "prior")
    weights = read_weights(path)
    if weights.architecture != "unet":
        kind = "restorer of one step" if weights.architecture == "one_step" else weights.architecture
        raise BadCheckpoint(f"{path} holds a {kind}, not a prior; name one as `prior`.")
    config = _config(weights, path)
    with undrawn():
        unet = UNet(config)
    load_state(unet, weights.state, path)
    return prior_of(unet, device=device)


def prior_of(unet: UNet, *, device: torch.device | str = "cpu") -> DiffusionPrior:
    """A network that only denoises from now on: frozen, in evaluation mode, laid out as its convolutions like it."""
    config = unet.config
    unet.eval().requires_grad_(False)
    prior = DiffusionPrior(unet, config.size, predicts=config.predicts, patch=config.patch)
    prior.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lag
    return prior


def _config(weights: Weights, path: Path) -> UNetConfig:
    """JSON has lists where the settings have tuples."""
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in weights.config.items()}
    try:
        return UNetConfig(**values)
    except (TypeError, ValueError) as error:
        reason = f"{path} describes a U-Net that cannot be built ({error})"
        raise BadCheckpoint(f"{reason}; choose weights made with this version.") from error
