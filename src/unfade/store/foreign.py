"""Files of weights that other programs wrote, read purely as tensors: no code in them is ever run."""

import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from unfade.errors import BadCheckpoint, BadInput
from unfade.store.headers import refuse_degradation

CONTAINERS = (  # keys under which training code stores the weights, best first, in any case
    *("params_ema", "g_ema", "net_g_ema", "netg_ema", "generator_ema", "model_ema", "state_dict_ema", "ema_state_dict"),
    *("params", "state_dict", "model_state_dict", "ema", "model", "net_g", "netg", "generator", "g"),
    *("network", "net", "weights"),
)
PREFIXES = ("module.", "_orig_mod.", "net.")  # prefixes that wrappers of networks add to every key
PARTS = (  # prefixes of a network's keys among those of others, or of all keys of a network
    *("net_g_ema.", "netg_ema.", "g_ema.", "generator_ema.", "ema_model.", "model_ema.", "ema."),
    *("net_g.", "netg.", "generator.", "g.", "model.", "network.", "restorer.", *PREFIXES),
)
COUNTERS = ("total_ops", "total_params", "n_averaged")  # of thop and of torch's AveragedModel; they are no weights
TEXTS = {  # what is often downloaded in place of weights, by its first characters, and the way out
    b"version https://git-lfs": "the pointer that Git LFS leaves in place of a file; "
    "run `git lfs pull` where it lies, or download the file itself",
    b"<": "a web page; open its address in a browser, sign in or accept the terms if asked, and save the file itself",
}
SAFETENSORS, PICKLE, ONNX = "safetensors", "pickle", "onnx"
PLAIN = (  # allowed beyond torch's own list, as statistics are published as numpy arrays
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


def header_of(path: Path) -> dict[str, str]:
    """The texts in the header of a safetensors file; empty for any other or a damaged file."""
    if content_of(path) == SAFETENSORS:
        with suppress(SafetensorError), safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    return {}


def is_onnx(path: Path) -> bool:
    """Whether a file is an ONNX model, by its content or, if it is damaged, by its suffix."""
    return path.suffix.lower() == ".onnx" or content_of(path) == ONNX


def read_foreign(path: Path, *, key: str = "") -> dict[str, Tensor]:
    """The tensors of a .pth, .pt, .bin, .pkl, .ckpt or .safetensors file, whose format is recognized by its content.

    `key` is where its author stored the weights; without it, the usual places are searched. Prefixes of wrappers and
    counters of tools are left out; see `versions` for other prefixes. The tensors of files in torch's newer format are
    read from disk only when they are used. Raises BadInput if there is no file, BadCheckpoint if it is damaged, holds
    anything but weights, holds NaN, or would run code.
    """
    if not path.is_file():
        raise BadInput(f"There is no file {path}; name the file of weights that you fetched.")
    found = content_of(path)
    if found == ONNX:
        raise BadCheckpoint(f"{path} is an ONNX file, whose tensors are not read here; give the file it was made from.")
    if not found:
        refuse_text(path)
    if found == SAFETENSORS:
        state: Mapping[str, Tensor] = _from_safetensors(path)
    else:
        state = _state_in(_from_pickle(path), path, key)
    state = {name: value for name, value in state.items() if name.rsplit(".", 1)[-1] not in COUNTERS}
    refuse_nan(state, path)
    return without_prefix(state)


def refuse_text(path: Path, wanted: str = "weights") -> None:
    """Raises BadCheckpoint for an empty file, and for a text that is often saved in place of what was `wanted`."""
    with path.open("rb") as file:
        start = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
    if not path.stat().st_size:
        raise BadCheckpoint(f"{path} is empty; copy or download it again.")
    for mark, what in TEXTS.items():
        if start.startswith(mark):
            raise BadCheckpoint(f"{path} holds no {wanted}; it is {what}.")


def refuse_nan(state: Mapping[str, Tensor], path: Path) -> None:
    """Raises BadCheckpoint, naming the first tensor that holds NaN."""
    for name, value in state.items():
        if value.is_floating_point() and value.numel() and bool(_smallest(value).isnan()):
            raise BadCheckpoint(
                f"{path} holds values that are not numbers (NaN, first in {name}): the training that made it went "
                "wrong; choose an earlier file of it, or other weights."
            )


def without_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same state under keys without the prefixes that all of them share."""
    for prefix in PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            return without_prefix({key.removeprefix(prefix): value for key, value in state.items()})
    return dict(state)


def versions(state: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The state itself, and then the other possible readings of it: the part under each of PARTS, without the prefix.

    Which reading is right depends on the network: in some, `model.` is part of the keys, and `net_g.` may stand beside
    the discriminator's `net_d.`.
    """
    yield dict(state)
    for prefix in PARTS:
        part = {key[len(prefix) :]: value for key, value in state.items() if key.lower().startswith(prefix)}
        if part:
            yield from versions(part)


def _from_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, "pt") as file:
            refuse_degradation(file.metadata() or {}, path)
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise _damaged(path, f"not a whole safetensors file: {error}") from error


def _from_pickle(path: Path) -> Any:
    lazily = _check_archive(path)
    try:
        with torch.serialization.safe_globals([*PLAIN, *_array_makers()]):
            if path.suffix.lower() != ".safetensors":
                return torch.load(path, map_location="cpu", weights_only=True, mmap=lazily)
            with path.open("rb") as file:  # given a path, torch would go by its suffix, not by the content
                return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        culprit = _culprit(error)
        if not culprit:
            raise _damaged(path, "what it holds cannot be unpacked") from error
        raise BadCheckpoint(
            f"{path} holds more than plain weights ({culprit}), so nothing in it was run or used; "
            "get the file from its author's page."
        ) from error
    except Exception as error:  # a foreign file can be anything, and torch raises as many kinds of errors
        raise _damaged(path, " ".join(str(error).split())[:120] or type(error).__name__) from error


def _check_archive(path: Path) -> bool:
    """Whether the file is in torch's newer format, an archive of uncompressed parts; raises if that is damaged."""
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
    """The tensors in the containers of a file."""
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
    """The container to descend into: the author's, a usual one, or the only one that holds named tensors."""
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
    """The minimum, which is NaN if there is a NaN; makes no copy, as a file can claim a tensor larger than its data."""
    stored = tensor.untyped_storage()
    if tensor.numel() * tensor.itemsize > stored.nbytes():
        tensor = torch.empty(0, dtype=tensor.dtype).set_(stored)
    return (tensor if tensor.itemsize > 1 else tensor.float()).min()  # torch computes nothing in 8 bits


def _damaged(path: Path, reason: str) -> BadCheckpoint:
    return BadCheckpoint(f"{path} is damaged or no file of weights ({reason}); fetch it again.")


def _culprit(error: Exception) -> str:
    """What in the file is no plain weights, taken from torch's long message; empty if it does not say."""
    text = str(error)
    named = re.search(r"GLOBAL ([\w.]+)", text) or re.search(r"class ([\w.]+)", text)
    return f"it calls {named[1]}" if named else (text.split("error: ", 1)[-1].splitlines() or [""])[0][:80]


def _array_makers() -> list[Any]:
    """The function that makes a pickled array, under the names that numpy 2 and numpy 1 give it."""
    make = np.ndarray(0).__reduce__()[0]
    return [(make, f"numpy.{core}.multiarray._reconstruct") for core in ("_core", "core")]
