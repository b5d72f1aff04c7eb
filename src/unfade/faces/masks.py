"""Where in an aligned face the face is, by a parsing network: hat, neck and background are not pasted back."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from unfade.errors import BadCheckpoint
from unfade.faces.paste import parsing_mask
from unfade.nets.parsenet import ParseNet, ParseNetConfig
from unfade.store.checkpoints import load_state, read_weights
from unfade.zoo.models import find_weights

Mask = Callable[[Tensor], Tensor]  # (3, S, S) in [-1, 1] to (1, S, S) in 0..1


def load_mask(spec: str | Path = "parsenet", *, device: torch.device | str = "cpu") -> Mask:
    """The mask of a face, from a name of the table or an imported file. Threads may share it.

    Raises UnknownModel, which says how to get it, or BadCheckpoint for a file that is damaged or another network.
    """
    path = find_weights(spec, "parser")
    weights = read_weights(path)
    if weights.architecture != "parsenet":
        raise BadCheckpoint(f"{path} holds a {weights.architecture}, not a parsing network; name one as `mask`.")
    network = ParseNet(ParseNetConfig(**weights.config))
    load_state(network, weights.state, path)
    network.eval().requires_grad_(False).to(device)
    return lambda face: parsing_mask(network, face)
