"""LPIPS as a perceptual term, from its published files once they are imported."""

import torch

from unfade.nets.lpips import LPIPS
from unfade.zoo.architectures import load_network


def load_lpips(name: str = "lpips-vgg", *, device: torch.device | str = "cpu") -> LPIPS:
    """The imported network, lpips-vgg or lpips-alex. Raises UnknownModel, which says how to get it."""
    network = load_network(name, "perceptual", device=device)
    assert isinstance(network, LPIPS)
    return network
