"""The mask of the face in an aligned crop, by a parsing network: hat, neck and background are not pasted back."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from unfade.faces.paste import parsing_mask
from unfade.zoo.load import Loaded, load_network

Mask = Callable[[Tensor], Tensor]  # (3, S, S) in [-1, 1] to (1, S, S) in 0..1


def loaded_mask(spec: str | Path = "parsenet", *, device: torch.device | str = "cpu") -> Loaded[Mask]:
    """The mask function of a parsing network, from a name in the table of weights or an imported file.

    Threads may share it. Raises UnknownModel, which says how to get the file, or BadCheckpoint for a file that is
    damaged or holds another network.
    """
    loaded = load_network(spec, "parser", device=device)
    return replace(loaded, network=partial(parsing_mask, loaded.network.requires_grad_(False)))
