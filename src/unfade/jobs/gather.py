"""Adding up the shards of a run: whether every item has come to an end, exactly once."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unfade.errors import BadInput, OutputConflict
from unfade.images.finding import RUN, real_path
from unfade.jobs.journal import OWN, Counts, Entry, Journal
from unfade.jobs.json_lines import JsonLines, fits
from unfade.jobs.runs import ITEMS, JOURNAL, check_same
from unfade.jobs.shards import Shard

ENDS = ("done", "skipped", "failed", "no_face")


@dataclass
class Gathered:
    """What became of all items of all shards."""

    shards: int  # of how many the run consists
    expected: int = 0  # items that the shards have found
    statuses: Counter[str] = field(default_factory=Counter)
    missing: list[int] = field(default_factory=list)  # shards that have not begun
    gaps: list[tuple[str, str]] = field(default_factory=list)  # (item, why it is not counted)
    doubles: list[tuple[str, str]] = field(default_factory=list)  # (item or file, where else it is)
    others: list[tuple[str, str]] = field(default_factory=list)  # (folder, how its run differs; it is not counted)
    failures: list[tuple[str, str]] = field(default_factory=list)  # (item, reason), of those not done

    @property
    def counts(self) -> Counts:
        """Of the items that have come to an end."""
        numbers = [self.statuses[status] for status in ENDS]
        return Counts(sum(numbers), *numbers)

    @property
    def adds_up(self) -> bool:
        """Whether no shard and no item is missing, none is there twice, and all shards were made in the same way."""
        return not (self.missing or self.gaps or self.doubles or self.others)

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        pairs = {"gaps": self.gaps, "doubles": self.doubles, "others": self.others, "failures": self.failures}
        numbers = {"expected": self.expected, **self.counts.as_dict(), "shards": self.shards}
        lists = {name: [[*pair] for pair in found] for name, found in pairs.items()}
        return {"adds_up": self.adds_up, **numbers, "missing_shards": self.missing, **lists}


def gather(folders: Sequence[Path]) -> Gathered:
    """Add up the shards whose journals are in these folders: all in one, or some in each.

    Raises BadInput for a folder without a run, and for a run that consists of several stages, such as an adaptation.
    """
    places: dict[Path, Path] = {}
    for folder in folders:
        places.setdefault(real_path(folder), folder)  # each once, under the first of its names
    runs = {folder: _settings_of(folder) for folder in places.values()}
    first = next(iter(runs.values()))
    found = Gathered(int(first.get("shards") or 1))
    items: dict[str, str] = {}  # from an item to its journal
    files: dict[str, str] = {}  # from a result to its item
    begun: set[int] = set()
    for folder, settings in runs.items():
        try:
            check_same(folder, settings, first)
        except OutputConflict as error:
            found.others.append((str(folder), str(error)))
            continue
        for shard in _shards_in(folder, found.shards):
            begun.add(shard.index)
            _add(found, folder, shard, items, files)
    found.missing = [index for index in range(1, found.shards + 1) if index not in begun]
    return found


def _add(found: Gathered, folder: Path, shard: Shard, items: dict[str, str], files: dict[str, str]) -> None:
    journal = Journal(folder / shard.named(JOURNAL))
    place, entries = str(journal.path), {entry.item: entry for entry in journal.stage(_stage_of(journal))}
    listed = [line["item"] for line in JsonLines(folder / shard.named(ITEMS)).read() if fits(line, item=str)]
    planned = entries if shard.is_whole else dict.fromkeys(listed)
    found.expected += len(planned)
    for item in planned:
        entry = entries.get(item)
        if item in items:
            found.doubles.append((item, f"it is in {place} and in {items[item]}"))
        items[item] = place
        if entry is None or entry.status not in ENDS:
            found.gaps.append((item, f"{place} has no result of it; run shard {shard} again"))
            continue
        found.statuses[entry.status] += 1
        if entry.status != "done":
            found.failures.append((item, entry.reason))
        for file in _files_of(entry):
            if files.setdefault(file, item) != item:
                found.doubles.append((file, f"it was made from {item} and from {files[file]}"))


def _files_of(entry: Entry) -> Iterator[str]:
    yield from entry.outputs if entry.status in ("done", "no_face") else ()


def _stage_of(journal: Journal) -> str:
    """The one stage of the run; empty if it has recorded nothing yet."""
    stages = journal.stages() - {OWN}
    if len(stages) > 1:
        raise BadInput(f"{journal.path} is of a run of several stages ({', '.join(sorted(stages))}), not of a shard.")
    return next(iter(stages), "")


def _settings_of(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / RUN).read_bytes())["settings"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BadInput(f"{folder} holds no run ({RUN} is missing or damaged); name the folders of shards.") from error


def _shards_in(folder: Path, count: int) -> list[Shard]:
    """The shards that have begun in a folder, by their journals and lists of items."""
    if count == 1:
        return [Shard()]
    names = re.compile(rf"(?:{Path(JOURNAL).stem}|{Path(ITEMS).stem})-(\d+)-of-{count}\.jsonl")
    indices = {int(named[1]) for path in folder.iterdir() if (named := names.fullmatch(path.name))}
    return [Shard(index, count) for index in sorted(indices)]
