"""Settings with the types that their fields declare, however they were computed."""

from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from unfade.errors import BadInput

S = TypeVar("S")


def as_declared(settings: S) -> S:
    """The settings, and those inside them, with numbers of numpy or torch as Python's, and 2e3 as 2000 where it counts.

    The others could not be written to a run folder or read again from a checkpoint. Raises BadInput for a fraction
    where a whole number is declared. What is not a dataclass is returned as it is.
    """
    if not is_dataclass(settings) or isinstance(settings, type):
        return settings
    found = {field.name: _as(field.type, getattr(settings, field.name), field.name) for field in fields(settings)}
    return replace(settings, **{name: value for name, value in found.items() if value is not getattr(settings, name)})


def _as(declared: Any, value: Any, name: str) -> Any:
    if is_dataclass(value):
        return as_declared(value)
    if isinstance(value, tuple) and any(hasattr(part, "item") for part in value):
        return tuple(_as(None, part, name) for part in value)
    if hasattr(value, "item"):
        value = value.item()
    if declared in (int, int | None) and isinstance(value, float):
        if not value.is_integer():
            raise BadInput(f"Expected `{name}` to be a whole number, got {value}.")
        return int(value)
    return value
