"""A run folder: the settings it was made with, the lock of the run at work in it, and its journal."""

import json
import os
import platform
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from unfade.atomic import atomic_write, is_temporary
from unfade.errors import OutputConflict
from unfade.images.finding import real_path
from unfade.jobs.journal import Entry, Journal, refuse_existing
from unfade.progress import Progress, silent

RUN, JOURNAL = "run.json", "journal.jsonl"
HELD: set[Path] = set()  # folders that this process has locked: a run may hold others, as a rehearsal does
LOCK, HOLDER = ".unfade.lock", ".unfade.holder"  # the lock of a run at work; a text that names the run


@dataclass(frozen=True)
class Run:
    """A run at work."""

    folder: Path
    journal: Journal
    progress: Progress = silent


@contextmanager
def open_run(
    folder: Path,
    settings: Mapping[str, Any],
    *,
    about: Mapping[str, Any] | None = None,
    inputs: Iterable[Path] = (),
    files: Collection[Path] = (),
    folders: Iterable[Path] = (),
) -> Iterator[Journal]:
    """Begin or continue a run in `folder`: write run.json, or check that its settings are the same.

    `about` is only recorded (versions, places); `files` are the run's own files besides those of its stages, `folders`
    its own subfolders, whose files it takes for its own. Files that killed runs left half written are removed. Raises
    OutputConflict where the folder is one of the inputs, holds a run made with other settings, one of `files` or files
    in one of `folders` that no run made, or while another run is at work in it.
    """
    for source in inputs:
        if real_path(folder) == real_path(source):
            raise OutputConflict(f"{folder} is also the input; name another folder as `out`, nothing is overwritten.")
    wanted = json.loads(json.dumps(settings))
    _check_same(folder, wanted)  # before anything is written
    with _locked(folder):
        _check_same(folder, wanted)
        journal = Journal(folder / JOURNAL)
        if not (folder / RUN).exists():
            if not len(journal):
                refuse_existing(folder / JOURNAL)  # a foreign file is not appended to either
                _refuse_filled(folders)
            journal.unclaimed(*files)
            content = {"settings": wanted, "about": {**_versions(), **(about or {})}}
            atomic_write(folder / RUN, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        _sweep(folder)
        journal.claim(*files)
        yield journal


def of_gone(entries: Sequence[Entry], folder: Path, results: str = ".") -> list[str]:
    """Files that earlier runs in a folder made from items not among the `entries` of this run, ordered by stage.

    They are paths below `results`, a folder in the run's.
    """
    journal = Journal(folder / JOURNAL)
    now = {(entry.stage, entry.item) for entry in entries}
    before = [entry for stage in dict.fromkeys(entry.stage for entry in entries) for entry in journal.stage(stage)]
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
def _locked(folder: Path) -> Iterator[None]:
    """Locks a folder until the block ends, or the process, however it ends.

    Raises OutputConflict if another run has locked it, or another process a folder around it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    place = folder.resolve()
    for around in place.parents:
        if around not in HELD and (around / HOLDER).exists():  # a killed run leaves it too, but not the lock
            _acquired(around, folder).release()
    lock = _acquired(folder, folder)
    now = datetime.now().astimezone().isoformat(" ", "seconds")
    HELD.add(place)
    try:
        atomic_write(folder / HOLDER, f"process {os.getpid()} on {platform.node()} since {now}")
        yield
    finally:
        HELD.discard(place)
        (folder / HOLDER).unlink(missing_ok=True)
        lock.release()


def _acquired(folder: Path, wanted: Path) -> FileLock:
    """The lock of `folder`, which is `wanted` or lies around it. Raises OutputConflict if a run has it."""
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        inside = "" if folder == wanted else f"{wanted} lies in a folder of another run: "
        raise OutputConflict(
            f"{inside}{folder} is being filled by another run ({_holder(folder)}); wait for it, or name another `out`."
        ) from error
    return lock


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


def _check_same(folder: Path, wanted: Any) -> None:
    """Raises OutputConflict where a setting differs, naming the first one."""
    path = folder / RUN
    if not path.exists():
        return
    try:
        found = json.loads(path.read_bytes())["settings"]
    except (ValueError, TypeError, KeyError) as error:
        raise OutputConflict(f"{path} was not written by unfade; name another folder as `out`.") from error
    _compare(folder, found, wanted)


def _compare(folder: Path, found: Any, wanted: Any, name: str = "settings") -> None:
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in sorted(found.keys() | wanted.keys()):
            _compare(folder, found.get(key), wanted.get(key), key)
    elif found != wanted:
        raise OutputConflict(
            f"{folder} holds a run made with {name} = {_short(found)}, now it is {_short(wanted)}; "
            "name another folder as `out`, or use the same settings to go on."
        )


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("unfade", "torch")}


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
