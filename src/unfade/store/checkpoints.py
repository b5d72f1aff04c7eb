"""Networks on disk: safetensors with the architecture and its settings in the header, and a card beside the file."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from os.path import lexists
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from unfade.atomic import atomic_write, write_through
from unfade.errors import BadCheckpoint, BadInput, OutputConflict
from unfade.locks import locked
from unfade.processes import leads
from unfade.store.foreign import SAFETENSORS, content_of, refuse_nan, refuse_text
from unfade.store.headers import FITTED, LONGEST, read_config, refuse_degradation, whole_size


@dataclass(frozen=True)
class Weights:
    """The content of a file of weights."""

    architecture: str  # "unet", "swinir", ...
    config: dict[str, Any]  # the settings with which the network is built
    state: dict[str, Tensor]


def save_weights(
    path: Path,
    network: nn.Module,
    *,
    architecture: str,
    config: Mapping[str, Any],
    dtype: torch.dtype,
    about: Mapping[str, str] | None = None,
) -> None:
    """Write a network atomically. Floating point tensors are stored as `dtype`; other tensors as they are.

    `about` holds further entries of the header. Equal networks give identical files.
    """
    header = {**(about or {}), "architecture": architecture, "config": json.dumps(config)}
    state = {k: _stored(v, dtype) for k, v in network.state_dict().items()}

    write_tensors(path, state, header)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Write contiguous tensors with these entries of the header, atomically. Equal content gives identical files."""

    def write(temporary: Path) -> None:
        save_file(dict(tensors), temporary, dict(header))
        sort_header(temporary)

    write_through(path, write)


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The entries of a file's header, and its tensors as they are stored. Raises BadCheckpoint for a damaged file."""
    with _opened(path) as file:
        found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
        header = dict(file.metadata() or {})
    refuse_nan(found, path)
    return header, found


def sort_header(path: Path) -> None:
    """Sort the entries of a safetensors file's header, as safetensors writes its metadata in random order.

    Sorting does not change the header's length, so the tensors keep their offsets.
    """
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        found = json.loads(file.read(length))
        ordered = json.dumps(found, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
        if len(ordered) > length:
            raise BadCheckpoint(f"{path} has a header of {length} bytes that has {len(ordered)} bytes when sorted.")
        file.seek(8)
        file.write(ordered.ljust(length))


def read_weights(path: Path) -> Weights:
    """Read a file by `save_weights`; floating point tensors of 16 bits become float32. Raises BadCheckpoint."""
    with _opened(path) as file:
        architecture, config = _header(file, path)
        state = {key: _at_least_float32(file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118 - not a dict
    refuse_nan(state, path)
    return Weights(architecture, config, state)


def read_header(path: Path) -> tuple[str, dict[str, Any]]:
    """The architecture and the settings in a file by `save_weights`. Raises BadCheckpoint."""
    with _opened(path) as file:
        return _header(file, path)


def image_size(path: Path) -> int:
    """Side of a network's images in pixels, from the header of its file alone. Raises BadCheckpoint."""
    _, config = read_header(path)
    return whole_size(config.get("size"), path)


def is_own(path: Path) -> bool:
    """Whether a file is to be read, or refused, by `read_weights`: unfade's own safetensors, or damaged ones.

    A network that spandrel built is also written with a header, but spandrel builds it again.
    """
    if content_of(path) != SAFETENSORS:
        return path.suffix.lower() == ".safetensors"
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
    except (SafetensorError, OSError):
        return True
    named = "config" in header and header.get("architecture") != "spandrel"
    return named or header.get("format") == FITTED


def load_state(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Fill a network, strictly; a network on the meta device takes over the tensors without copying them.

    Raises BadCheckpoint, naming the first key that does not fit.
    """
    expected = network.state_dict()
    for key in sorted(expected.keys() | state.keys()):
        have, want = state.get(key), expected.get(key)
        if have is None or want is None or have.shape != want.shape or _differ(have, want):
            reason = f"{key} is {_shape(have)} in the file and {_shape(want)} in the network"
            raise BadCheckpoint(f"{path} is of another architecture: {reason}; choose the weights made for it.")
    empty = any(value.is_meta for value in expected.values())
    network.load_state_dict({k: v.to(expected[k].dtype) for k, v in state.items()}, assign=empty)


def start_from(network: nn.Module, path: Path) -> Mapping[str, Any]:
    """Fill a network with the tensors of a file; tensors that the file lacks keep their initial values.

    Returns the configuration that the file holds. Raises BadCheckpoint where the file holds a tensor that the network
    lacks, or none that it has.
    """
    fresh = network.state_dict()
    found = read_weights(path)
    lacking = {key: fresh[key] for key in fresh.keys() - found.state.keys()}
    load_state(network, {**lacking, **found.state}, path)
    return found.config


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_output(path: Path, checkpoint: Path) -> None:
    """Checks that a training may write weights to `path`; `checkpoint` is the file that its run keeps meanwhile.

    Raises BadInput for a suffix other than .safetensors, OutputConflict where the file or its card exists already but
    there is no checkpoint of a run, or they are no weights and no card.
    """
    if path.suffix != ".safetensors":
        raise BadInput(f"{path} must end in .safetensors, the format that weights are written in.")
    is_weights, is_card = path.is_file() and content_of(path) == SAFETENSORS, "kind" in read_card(path)
    for file, is_ours in ((path, is_weights), (card_path(path), is_card)):
        if lexists(file) and not (is_ours and checkpoint.exists()):
            raise OutputConflict(f"{file} is there already and was made in another way; name another file as `out`.")


@contextmanager
def trained_alone(path: Path) -> Iterator[None]:
    """Inside, no other training writes weights to `path`; the processes of torchrun are one.

    Raises OutputConflict while another is at work.
    """
    if not leads():
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    place = path.with_name(f".{path.name}.lock")
    busy = f"{path} is being trained by another process; wait for it, or name another file as `out`."
    with locked(place, lambda: busy):
        try:
            yield
        finally:
            with suppress(OSError):  # Windows removes nothing that is open
                place.unlink()


def card_path(weights: Path) -> Path:
    """The path of the card of a file of weights."""
    return weights.with_suffix(".json")


def write_card(weights: Path, card: Mapping[str, Any]) -> None:
    """Write the card beside the weights."""
    atomic_write(card_path(weights), json.dumps(card, indent=2, ensure_ascii=False) + "\n")


def read_card(weights: Path) -> dict[str, Any]:
    """The card beside the weights; empty if there is none, or no valid one."""
    return read_object(card_path(weights))


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if there is no file, or it holds something else."""
    try:
        found = json.loads(path.read_bytes()) if path.exists() else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if path.is_file() and not content_of(path):
        refuse_text(path)
    try:
        with safe_open(path, "pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise BadCheckpoint(f"{path} is not a readable safetensors file ({error}); make or copy it again.") from error


def _header(file: Any, path: Path) -> tuple[str, dict[str, Any]]:
    header = file.metadata() or {}
    refuse_degradation(header, path)
    if "architecture" not in header or "config" not in header:
        raise BadCheckpoint(f"{path} does not say which network it is for; it was not written by unfade.")
    return header["architecture"][:LONGEST], read_config(header["config"], path)


def _stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy of a tensor to be written, since safetensors refuses tensors that share memory."""
    kept = tensor.to(dtype) if tensor.is_floating_point() else tensor
    return kept.detach().clone(memory_format=torch.contiguous_format)


def _at_least_float32(tensor: Tensor) -> Tensor:
    """A tensor in float32; float64 stays, as the covariance of statistics needs it to be inverted."""
    return tensor.float() if tensor.is_floating_point() and tensor.itemsize < 4 else tensor


def _shape(tensor: Tensor | None) -> str:
    kind = "" if tensor is None or tensor.is_floating_point() else f" and {tensor.dtype}"
    return "missing" if tensor is None else f"of shape {tuple(tensor.shape)}{kind}"


def _differ(have: Tensor, want: Tensor) -> bool:
    """Whether two tensors differ in shape, or one is of floating point and the other is not."""
    return have.is_complex() or have.is_floating_point() != want.is_floating_point()
