"""Load a restorer from a name, a file or a run folder, and save it to a file."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from unfade.devices import Device, choose_device
from unfade.errors import BadInput
from unfade.nets import codeformer, gfpgan, swinir, vqfr
from unfade.nets.architecture import Config
from unfade.own_modes import own_modes
from unfade.restorers import one_step, onnx, spandrel
from unfade.restorers.base import Restorer
from unfade.restorers.by_size import BySize
from unfade.restorers.code_level import CodeFormerRestorer
from unfade.restorers.image_level import GFPGANRestorer, SwinIRRestorer
from unfade.restorers.one_step import OneStepRestorer, OneStepSettings, one_step_of
from unfade.restorers.vqfr import VQFRRestorer
from unfade.store.checkpoints import is_own, load_state, read_header, read_weights, save_weights
from unfade.store.foreign import is_onnx
from unfade.store.headers import whole_size
from unfade.zoo.load import Loaded, Reader, load_network
from unfade.zoo.models import find_weights

RESTORERS: dict[str, Callable[[Config], Restorer]] = {  # build from the header of a file, with random weights
    "swinir": lambda config: SwinIRRestorer(swinir.ARCHITECTURE.build(config), whole_size(config.get("size"))),
    "one_step": one_step.built,
    "gfpgan": lambda config: GFPGANRestorer(gfpgan.ARCHITECTURE.build(config)),
    "codeformer": lambda config: CodeFormerRestorer(codeformer.ARCHITECTURE.build(config)),
    "vqfr": lambda config: VQFRRestorer(vqfr.ARCHITECTURE.build(config)),
}


@dataclass(frozen=True)
class RestorerReader(Reader):
    """How the files of other programs are read."""

    size_of: Callable[[Path], int]  # side of the face, px


SPANDREL = RestorerReader(spandrel.ARCHITECTURE, spandrel.load_spandrel, spandrel.spandrel_size)
ONNX = RestorerReader(onnx.ARCHITECTURE, onnx.load_onnx, onnx.onnx_size)


@dataclass(frozen=True)
class Head:
    """The header of a file, read without its weights."""

    architecture: str
    size: int  # side of the face, px


def head_of(spec: str | Path) -> Head:
    """Which network a name, a file or a run folder stands for. Raises UnknownModel, BadCheckpoint."""
    path = find_weights(spec, "restorer")
    if reader := _reader_of(path):
        return Head(reader.architecture, reader.size_of(path))
    architecture, config = read_header(path)
    return Head(architecture, whole_size(config.get("size"), path))


@own_modes()
def load_restorer(
    spec: str | Path = "small-restorer",
    *,
    fidelity: float | None = None,
    refine: int | None = None,
    device: Device = "auto",
) -> Restorer:
    """A restorer in evaluation mode.

    `spec` is a name, a .safetensors file, the folder of an adaptation, or another program's file with a restorer.
    `fidelity` in 0..1 and `refine` in 0..3 are for families that support them; None is the default (0.5 for CodeFormer,
    the file's for a one-step restorer). Raises UnknownModel, BadCheckpoint for weights of another kind, and BadInput
    for a choice that the family does not support or a device that is not available.
    """
    return loaded_restorer(spec, fidelity=fidelity, refine=refine, device=device).network


def loaded_restorer(
    spec: str | Path, *, fidelity: float | None = None, refine: int | None = None, device: Device = "auto"
) -> Loaded[Restorer]:
    """`load_restorer`, together with the facts about the file."""
    loaded: Loaded[Restorer] = load_network(
        spec, "restorer", device=choose_device(device), builds=RESTORERS, reader_of=_reader_of, fill=_fill
    )
    if fidelity is not None:
        loaded.network.set_fidelity(fidelity)
    if refine is not None:
        loaded.network.set_refine(refine)
    return loaded


def loaded_restorers(
    specs: str | Path | Sequence[str | Path],
    *,
    fidelity: float | None = None,
    refine: int | None = None,
    device: Device = "auto",
) -> Loaded[Restorer]:
    """`loaded_restorer` for one or several of different sizes, which become one.

    Raises BadInput for equal sizes, and for none at all.
    """
    if isinstance(specs, str | PathLike):
        specs = (specs,)
    if not specs:
        raise BadInput("Name a restorer, or several of different sizes; got an empty list.")
    parts = [loaded_restorer(spec, fidelity=fidelity, refine=refine, device=device) for spec in specs]
    if len(parts) == 1:
        return parts[0]
    licence = " and ".join(dict.fromkeys(part.licence for part in parts))
    network = BySize([part.network for part in parts]).eval()
    return _Several(network, parts[0].path, network.architecture, licence, tuple(parts))


@dataclass(frozen=True)
class _Several(Loaded[Restorer]):
    """Restorers of several files as one."""

    parts: tuple[Loaded[Restorer], ...]

    @cached_property
    def sha256(self) -> str:
        """Their hashes, in the order of their sizes, separated by commas."""
        return ", ".join(part.sha256 for part in sorted(self.parts, key=lambda part: part.network.size))


def each_of(loaded: Loaded[Restorer]) -> tuple[Loaded[Restorer], ...]:
    """The restorers of several files that `loaded_restorers` joined; otherwise the one itself."""
    return loaded.parts if isinstance(loaded, _Several) else (loaded,)


def one_step_of_prior(spec: str | Path = "small-prior", settings: OneStepSettings | None = None) -> OneStepRestorer:
    """A one-step restorer from any prior, before any training. Raises what `load_prior` raises."""
    unet, damage = load_network(spec, "prior").network, load_network("damage", "damage").network
    return one_step_of(unet, damage, settings)


def reload_restorer(restorer: Restorer, path: Path) -> None:
    """Load the weights of a file that `save_restorer` wrote into a restorer. Raises BadCheckpoint."""
    _fill(restorer, read_weights(path).state, path)


def save_restorer(
    path: Path, restorer: Restorer, *, dtype: torch.dtype = torch.float32, about: Mapping[str, str] | None = None
) -> None:
    """Write a restorer to a file for `load_restorer`; if it was loaded with published keys, it is saved with them.

    `about` holds further entries of the file's header.
    """
    config = {"size": restorer.size, **restorer.config()}
    save_weights(path, restorer.stored, architecture=restorer.architecture, config=config, dtype=dtype, about=about)


def _reader_of(path: Path) -> RestorerReader | None:
    """The reader of another program's file, recognised by its content; None for unfade's own files."""
    return ONNX if is_onnx(path) else None if is_own(path) else SPANDREL


def _fill(restorer: Restorer, state: Mapping[str, Tensor], path: Path) -> None:
    """Load the weights; the restorer will be saved with the keys of this file."""
    if not state.keys() & restorer.stored.state_dict().keys():
        restorer.published = not restorer.published
    load_state(restorer.stored, state, path)
