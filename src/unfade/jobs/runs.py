"""A run folder: the settings it was made with, the lock of the run at work in it, and its journal.

The shards of a run may be at work in one folder at the same time. Each has a journal and a lock of its own; they share
`run.json`, and take the lock of the folder only while they begin.
"""

import json
import os
import platform
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from unfade.atomic import atomic_write, is_temporary, is_temporary_of
from unfade.errors import OutputConflict
from unfade.images.finding import RUN, real_path
from unfade.jobs.journal import Entry, Journal, refuse_existing
from unfade.jobs.json_lines import JsonLines
from unfade.jobs.shards import WHOLE, Shard
from unfade.locks import locked
from unfade.progress import Progress, silent

JOURNAL, ITEMS = "journal.jsonl", "items.jsonl"  # ITEMS: those of a shard, written when it begins
SHARDS = ".unfade.shards"  # folder of the shards' locks
PATIENCE = 60.0  # seconds for which a shard waits while others begin
HELD: set[Path] = set()  # folders that this process has locked: a run may hold others, as a rehearsal does
LOCK, HOLDER = ".unfade.lock", ".unfade.holder"  # the lock of a run at work; a text that names the run


@dataclass(frozen=True)
class Run:
    """A run at work: the folder of its results, the journal that records them, and how progress is shown."""

    folder: Path  # that of the run, or one below it: see `within`
    journal: Journal
    progress: Progress = silent

    def within(self, *names: str) -> "Run":
        """The same run, with its results in a folder below."""
        return replace(self, folder=self.folder.joinpath(*names))


@contextmanager
def open_run(
    folder: Path,
    settings: Mapping[str, Any],
    *,
    about: Mapping[str, Any] | None = None,
    inputs: Iterable[Path] = (),
    files: Collection[Path] = (),
    folders: Iterable[Path] = (),
    shard: Shard = WHOLE,
    items: Iterable[str] = (),
    progress: Progress = silent,
) -> Iterator[Run]:
    """Begin or continue a run in `folder`: write run.json, or check that its settings are the same.

    `about` is only recorded (versions, places); `files` are the run's own files besides those of its stages, `folders`
    its own subfolders, whose files it takes for its own. Files that killed runs left half written are removed. `items`
    are the names of a shard's items, for `gather`; the journal of a shard is its own, and so have to be `files`. Raises
    OutputConflict where the folder is one of the inputs, holds a run made with other settings, one of `files` or files
    in one of `folders` that no run made, or while another run is at work in it.
    """
    for source in inputs:
        if real_path(folder) == real_path(source):
            raise OutputConflict(f"{folder} is also the input; name another folder as `out`, nothing is overwritten.")
    shards = {} if shard.is_whole else {"shards": shard.count}
    wanted = json.loads(json.dumps({**settings, **shards}))
    _check_same(folder, wanted)  # before anything is written
    with _locked(folder, shard):
        with nullcontext() if shard.is_whole else _alone(folder, folder, PATIENCE):  # shards begin one by one
            _check_same(folder, wanted)
            journal = Journal(folder / shard.named(JOURNAL))
            if not (folder / RUN).exists():
                if not len(journal):
                    refuse_existing(journal.path)  # a foreign file is not appended to either
                    _refuse_filled(folders)
                journal.unclaimed(*files)
                content = {"settings": wanted, "about": {**_versions(), **(about or {})}}
                atomic_write(folder / RUN, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        if shard.is_whole:
            _sweep(folder)
        else:
            _sweep_begun(folder, journal)
            JsonLines(folder / shard.named(ITEMS)).rewrite({"item": item} for item in items)
        journal.claim(*files)
        yield Run(folder, journal, progress)


def of_gone(entries: Sequence[Entry], folder: Path, results: str = ".", *, journal: str = JOURNAL) -> list[str]:
    """Files that earlier runs in a folder made from items not among the `entries` of this run, ordered by stage.

    They are paths below `results`, a folder in the run's.
    """
    known = Journal(folder / journal)
    now = {(entry.stage, entry.item) for entry in entries}
    before = [entry for stage in dict.fromkeys(entry.stage for entry in entries) for entry in known.stage(stage)]
    gone = [entry for entry in before if (entry.stage, entry.item) not in now and entry.status in ("done", "no_face")]
    return [file for entry in gone for file in entry.outputs if (folder / results / file).exists()]


def _refuse_filled(folders: Iterable[Path]) -> None:
    """Raises OutputConflict for a folder that holds files already."""
    for folder in folders:
        if first := next((path for path in folder.rglob("*") if not path.is_dir()), None):
            raise OutputConflict(
                f"{first} is there already and was not made by this run; name another folder as `out`."
            )


@contextmanager
def _locked(folder: Path, shard: Shard) -> Iterator[None]:
    """Locks a folder, or a shard of its run, until the block ends, or the process, however it ends.

    Raises OutputConflict if another run has locked it, or another process a folder around it.
    """
    own = folder if shard.is_whole else folder / SHARDS / f"{shard.index}-of-{shard.count}"
    own.mkdir(parents=True, exist_ok=True)
    place = folder.resolve()
    for around in place.parents:
        if around not in HELD:
            for held in (around, *(around / SHARDS).glob("*")):
                if (held / HOLDER).exists():  # a killed run leaves it too, but not the lock
                    with _alone(held, folder):
                        pass
    with _alone(own, own):
        now = datetime.now().astimezone().isoformat(" ", "seconds")
        HELD.add(place)
        try:
            atomic_write(own / HOLDER, f"process {os.getpid()} on {platform.node()} since {now}")
            yield
        finally:
            HELD.discard(place)
            (own / HOLDER).unlink(missing_ok=True)


def _alone(folder: Path, wanted: Path, patience: float = 0) -> AbstractContextManager[None]:
    """Locks `folder`, which is `wanted` or lies around it. Raises OutputConflict if a run has it."""

    def busy() -> str:
        inside = "" if folder == wanted else f"{wanted} lies in a folder of another run: "
        holder = _holder(folder)
        return f"{inside}{folder} is being filled by another run ({holder}); wait for it, or name another `out`."

    return locked(folder / LOCK, busy, patience=patience)


def _holder(folder: Path) -> str:
    with suppress(OSError):
        return (folder / HOLDER).read_text()
    return "it has just begun"


def _sweep(folder: Path) -> None:
    """Remove the temporary files of killed runs; run folders further below are left to their own runs."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not Path(place, name, RUN).exists()]
        for name in filter(is_temporary, files):
            with suppress(OSError):
                Path(place, name).unlink()


def _sweep_begun(folder: Path, journal: Journal) -> None:
    """Remove the temporary files of the outputs that a killed shard had begun; other shards may be writing theirs."""
    begun = [folder / file for entry in journal.begun() for file in entry.outputs]
    for place in {path.parent for path in begun}:
        names = [path.name for path in begun if path.parent == place]
        with suppress(OSError):
            for found in place.iterdir():
                if any(is_temporary_of(found.name, name) for name in names):
                    found.unlink(missing_ok=True)


def shards_of(folder: Path, usual: int = 1) -> list[Shard]:
    """The shards that the run in a folder consists of; `usual` of them if there is none, or it is not divided."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        usual = int(json.loads((folder / RUN).read_bytes())["settings"]["shards"])
    return [Shard(index, usual) for index in range(1, usual + 1)]


def settings_in(folder: Path) -> dict[str, Any]:
    """Those of the run in a folder; none where no run was begun. Raises OutputConflict for a foreign run.json."""
    path = folder / RUN
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_bytes())["settings"])
    except (ValueError, TypeError, KeyError) as error:
        raise OutputConflict(f"{path} was not written by unfade; name another folder as `out`.") from error


def _check_same(folder: Path, wanted: Any) -> None:
    """Raises OutputConflict where a setting differs, naming the first one."""
    if (folder / RUN).exists():
        found = settings_in(folder)
        if found and isinstance(wanted, dict) and wanted and not found.keys() & wanted.keys():
            others = " and ".join(found)
            raise OutputConflict(f"{folder} holds results of another command ({others}); name another folder as `out`.")
        check_same(folder, found, wanted)


def check_same(folder: Path, found: Any, wanted: Any, name: str = "settings") -> None:
    """Raises OutputConflict where two settings differ, naming the first one, for the run found in a folder."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in sorted(found.keys() | wanted.keys()):
            check_same(folder, found.get(key), wanted.get(key), key)
    elif found != wanted:
        raise OutputConflict(
            f"{folder} holds a run made with {name} = {_short(found)}, now it is {_short(wanted)}; "
            "name another folder as `out`, or use the same settings to go on."
        )


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("unfade", "torch")}


def _short(value: object) -> str:
    text = "its usual value" if value is None else json.dumps(value)  # left out, or chosen by what is given
    return text if len(text) <= 80 else text[:77] + "..."
