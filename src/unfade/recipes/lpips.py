"""LPIPS as a perceptual term: its published files are imported once, then read as safetensors."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from unfade.errors import BadCheckpoint, BadInput
from unfade.nets.lpips import LPIPS, lpips_state
from unfade.store.checkpoints import load_state, read_weights, save_weights
from unfade.store.zoo import MODELS, find_weights, path_of


def import_lpips(files: Sequence[Path]) -> Path:
    """Convert torchvision's vgg16 and the linear heads of LPIPS v0.1 (vgg); returns the file that was written.

    Nothing of the files is executed. Raises BadInput for another number of files, BadCheckpoint for other weights.
    """
    if len(files) != 2:
        raise BadInput(f"lpips-vgg is made of two files, vgg16-397923af.pth and LPIPS' vgg.pth; got {len(files)}.")
    network = LPIPS()
    network.load_state_dict(lpips_state(_read(files[0]), _read(files[1])))
    path = path_of(MODELS["lpips-vgg"])
    save_weights(path, network, architecture="lpips", config={}, dtype=torch.float32)
    return path


def load_lpips(*, device: torch.device | str = "cpu") -> LPIPS:
    """The imported network. Raises UnknownModel, which says how to import it."""
    path = find_weights("lpips-vgg", "perceptual")
    network = LPIPS()
    load_state(network, read_weights(path).state, path)
    return network.eval().to(device)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # a foreign file can be anything, and torch raises as many kinds of errors
        raise BadCheckpoint(f"{path} is not a file of plain weights ({error}); download it again.") from error
