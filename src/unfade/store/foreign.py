"""Files of weights that other programs wrote, read as tensors and nothing else: no code in them is ever run."""

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from unfade.errors import BadCheckpoint, BadInput

CONTAINERS = ("params_ema", "params", "state_dict", "ema", "model")  # where training code puts the weights, best first
PREFIXES = ("module.", "_orig_mod.", "net.")  # what wrappers of networks put before every key
PLAIN = (  # beyond torch's own list: statistics are published as numpy arrays
    np.ndarray,
    np.dtype,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
)


def read_foreign(path: Path, *, key: str = "") -> dict[str, Tensor]:
    """The tensors of a .pth, .pt, .pkl, .ckpt or .safetensors file, known by its content, without wrappers' prefixes.

    `key` is where its author put the weights; otherwise the usual places are looked at. The tensors of new files are
    read from the disk when they are used. Raises BadInput if there is no file, BadCheckpoint if it is damaged, holds
    anything but weights, or would run code.
    """
    if not path.is_file():
        raise BadInput(f"There is no file {path}; name the file of weights that you fetched.")
    with path.open("rb") as file:
        start = file.read(9)
    if path.suffix.lower() == ".safetensors" or start[8:] == b"{":
        return without_prefix(_from_safetensors(path))
    return without_prefix(_state_in(_from_pickle(path), path, key))


def without_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same under keys without the prefixes that all of them have."""
    for prefix in PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            return without_prefix({key.removeprefix(prefix): value for key, value in state.items()})
    return dict(state)


def _from_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise _damaged(path, f"not a whole safetensors file: {error}") from error


def _from_pickle(path: Path) -> Any:
    lazily = _check_archive(path)
    try:
        with torch.serialization.safe_globals([*PLAIN, *_array_makers()]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=lazily)
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
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
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
    inside = [content[name] for name in (key, *CONTAINERS) if isinstance(content.get(name), Mapping)]
    if inside:
        return _state_in(inside[0], path, key)
    state = {name: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for name, v in content.items()}
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or value.layout != torch.strided:
            raise BadCheckpoint(f"{path} holds {name} among its weights, a {type(value).__name__}; give another file.")
    return state


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
