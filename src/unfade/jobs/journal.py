"""The journal of a run: one line for each result of an item in a stage, and for each file of the run itself."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from unfade.errors import OutputConflict
from unfade.jobs.json_lines import JsonLines

Status = Literal["begun", "done", "skipped", "failed", "no_face", "withdrawn"]
OWN = "own"  # the stage of files that belong to the run as a whole: its report, its weights


@dataclass(frozen=True)
class Entry:
    """What became of one item in one stage; the last entry of an item counts.

    "begun" is recorded before the outputs are written, so that a run that was killed meanwhile can tell that the files
    are its own; "withdrawn" means that they have been removed.
    """

    stage: str
    item: str  # the name of the input file
    status: Status
    key: str = ""  # hash of the settings and the content that the result was made from
    reason: str = ""  # one sentence, for every status but "done"
    notes: tuple[str, ...] = ()  # what had to be converted
    outputs: tuple[str, ...] = ()  # names of the files made from the item, the main one first; no other item has them

    @property
    def output(self) -> str:
        """The name of the main file made from the item; empty if there is none."""
        return self.outputs[0] if self.outputs else ""

    @property
    def is_open(self) -> bool:
        """Whether another run might still give a result: the item failed, or an existing file was in its way."""
        return self.status == "failed" or (self.status == "skipped" and not self.key)


@dataclass(frozen=True)
class Counts:
    """How many items ended in which way; found = done + skipped + failed + no_face, always."""

    found: int
    done: int
    skipped: int
    failed: int
    no_face: int

    @staticmethod
    def of(entries: Iterable[Entry]) -> "Counts":
        """Count the entries of a stage, one for each item."""
        statuses = [entry.status for entry in entries]
        kinds: tuple[Status, ...] = ("done", "skipped", "failed", "no_face")
        return Counts(len(statuses), *(statuses.count(kind) for kind in kinds))

    def as_dict(self) -> dict[str, int]:
        """The five numbers by name."""
        return asdict(self)


def notes_of(entries: Iterable[Entry]) -> list[tuple[str, str]]:
    """(file name, note) of all notes about items, except those on the number of faces."""
    return [(e.item, note) for e in entries for note in e.notes if not re.fullmatch(r"\d+ faces?", note)]


class Journal:
    """The entries of a run folder, each on disk before work on its item continues. Threads may share a journal."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines = JsonLines(path)
        self._entries: dict[tuple[str, str], Entry] = {}
        for entry in filter(None, map(_entry_of, self._lines.read())):
            self._entries[entry.stage, entry.item] = self._with_claim(entry)

    def __len__(self) -> int:
        return len(self._entries)

    def record(self, entry: Entry) -> None:
        """Add an entry, unless it repeats the last one, and wait until it is on disk.

        Raises DiskFull, in which case the entry does not count.
        """
        entry = self._with_claim(entry)
        if entry != self.entry(entry.stage, entry.item):
            self._write(entry)
            self._entries[entry.stage, entry.item] = entry

    def entry(self, stage: str, item: str) -> Entry | None:
        """The last entry of an item in a stage."""
        return self._entries.get((stage, item))

    def stage(self, stage: str) -> list[Entry]:
        """The last entries of all items of a stage, in the order of their first mention."""
        return [entry for (name, _), entry in self._entries.items() if name == stage]

    def stages(self) -> set[str]:
        """The names of all stages with entries."""
        return {stage for stage, _ in self._entries}

    def begun(self) -> list[Entry]:
        """The last entries of items whose outputs may be half written."""
        return [entry for entry in self._entries.values() if entry.status == "begun"]

    def claim(self, *files: Path) -> None:
        """Record that files belong to the run, before they are written. Raises OutputConflict as `unclaimed` does."""
        for name in self.unclaimed(*files):
            self.record(Entry(OWN, name, "begun", outputs=(name,)))

    def unclaimed(self, *files: Path) -> list[str]:
        """The files that the run has not claimed, as paths relative to its folder.

        Raises OutputConflict where one of them exists already: it may be somebody else's.
        """
        names = {os.path.relpath(file, self.path.parent): file for file in files}
        new = {name: file for name, file in names.items() if self.entry(OWN, name) is None}
        refuse_existing(*new.values())
        return list(new)

    def _write(self, entry: Entry) -> None:
        self._lines.append(asdict(entry))

    def _with_claim(self, entry: Entry) -> Entry:
        """The entry of a skipped item with the files of its last entry: they remain its own."""
        before = self.entry(entry.stage, entry.item)
        return replace(entry, outputs=before.outputs) if before and entry.status == "skipped" else entry


def refuse_existing(*files: Path) -> None:
    """Raises OutputConflict for a file that exists already, since nothing may be overwritten."""
    for file in files:
        if os.path.lexists(file):
            raise OutputConflict(f"{file} is there already and was not made by this run; move it, or write elsewhere.")


def _entry_of(record: Mapping[str, Any]) -> Entry | None:
    """The entry that a line holds; None for a line that is no valid entry."""
    try:
        entry = Entry(**{**record, "notes": tuple(record["notes"]), "outputs": tuple(record["outputs"])})
    except (TypeError, KeyError):
        return None
    texts = (entry.stage, entry.item, entry.status, entry.key, entry.reason, *entry.notes, *entry.outputs)
    return entry if all(isinstance(text, str) for text in texts) and entry.status in get_args(Status) else None
