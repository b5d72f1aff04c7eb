"""What a terminal, a spreadsheet or a reader of JSON is shown, including text from outside, such as file names."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what makes a spreadsheet run a cell (OWASP, "CSV Injection")


def printable(text: str) -> str:
    r"""The text with what is not printable escaped: an escape character becomes \x1b, a line break \n.

    Nothing in it can then move a cursor, turn the direction of writing, or pass for another line.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def first_few(names: Sequence[str], most: int = 3) -> str:
    """The first `most` names, separated by commas, and the number of the others."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def cell(value: object) -> object:
    """A value for a CSV file: text is printable, and behind an apostrophe if a spreadsheet would compute it."""
    if not isinstance(value, str):
        return value
    return f"'{printable(value)}" if value.startswith(FORMULA) else printable(value)


def finite(value: Any) -> Any:
    """A value for JSON, where numbers are finite: others become None, also in lists and mappings."""
    if isinstance(value, Mapping):
        return {name: finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_text(value: Any, *, indent: int | None = None, ascii_only: bool = True) -> str:
    """A value as JSON of the standard, which every reader takes; see `finite`."""
    return json.dumps(finite(value), indent=indent, ensure_ascii=ascii_only, allow_nan=False)
