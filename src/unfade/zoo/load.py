"""Any network from a name, a file or a run folder: found, read, built and filled."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from unfade.errors import BadCheckpoint
from unfade.nets.architecture import Config, Kind
from unfade.store.checkpoints import Weights, load_state, read_weights, sha256_of
from unfade.store.foreign import without_prefix
from unfade.store.headers import check_described
from unfade.zoo.architectures import ARCHITECTURES
from unfade.zoo.models import find_weights, licence_of

N = TypeVar("N")
Build = Callable[[Config], nn.Module]  # from the header of a file, with fresh weights
SAID = {  # the noun and the setting for a kind, where they are not the kind's own name
    "identity": ("an embedder", "embedder"),
    "parser": ("a parser", "mask"),
    "upscaler": ("an upscaler", "background"),
}


@dataclass(frozen=True)
class Loaded(Generic[N]):
    """A network that can be run, and what is known about its file."""

    network: N
    path: Path
    architecture: str
    licence: str  # a name in LICENCES, or the licence in its card

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file, hexadecimal."""
        return sha256_of(self.path)


@dataclass(frozen=True)
class Reader:
    """How the files of another program are read."""

    architecture: str
    load: Callable[[Path, torch.device | str], Any]


def load_network(
    spec: str | Path,
    kind: Kind,
    *,
    device: torch.device | str = "cpu",
    builds: Mapping[str, Build] | None = None,
    reader_of: Callable[[Path], Reader | None] = lambda path: None,
    fill: Callable[[Any, Mapping[str, Tensor], Path], None] | None = None,
) -> Loaded[Any]:
    """The network that a name of the table, a file or a run folder stands for, in evaluation mode.

    `builds` maps an architecture to the function that builds its network from a file's header; by default it has the
    published networks of that kind. `reader_of` returns the reader of a file that another program wrote, None for one
    of unfade's. `fill` puts the tensors of the file into a network that has its own memory, so that it can be trained.

    Raises UnknownModel, which says how to get it, or BadCheckpoint for a file that is damaged or of another kind.
    """
    path = find_weights(spec, kind)
    licence = licence_of(spec, path)
    if reader := reader_of(path):
        return Loaded(reader.load(path, device), path, reader.architecture, licence)
    weights = read_weights(path)
    if builds is None:
        builds = {name: known.build for name, known in ARCHITECTURES.items() if known.kind == kind}
    build = partial(_builder(weights, builds, kind, path), weights.config)
    network = check_described(build, weights.state, path)
    if fill or not {name for name, _ in network.named_buffers()} <= network.state_dict().keys():
        network = build()  # it needs values that are not in the file
    (fill or _fill)(network, weights.state, path)
    return Loaded(network.eval().to(device), path, weights.architecture, licence)


def _builder(weights: Weights, builds: Mapping[str, Build], kind: Kind, path: Path) -> Build:
    found = weights.architecture
    if found not in builds:
        known = f"{ARCHITECTURES[found].kind} ({found})" if found in ARCHITECTURES else found
        noun, setting = SAID.get(kind, (f"a {kind}", kind))
        raise BadCheckpoint(f"{path} holds a {known}, not {noun}; name another as `{setting}`.")
    return builds[found]


def _fill(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    load_state(network, without_prefix(state), path)
