"""A restorer from a name, a file or a run folder, and back to a file."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from unfade.devices import Device, choose_device
from unfade.diffusion.load import load_prior
from unfade.errors import BadCheckpoint
from unfade.nets.damage import DamageNet
from unfade.nets.unet import UNet
from unfade.restorers import onnx, spandrel
from unfade.restorers.base import Restorer
from unfade.restorers.code_level import build_codeformer_restorer
from unfade.restorers.image_level import build_gfpgan_restorer, build_swinir_restorer
from unfade.restorers.one_step import OneStepRestorer, OneStepSettings, build_one_step_restorer, one_step_of
from unfade.restorers.vqfr import build_vqfr_restorer
from unfade.store.checkpoints import image_size, load_state, read_weights, save_weights
from unfade.training.modes import undrawn
from unfade.zoo.models import find_weights

BUILDERS: dict[str, Callable[[dict[str, Any], int], Restorer]] = {
    "swinir": build_swinir_restorer,
    "one_step": build_one_step_restorer,
    "gfpgan": build_gfpgan_restorer,
    "codeformer": build_codeformer_restorer,
    "vqfr": build_vqfr_restorer,
}


@dataclass(frozen=True)
class Reader:
    """How the files of another program are read."""

    architecture: str
    size_of: Callable[[Path], int]  # side of the face, px
    load: Callable[[Path, torch.device | str], Restorer]


SPANDREL = Reader(spandrel.ARCHITECTURE, spandrel.spandrel_size, spandrel.load_spandrel)
READERS = {  # by the ending of the file; a .safetensors may be unfade's own, see `_reader_of`
    ".onnx": Reader(onnx.ARCHITECTURE, onnx.onnx_size, onnx.load_onnx),
    ".pth": SPANDREL,
    ".ckpt": SPANDREL,
}


@dataclass(frozen=True)
class Head:
    """What the head of a file says, without its weights."""

    architecture: str
    size: int  # side of the face, px


def head_of(spec: str | Path) -> Head:
    """Which network a name, a file or a run folder stands for. Raises UnknownModel, BadCheckpoint."""
    path = find_weights(spec, "restorer")
    if reader := _reader_of(path):
        return Head(reader.architecture, reader.size_of(path))
    size = image_size(path)  # complains about what cannot be read
    with safe_open(path, "pt") as file:
        return Head(file.metadata()["architecture"], size)


def load_restorer(
    spec: str | Path = "small-restorer",
    *,
    fidelity: float | None = None,
    refine: int | None = None,
    device: Device = "auto",
) -> Restorer:
    """A restorer in evaluation mode.

    `spec` is a name, a .safetensors file, the folder of an adaptation, or the file of a restorer of another program.
    `fidelity` in 0..1 and `refine` in 0..3 are for families that have such a choice; None is the family's own (0.5 for
    CodeFormer, the file's for a one-step restorer). Raises UnknownModel, BadCheckpoint for weights of another kind,
    BadInput for a choice that the family does not have and for a device that is not there.
    """
    device = choose_device(device)
    path = find_weights(spec, "restorer")
    restorer = _read(path, device)
    if fidelity is not None:
        restorer.set_fidelity(fidelity)
    if refine is not None:
        restorer.set_refine(refine)
    return restorer.eval().to(device)


def one_step_of_prior(
    spec: str | Path = "small-prior", settings: OneStepSettings | None = None, *, device: torch.device | str = "cpu"
) -> OneStepRestorer:
    """Any prior as a restorer, before any training. Raises as `load_prior` does."""
    unet = load_prior(spec, device="cpu").unet
    assert isinstance(unet, UNet)
    damage = DamageNet()
    path = find_weights("damage", "damage")
    load_state(damage, read_weights(path).state, path)
    return one_step_of(unet, damage, settings).to(device)


def reload_restorer(restorer: Restorer, path: Path) -> None:
    """Give a restorer the weights of a file that `save_restorer` wrote. Raises BadCheckpoint."""
    _fill(restorer, read_weights(path).state, path)


def save_restorer(
    path: Path, restorer: Restorer, *, dtype: torch.dtype = torch.float32, about: Mapping[str, str] | None = None
) -> None:
    """Write a restorer so that `load_restorer` gives it back; one that came under published keys keeps them.

    `about` is what else the file's header says.
    """
    config = {"size": restorer.size, **restorer.config()}
    save_weights(path, restorer.stored, architecture=restorer.architecture, config=config, dtype=dtype, about=about)


def _read(path: Path, device: torch.device | str) -> Restorer:
    if reader := _reader_of(path):
        return reader.load(path, device)
    weights = read_weights(path)
    if weights.architecture not in BUILDERS:
        known = ", ".join(BUILDERS)
        kind = "prior" if weights.architecture == "unet" else weights.architecture
        raise BadCheckpoint(f"{path} holds a {kind}, not a restorer ({known}); name one as `restorer`.")
    config = dict(weights.config)
    with undrawn():
        restorer = BUILDERS[weights.architecture](config, config.pop("size"))
    _fill(restorer, weights.state, path)
    return restorer


def _reader_of(path: Path) -> Reader | None:
    """Who reads a file of another program; None for one of unfade's own."""
    return SPANDREL if spandrel.for_spandrel(path) else READERS.get(path.suffix.lower())


def _fill(restorer: Restorer, state: Mapping[str, Tensor], path: Path) -> None:
    """From now on, the restorer is written under the keys of this file."""
    if not state.keys() & restorer.stored.state_dict().keys():
        restorer.published = not restorer.published
    load_state(restorer.stored, state, path)
