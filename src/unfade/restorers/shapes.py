"""Shapes of networks as JSON keeps them, and back."""

from dataclasses import fields
from typing import Any

from unfade.errors import BadInput


def as_lists(config: dict[str, Any]) -> dict[str, Any]:
    """Nested settings as JSON gives them back: lists for tuples."""
    shapes = {key: as_lists(value) if isinstance(value, dict) else value for key, value in config.items()}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in shapes.items()}


def as_tuples(config: dict[str, Any], kind: type) -> dict[str, Any]:
    """The inverse for one level, of the dataclass `kind`. Raises BadInput on a field that it does not have."""
    known = {field.name for field in fields(kind)}
    if unknown := sorted(set(config) - known):
        raise BadInput(f"A {kind.__name__} has {sorted(known)}, not {unknown}: use the file's own configuration.")
    return {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
