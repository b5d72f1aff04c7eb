"""Text from outside, such as names of files, as a terminal, a list or a spreadsheet may show it."""

from collections.abc import Sequence

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
