"""A restorer from a name, a file or a run folder, and back to a file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from unfade.errors import BadCheckpoint
from unfade.restorers.base import Restorer
from unfade.restorers.code_level import build_codeformer_restorer
from unfade.restorers.image_level import build_swinir_restorer
from unfade.store.checkpoints import load_state, read_weights, save_weights
from unfade.store.zoo import find_weights

BUILDERS: dict[str, Callable[[dict[str, Any], int], Restorer]] = {
    "swinir": build_swinir_restorer,
    "codeformer": build_codeformer_restorer,
}


def load_restorer(spec: str | Path = "small-restorer", *, device: torch.device | str = "cpu") -> Restorer:
    """A restorer in evaluation mode. Raises UnknownModel, or BadCheckpoint for weights of another kind."""
    path = find_weights(spec, "restorer")
    weights = read_weights(path)
    if weights.architecture not in BUILDERS:
        known = ", ".join(BUILDERS)
        raise BadCheckpoint(
            f"{path} holds a {weights.architecture}, not a restorer ({known}); name one with --restorer."
        )
    config = dict(weights.config)
    restorer = BUILDERS[weights.architecture](config, config.pop("size"))
    load_state(restorer, weights.state, path)
    return restorer.eval().to(device)


def save_restorer(path: Path, restorer: Restorer, *, dtype: torch.dtype = torch.float32) -> None:
    """Write a restorer so that `load_restorer` gives it back."""
    config = {"size": restorer.size, **restorer.config()}
    save_weights(path, restorer, architecture=restorer.architecture, config=config, dtype=dtype)
