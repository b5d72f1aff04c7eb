"""The lists of a page: what failed and why, what was left out, what was noted."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from unfade.jobs.journal import Entry, Status, notes_of

_UNDONE: dict[Status, str] = {"failed": "Failed", "skipped": "Skipped", "no_face": "Without a face"}


@dataclass(frozen=True)
class Line:
    """One item of a list."""

    name: str
    text: str = ""  # one sentence about the item
    address: str = ""  # address of its file, relative to the page and quoted


@dataclass(frozen=True)
class Listing:
    """A list with its title; the page adds the number of lines."""

    title: str
    lines: Sequence[Line]
    about: str = ""  # one sentence above the lines


def undone(entries: Iterable[Entry], of: str = "") -> list[Listing]:
    """The items that are not done, a list for each status, so that its lines match the counts.

    `of` follows the titles: whose entries these are.
    """
    everything = list(entries)
    kinds = {title: [e for e in everything if e.status == status] for status, title in _UNDONE.items()}
    return [Listing(title + of, [Line(e.item, e.reason) for e in some]) for title, some in kinds.items() if some]


def notes(entries: Iterable[Entry]) -> list[Listing]:
    """Everything that was noted about items, in one list; none if that is nothing."""
    lines = [Line(name, note) for name, note in notes_of(entries)]
    about = "What was converted, was left out, or is worth a look; the journal has it too."
    return [Listing("Notes", lines, about)] if lines else []


def named(title: str, names: Iterable[str], about: str) -> list[Listing]:
    """A list of names alone; none if there are none."""
    lines = [Line(name) for name in names]
    return [Listing(title, lines, about)] if lines else []
