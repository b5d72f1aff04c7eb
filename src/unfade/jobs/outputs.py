"""The protocol by which every stage records its items: settled, or begun and then done; skipped, failed, withdrawn.

outputs = Outputs("targets", run.within("targets"), key=fingerprint(settings, weights))
for item in items:
    with outputs.alone(item.name, item.path):  # an unreadable item, or a name that is taken, fails here, alone
        outputs.claim(item.name, item.path, f"{item.stem}.png")
        content = read(item)
    if outputs.claimed(item.name) and not outputs.settled(item.name, content):
        with outputs.writing(item.name, item.path, content) as writing:
            write_png(writing.path, ...)
"""

import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from os.path import lexists
from pathlib import Path

from unfade.devices import MORE_ROOM, is_out_of_memory, too_small
from unfade.errors import BadInput, DiskFull, UnfadeError
from unfade.jobs.journal import Entry, Status
from unfade.jobs.runs import Run
from unfade.store.seeds import fingerprint


@dataclass
class Writing:
    """The result of an item while it is written. The block sets its notes, which go into the journal at its end."""

    files: tuple[Path, ...]  # the main one first
    notes: tuple[str, ...] = ()  # what had to be converted
    no_face: str = ""  # why the files are a mere copy; empty where a face was restored

    @property
    def path(self) -> Path:
        """The main file."""
        return self.files[0]


class OwnFiles:
    """The files of a folder that one stage may write: which item each is made from.

    A file is the stage's own if the journal assigned it to an item before it was written; no other file is overwritten
    or removed.
    """

    def __init__(self, stage: str, run: Run) -> None:
        self.stage, self.out, self.journal = stage, run.folder, run.journal
        self._taken: dict[str, str] = {}  # from a file to the item of this run that it is made from
        self._claims: dict[str, tuple[str, ...]] = {}  # from an item to its files

    def claimed(self, item: str) -> bool:
        """Whether an item may be worked on in this run."""
        return item in self._claims

    def claim(self, item: str, place: Path, *files: str) -> None:
        """Assign these files of the folder to an item; other files that were made from it before are removed.

        `place` is the item's source, for messages. Call it within `alone`, which records the item as skipped or failed
        where this raises: for a file that exists and is not the item's own, or that another item of the run has.
        """
        own = self._own(item)
        for file in files:
            other = self._taken.get(file, item)
            if other != item:
                raise BadInput(f"{place} and {other} would both become {file}; rename one of the two.")
            if file not in own and lexists(self.out / file):
                raise _InTheWay(
                    f"{self.out / file} is there already and was not made from {place} by this run; move it or name "
                    "another folder."
                )
        for error in self.withdraw(item, but=files).values():
            raise error
        self._taken |= dict.fromkeys(files, item)
        self._claims[item] = files

    def release(self, item: str) -> None:
        """Let other items of this run claim the file names of this one."""
        self._taken = {file: other for file, other in self._taken.items() if other != item}
        self._claims.pop(item, None)

    def withdraw(self, item: str, *, but: Sequence[str] = ()) -> dict[str, OSError]:
        """Remove the files made from an item, `but` these. Returns the errors of files that could not be removed.

        Those remain the item's own.
        """
        own, left = self._own(item), {}
        for file in own:
            try:
                if file not in but and lexists(self.out / file):
                    (self.out / file).unlink()
            except OSError as error:
                left[file] = error
        kept = tuple(file for file in own if file in but or file in left)
        if kept != own:
            self.journal.record(Entry(self.stage, item, "withdrawn", outputs=kept))
        return left

    def _own(self, item: str) -> tuple[str, ...]:
        before = self.journal.entry(self.stage, item)
        return before.outputs if before else ()


def withdraw_others(own: OwnFiles, items: Iterable[str]) -> None:
    """Remove the files that earlier runs made from items which are not among these."""
    for gone in {entry.item for entry in own.journal.stage(own.stage)}.difference(items):
        own.withdraw(gone)


class Outputs(OwnFiles):
    """The files that one stage makes in one folder, and the journal's entries for its items.

    An item fails alone and leaves no file, but a full disk ends the run. Threads may write different items.
    """

    def __init__(self, stage: str, run: Run, key: str = "") -> None:  # key: of all results
        super().__init__(stage, run)
        self.key = key

    def entries(self, items: Iterable[str]) -> list[Entry]:
        """The last entry of each item, in the order given."""
        found = (self.journal.entry(self.stage, item) for item in items)
        return [entry for entry in found if entry is not None]

    def settled(self, item: str, content: str) -> bool:
        """Whether the last entry of an item still holds for this content (a hash; empty: unknown). Thread-safe."""
        before = self.journal.entry(self.stage, item)
        if before is None or before.status not in ("done", "no_face") or not content:
            return False
        return before.key == self._key(content) and all(lexists(self.out / file) for file in before.outputs)

    @contextmanager
    def alone(self, item: str, place: Path, target: Path | None = None) -> Iterator[None]:
        """Records an error in the block as this item's failure, so that the run continues; only a full disk ends it.

        An item that fails before its `target` is written releases its file names: a broken item does not keep them
        from a sound one.
        """
        try:
            yield
        except DiskFull:
            raise
        except _InTheWay as error:
            self.skipped(item, str(error))
        except Exception as error:
            if target is None:
                self.release(item)
            self.failed(item, place, error, target)

    @contextmanager
    def writing(self, item: str, place: Path, content: str, *, count: int | None = None) -> Iterator[Writing]:
        """Records "begun", lets the block write the claimed files (the first `count` of them), then records "done"."""
        files = self._claims[item][:count]
        with self.alone(item, place, self.out / files[0]):
            self.journal.record(Entry(self.stage, item, "begun", outputs=files))
            writing = Writing(tuple(self.out / file for file in files))
            yield writing
            status: Status = "no_face" if writing.no_face else "done"
            entry = Entry(self.stage, item, status, self._key(content), writing.no_face, writing.notes, files)
            self.journal.record(entry)

    def no_face(self, item: str, content: str, reason: str) -> None:
        """Record that the item has no face to work on; this holds as long as its content stays the same."""
        self._end(Entry(self.stage, item, "no_face", self._key(content), reason))

    def skipped(self, item: str, reason: str, content: str = "") -> None:
        """Record why an item is skipped: because of its `content`, if that is given, or only in this run."""
        self._end(Entry(self.stage, item, "skipped", self._key(content), reason))

    def failed(self, item: str, place: Path, error: Exception, target: Path | None = None) -> None:
        """Record why there is no result, and remove an earlier one, which must not pass for a result of this run."""
        self._end(Entry(self.stage, item, "failed", reason=_reason(error, place, target)))

    def _end(self, entry: Entry) -> None:
        """Record the last entry of an item that has no files."""
        left = self.withdraw(entry.item)
        for file, why in left.items():
            left_over = (
                f"{self.out / file} is the result of an older photo but could not be removed ({why}); remove it."
            )
            entry = replace(entry, status="failed", reason=f"{entry.reason} {left_over}", outputs=tuple(left))
        self.journal.record(entry)

    def _key(self, content: str) -> str:
        return fingerprint(self.key, content) if content else ""


class _InTheWay(UnfadeError):
    """A file that is not the item's own."""


def _reason(error: Exception, place: Path, target: Path | None) -> str:
    """The reason of a failure in one sentence; for an unforeseen error with its type and where it was raised."""
    if isinstance(error, UnfadeError):
        return str(error)
    if isinstance(error, OSError) and error.filename == str(place):
        return f"{place} cannot be opened ({error.strerror}); check that it exists and can be read."
    if isinstance(error, OSError) and target is not None:
        return f"{target} could not be written ({error}); check its name, and that its folder may be written to."
    if is_out_of_memory(error):
        return f"{place}: {too_small(error)}; {MORE_ROOM}."
    said = " ".join(str(error).split()).rstrip(".")
    frames = traceback.extract_tb(error.__traceback__)
    at = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{place} failed with {type(error).__name__}: {said}{at}; look at this file, or take it out."
