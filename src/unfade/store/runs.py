"""A folder that a command fills: what it was made with, and a journal of what became of each item."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from unfade.atomic import atomic_write, room_for
from unfade.errors import OutputConflict

Status = Literal["begun", "done", "skipped", "failed", "no_face"]


@dataclass(frozen=True)
class Entry:
    """What became of one item in one stage; the last entry of an item counts.

    "begun" stands before the output is written, so that a run killed in between knows the file for its own.
    """

    stage: str
    item: str  # the name of the input file
    status: Status
    key: str = ""  # of the settings and the content it was made from
    reason: str = ""  # for anything but done: one sentence
    notes: tuple[str, ...] = ()  # what had to be converted
    output: str = ""  # the name of the file it became


@dataclass(frozen=True)
class Counts:
    """found = done + skipped + failed + no_face, always."""

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


class Journal:
    """One line of JSON for each item and stage, on disk before the next item begins."""

    def __init__(self, path: Path):
        self.path = path
        self._entries: dict[tuple[str, str], Entry] = {}
        if path.exists():
            for line in path.read_bytes().split(b"\n"):
                self._remember(line)

    def record(self, entry: Entry) -> None:
        """Add an entry and wait until it is on the disk. Raises DiskFull; the entry does not count then."""
        line = json.dumps(asdict(entry)).encode() + b"\n"  # ASCII: file names may hold anything, even half characters
        with room_for(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(b"\n" + line if file.tell() and self._ends_in_a_part() else line)
                file.flush()
                os.fsync(file.fileno())
        self._entries[entry.stage, entry.item] = entry

    def entry(self, stage: str, item: str) -> Entry | None:
        """The last entry of an item in a stage."""
        return self._entries.get((stage, item))

    def stage(self, stage: str) -> list[Entry]:
        """The last entries of all items of a stage, in the order of their first mention."""
        return [entry for (name, _), entry in self._entries.items() if name == stage]

    def _remember(self, line: bytes) -> None:
        try:
            values = json.loads(line)
        except ValueError:
            return  # the part of a line that a killed run left; its item is done again
        entry = Entry(**{**values, "notes": tuple(values["notes"])})
        self._entries[entry.stage, entry.item] = entry

    def _ends_in_a_part(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"


def open_run(
    folder: Path, settings: Mapping[str, Any], *, about: Mapping[str, Any] | None = None, inputs: Iterable[Path] = ()
) -> Journal:
    """Begin or continue a run in `folder`: write run.json, or check that its settings are the same.

    `about` is only recorded (versions, places). Raises OutputConflict when the folder is one of the inputs, or holds a
    run made with other settings.
    """
    for source in inputs:
        if folder.resolve() == source.resolve():
            raise OutputConflict(f"{folder} is also the input; name another folder with --out, nothing is overwritten.")
    path = folder / "run.json"
    wanted = json.loads(json.dumps(settings))
    if path.exists():
        _check_same(folder, _settings_in(path), wanted)
    else:
        content = {"settings": wanted, "about": {**_versions(), **(about or {})}}
        atomic_write(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return Journal(folder / "journal.jsonl")


def _settings_in(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())["settings"]
    except (ValueError, TypeError, KeyError) as error:
        raise OutputConflict(f"{path} was not written by unfade; name another folder with --out.") from error


def _check_same(folder: Path, found: Any, wanted: Any, name: str = "settings") -> None:
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in sorted(found.keys() | wanted.keys()):
            _check_same(folder, found.get(key), wanted.get(key), key)
    elif found != wanted:
        raise OutputConflict(
            f"{folder} holds a run made with {name} = {_short(found)}, now it is {_short(wanted)}; "
            "name another folder with --out, or use the same settings to go on."
        )


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("unfade", "torch")}


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
