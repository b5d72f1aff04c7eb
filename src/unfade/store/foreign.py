"""Files of weights that other programs wrote, read as tensors and nothing else: no code in them is ever run."""

import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from unfade.errors import BadCheckpoint, BadInput

CONTAINERS = (  # where training code puts the weights, best first; the case of letters does not matter
    *("params_ema", "g_ema", "net_g_ema", "netg_ema", "generator_ema", "model_ema", "state_dict_ema", "ema_state_dict"),
    *("params", "state_dict", "model_state_dict", "ema", "model", "net_g", "netg", "generator", "g"),
    *("network", "net", "weights"),
)
PREFIXES = ("module.", "_orig_mod.", "net.")  # what wrappers of networks put before every key
PARTS = (  # what a training puts before the keys of the network among others, or a network before all of its own
    *("net_g_ema.", "netg_ema.", "g_ema.", "generator_ema.", "ema_model.", "model_ema.", "ema."),
    *("net_g.", "netg.", "generator.", "g.", "model.", "network.", "restorer.", *PREFIXES),
)
COUNTERS = ("total_ops", "total_params", "n_averaged")  # of thop and of torch's AveragedModel: no weights
SAFETENSORS, PICKLE, ONNX = "safetensors", "pickle", "onnx"
PLAIN = (  # beyond torch's own list: statistics are published as numpy arrays
    np.ndarray,
    np.dtype,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
)


def content_of(path: Path) -> str:
    """SAFETENSORS, PICKLE (of torch, old or new) or ONNX, by a file's first bytes; "" for anything else."""
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:] == b"{":
        return SAFETENSORS
    if start[:4] == b"PK\3\4" or start[:1] == b"\x80":
        return PICKLE
    return ONNX if start[:1] == b"\x08" else ""  # the number of the format stands first


def is_onnx(path: Path) -> bool:
    """Whether a file is for an ONNX runtime, by its content or, be it damaged, by its ending."""
    return path.suffix.lower() == ".onnx" or content_of(path) == ONNX


def read_foreign(path: Path, *, key: str = "") -> dict[str, Tensor]:
    """The tensors of a .pth, .pt, .bin, .pkl, .ckpt or .safetensors file, known by its content and not by its ending.

    `key` is where its author put the weights; otherwise the usual places are looked at. Prefixes of wrappers and
    counters of tools are left out; see `versions` for other prefixes. The tensors of new files are read from the disk
    when they are used. Raises BadInput if there is no file, BadCheckpoint if it is damaged, holds anything but
    weights, holds values that are not numbers, or would run code.
    """
    if not path.is_file():
        raise BadInput(f"There is no file {path}; name the file of weights that you fetched.")
    found = content_of(path)
    if found == ONNX:
        raise BadCheckpoint(f"{path} is an ONNX file, whose tensors are not read here; give the file it was made from.")
    if found == SAFETENSORS:
        state: Mapping[str, Tensor] = _from_safetensors(path)
    else:
        state = _state_in(_from_pickle(path), path, key)
    state = {name: value for name, value in state.items() if name.rsplit(".", 1)[-1] not in COUNTERS}
    refuse_nan(state, path)
    return without_prefix(state)


def refuse_nan(state: Mapping[str, Tensor], path: Path) -> None:
    """Raises BadCheckpoint that names the first tensor with values that are not numbers."""
    for name, value in state.items():
        if value.is_floating_point() and value.numel() and bool(_smallest(value).isnan()):
            raise BadCheckpoint(
                f"{path} holds values that are not numbers (NaN, first in {name}): the training that made it went "
                "wrong; choose an earlier file of it, or other weights."
            )


def without_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same under keys without the prefixes that all of them have."""
    for prefix in PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            return without_prefix({key.removeprefix(prefix): value for key, value in state.items()})
    return dict(state)


def versions(state: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The state as it is, and then what it may be meant to be: the part under each of PARTS, without that prefix.

    Only whoever knows networks can tell which one it is: `model.` is part of the names in some, and `net_g.` may
    stand beside the discriminator's `net_d.`.
    """
    yield dict(state)
    for prefix in PARTS:
        part = {key[len(prefix) :]: value for key, value in state.items() if key.lower().startswith(prefix)}
        if part:
            yield from versions(part)


def _from_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise _damaged(path, f"not a whole safetensors file: {error}") from error


def _from_pickle(path: Path) -> Any:
    lazily = _check_archive(path)
    try:
        with torch.serialization.safe_globals([*PLAIN, *_array_makers()]):
            if path.suffix.lower() != ".safetensors":
                return torch.load(path, map_location="cpu", weights_only=True, mmap=lazily)
            with path.open("rb") as file:  # torch goes by this ending, and not by the content
                return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise BadCheckpoint(
            f"{path} holds more than plain weights ({_culprit(error)}), so nothing of it was run or taken; "
            "get the file from its author's page."
        ) from error
    except Exception as error:  # a foreign file can be anything, and torch raises as many kinds of errors
        raise _damaged(path, " ".join(str(error).split())[:120] or type(error).__name__) from error


def _check_archive(path: Path) -> bool:
    """Whether it is the newer kind of file, an archive, and a sound one: torch stores its parts uncompressed."""
    with path.open("rb") as file:
        if file.read(4) != b"PK\3\4":
            return False
    if not zipfile.is_zipfile(path):
        raise _damaged(path, "its end is missing")
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except Exception as error:  # its directory can hold anything
        raise _damaged(path, f"its directory is broken: {error}") from error
    if (
        any(p.compress_type != zipfile.ZIP_STORED for p in parts)
        or sum(p.file_size for p in parts) > path.stat().st_size
    ):
        raise _damaged(path, "it unpacks to more than it holds")
    return True


def _state_in(content: Any, path: Path, key: str) -> dict[str, Tensor]:
    """Go down through containers to the tensors."""
    if not isinstance(content, Mapping) or not content:
        raise BadCheckpoint(f"{path} holds a {type(content).__name__} without weights; give a file of weights.")
    if (inside := _inside(content, key)) is not None:
        return _state_in(inside, path, key)
    state = {name: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for name, v in content.items()}
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or value.layout != torch.strided:
            raise BadCheckpoint(f"{path} holds {name} among its weights, a {type(value).__name__}; give another file.")
    return state


def _inside(content: Mapping[Any, Any], key: str) -> Mapping[Any, Any] | None:
    """The container to go into: the author's, a usual one, or the only one that holds tensors by their names."""
    names = {str(name).lower(): name for name in content}
    wanted = [key, *(names[name] for name in CONTAINERS if name in names)]
    usual = [content[name] for name in wanted if isinstance(content.get(name), Mapping) and content[name]]
    if usual or _has_tensors(content):
        return usual[0] if usual else None
    others = [value for value in content.values() if isinstance(value, Mapping) and _has_tensors(value)]
    return others[0] if len(others) == 1 else None


def _has_tensors(content: Mapping[Any, Any]) -> bool:
    return any(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items())


def _smallest(tensor: Tensor) -> Tensor:
    """NaN if there is one, without a copy of the whole: a file can claim a tensor larger than the numbers it has."""
    stored = tensor.untyped_storage()
    if tensor.numel() * tensor.itemsize > stored.nbytes():
        tensor = torch.empty(0, dtype=tensor.dtype).set_(stored)
    return (tensor if tensor.itemsize > 1 else tensor.float()).min()  # torch computes nothing in 8 bits


def _damaged(path: Path, reason: str) -> BadCheckpoint:
    return BadCheckpoint(f"{path} is damaged or no file of weights ({reason}); fetch it again.")


def _culprit(error: Exception) -> str:
    """The function that the file wanted to have called, from torch's many lines."""
    text = str(error)
    named = re.search(r"GLOBAL ([\w.]+)", text) or re.search(r"class ([\w.]+)", text)
    return f"it calls {named[1]}" if named else text.split("error: ", 1)[-1].splitlines()[0][:80]


def _array_makers() -> list[Any]:
    """The function that makes a pickled array, under the names that numpy 2 and numpy 1 give it."""
    make = np.ndarray(0).__reduce__()[0]
    return [(make, f"numpy.{core}.multiarray._reconstruct") for core in ("_core", "core")]
