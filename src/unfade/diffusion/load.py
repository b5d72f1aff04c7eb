"""A prior from a name, a file or a run folder."""

from dataclasses import replace
from pathlib import Path

import torch

from unfade.devices import Device, choose_device
from unfade.diffusion.prior import DiffusionPrior
from unfade.nets.unet import UNet
from unfade.own_modes import own_modes
from unfade.zoo.load import Loaded, load_network


@own_modes()
def load_prior(spec: str | Path = "small-prior", *, device: Device = "auto") -> DiffusionPrior:
    """A prior in evaluation mode.

    `spec` is a name, a .safetensors file or a run folder. Raises UnknownModel for an unknown name, BadCheckpoint for
    weights of another kind, BadInput for a device that this machine lacks.
    """
    return loaded_prior(spec, device=device).network


def loaded_prior(spec: str | Path = "small-prior", *, device: Device = "auto") -> Loaded[DiffusionPrior]:
    """`load_prior`, together with what is known about the file of its weights."""
    device = choose_device(device)
    loaded = load_network(spec, "prior")
    return replace(loaded, network=prior_of(loaded.network, device=device))


def prior_of(unet: UNet, *, device: torch.device | str = "cpu") -> DiffusionPrior:
    """The prior of a network: frozen, in evaluation mode, in the channels-last layout that suits its convolutions."""
    config = unet.config
    unet.eval().requires_grad_(False)
    prior = DiffusionPrior(unet, config.size, predicts=config.predicts, patch=config.patch)
    prior.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lag
    return prior
