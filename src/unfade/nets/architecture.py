"""How a network is recognised by the keys of its published files, and how it is built from their header."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

if TYPE_CHECKING:  # a list of models should not wait for torch
    from torch import Tensor, nn

State: TypeAlias = "Mapping[str, Tensor]"
Config = dict[str, Any]  # numbers, strings and lists: what the header of a file holds
OfFaces = Literal["restorer", "detector", "parser", "landmarks", "identity", "damage"]
OfPictures = Literal["prior", "demosaic", "vqgan", "discriminator", "upscaler", "guide"]
OfMeasures = Literal["perceptual", "features", "statistics", "quality"]
Kind = OfFaces | OfPictures | OfMeasures
Convert = Callable[[State], State]
S = TypeVar("S")


@dataclass(frozen=True)
class Architecture:
    """One kind of network."""

    kind: Kind
    marks: tuple[str, ...]  # keys that, taken together, no network before it in the table has
    build: Callable[[Config], Any]  # with fresh weights
    configs: Callable[[State], Iterable[Config]]  # that the shapes in a file may belong to, the most likely first
    convert: Convert = dict  # the published tensors to the network's
    files: int = 1  # how many published files make it


def of_shapes(
    kind: Kind, marks: tuple[str, ...], network: "Callable[[Any], nn.Module]", *published: Any, convert: Convert = dict
) -> Architecture:
    """A network that its dataclass of settings alone describes; `published` are the ones with files."""
    settings = type(published[0])
    return Architecture(kind, marks, lambda config: network(from_header(settings, config)), fixed(*published), convert)


def fixed(*published: Any) -> Callable[[State], Iterable[Config]]:
    """Dataclasses of the published shapes; the check of all tensors decides which one fits."""
    return lambda state: [to_header(config) for config in published]


def to_header(settings: Any) -> Config:
    """A dataclass as the header of a file has it: dictionaries, and lists for tuples."""
    config: Config = _lists(asdict(settings))
    return config


def from_header(kind: type[S], config: Mapping[str, Any]) -> S:
    """The inverse; missing fields have the defaults of `kind`.

    Raises BadInput for a field that it does not have, and for a value of another type.
    """
    from unfade.store.headers import values_of

    return kind(**values_of(kind, config))


def without_size(config: Mapping[str, Any]) -> Config:
    """A header without the side of the pictures, for networks whose settings say it otherwise or not at all."""
    return {key: value for key, value in config.items() if key != "size"}


def count(state: State, pattern: str) -> int:
    """How many different numbers the keys have where the pattern has its group."""
    return len({match[1] for key in state if (match := re.match(pattern, key))})


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(part) for key, part in value.items()}
    return [_lists(part) for part in value] if isinstance(value, list | tuple) else value
