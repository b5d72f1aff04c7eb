"""A file's description of its network, checked before anything is built, since the file may not be trustworthy.

Numbers must be in range and settings of the types of their dataclass. The network is first built without memory for its
tensors, and with no more of them than the file can fill.
"""

import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from unfade.errors import BadCheckpoint, BadInput, UnfadeError

Config = dict[str, Any]

LARGEST = 65_536  # the largest number in the settings of a network: none has more codes, channels or pixels
LONGEST = 256  # the most items of a list, or characters of a text
DEEPEST = 4  # the deepest nesting of dictionaries and lists
WIDEST_FACE = 2048  # px
FITTED = "unfade fitted degradation"  # the format named in files that hold a degradation instead of a network
PARTS = 100  # the most modules for each tensor of a file
BESIDE = 1 << 26  # the most values that a network may compute itself, beyond the file's: 256 MB as float32


def read_config(text: str, path: Path) -> Config:
    """The settings of a network as a header holds them. Raises BadCheckpoint for anything but plain, bounded JSON."""
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _odd(path, f"its configuration is no JSON: {error}") from error
    if not isinstance(config, dict):
        raise _odd(path, f"its configuration is a {type(config).__name__}, not an object")
    if (reason := _outside(config)) is not None:
        raise _odd(path, reason)
    return config


def refuse_degradation(header: Mapping[str, str], path: Path) -> None:
    """Raises BadCheckpoint if the header is that of a fitted degradation, which lies beside a restorer in a run."""
    if header.get("format") == FITTED:
        raise BadCheckpoint(
            f"{path} holds a fitted degradation, not weights; name the restorer's file, or the folder of the run."
        )


def whole_size(size: object, path: Path | str = "The file") -> int:
    """A side in px that a header or a card gives. Raises BadCheckpoint for anything but a whole number in range."""
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= WIDEST_FACE:
        got = "no size of its pictures" if size is None else f"pictures of {_short(size)} px"
        raise _odd(path, f"it states {got}, but a whole number of 1..{WIDEST_FACE} is expected")
    return size


def values_of(kind: type, config: Mapping[str, Any]) -> dict[str, Any]:
    """Values for the fields of the dataclass `kind` from JSON: lists become tuples, dictionaries dataclasses.

    Raises BadInput for a field it does not have, and for a value of another type.
    """
    hints = get_type_hints(kind)
    if unknown := sorted(set(config) - {field.name for field in fields(kind)}):
        raise BadInput(f"A {kind.__name__} has no {', '.join(unknown)[:80]}: use the file's own configuration.")
    return {name: _cast(hints[name], value, name) for name, value in config.items()}


def check_described(build: Callable[[], nn.Module], state: Mapping[str, Tensor], path: Path) -> nn.Module:
    """Build the network that a header describes on the meta device, where it takes no memory, and return it.

    Raises BadCheckpoint if it cannot be built, or is larger than the file that should fill it.
    """
    try:
        with torch.device("meta"), _at_most(len(state), sum(value.numel() for value in state.values())):
            network = build()
    except Exception as error:  # untested settings may raise anything
        raise _odd(path, f"its network cannot be built ({_line(error)})") from error
    beside = sum(value.numel() for value in network.buffers()) - sum(value.numel() for value in state.values())
    if beside > BESIDE:
        raise _odd(path, f"its network would hold {beside:,} numbers more than the file")
    return network


def _odd(path: Path | str, reason: str) -> BadCheckpoint:
    return BadCheckpoint(f"{path} does not describe a network that its weights fit: {reason}; get the file again.")


def _outside(value: object, depth: int = 0, name: str = "it") -> str | None:
    """What in a configuration is out of range, in words; None if nothing is."""
    if isinstance(value, bool | NoneType):
        return None
    if isinstance(value, int | float):
        return None if math.isfinite(value) and 0 <= value <= LARGEST else f"{name} is {_short(value)}"
    if len(value) > LONGEST or depth > DEEPEST:  # type: ignore[arg-type]  # JSON has nothing else
        return f"{name} is too long or too deep"
    if isinstance(value, str):
        return None
    parts = value.items() if isinstance(value, dict) else ((name, part) for part in value)  # type: ignore[attr-defined]
    return next((problem for key, part in parts if (problem := _outside(part, depth + 1, str(key)[:40]))), None)


def _cast(hint: Any, value: object, name: str) -> object:
    """A value of JSON as the type of its field. Raises BadInput."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        plain = [part for part in inner if part is not NoneType]
        return None if value is None and NoneType in inner else _cast(plain[0], value, name)
    if origin is tuple and isinstance(value, list | tuple):
        each = [inner[0]] * len(value) if inner[-1] is Ellipsis else list(inner)
        if len(each) == len(value):
            return tuple(_cast(part, item, name) for part, item in zip(each, value, strict=True))
    elif origin is Literal and value in inner:
        return value
    elif isinstance(hint, type) and is_dataclass(hint) and isinstance(value, dict):
        return hint(**values_of(hint, value))
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif isinstance(hint, type) and type(value) is hint:
        return value
    raise BadInput(f"{name} is {_short(value)}, not of type {getattr(hint, '__name__', hint)}")


@contextmanager
def _at_most(tensors: int, numbers: int) -> Iterator[None]:
    """Inside, building a network in this thread fails if it exceeds these numbers of tensors and values, or PARTS."""
    mine, counts = threading.get_ident(), {"tensors": 0, "numbers": 0, "parts": 0}

    def counted(module: nn.Module, name: str, value: Tensor | None) -> None:
        if threading.get_ident() == mine and value is not None:
            counts["tensors"] += 1
            counts["numbers"] += value.numel()
            if not value.numel():
                raise BadCheckpoint(f"{name} would be empty")
            if counts["tensors"] > 2 * tensors + PARTS or counts["numbers"] > 2 * numbers + BESIDE:
                raise BadCheckpoint("it is larger than the file")

    def part(module: nn.Module, name: str, submodule: nn.Module | None) -> None:
        counts["parts"] += threading.get_ident() == mine
        if counts["parts"] > PARTS * (tensors + 1):
            raise BadCheckpoint("it has more parts than the file")

    handles = (
        hooks.register_module_parameter_registration_hook(counted),
        hooks.register_module_module_registration_hook(part),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _line(error: Exception) -> str:
    said = " ".join(str(error).split()).rstrip(".;")[:160]
    return said if isinstance(error, UnfadeError) else f"{type(error).__name__}: {said}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
