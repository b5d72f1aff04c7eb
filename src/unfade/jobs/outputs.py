"""One protocol for items: settled, or begun and then done; skipped, failed and withdrawn. No stage keeps other books.

outputs = Outputs("targets", folder, journal, key=fingerprint(settings, weights))
for item in items:
    with outputs.alone(item.name, item.path):  # read without an error, and its file nobody else's
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

from unfade.errors import BadInput, DiskFull, UnfadeError
from unfade.jobs.journal import Entry, Journal, Status
from unfade.store.seeds import fingerprint


@dataclass
class Writing:
    """The result of an item while it is written. What is said here goes into the journal with its end."""

    files: tuple[Path, ...]  # the main one first
    notes: tuple[str, ...] = ()  # what had to be converted
    no_face: str = ""  # why the files are a copy, where no face was restored

    @property
    def path(self) -> Path:
        """The main file."""
        return self.files[0]


class Outputs:
    """The files that one stage makes in one folder, and the journal's word on each of its items.

    A file is the stage's own if the journal said so of its item before it was written; no other is overwritten or
    removed. An item fails alone, without a file, but a full disk ends the run. Threads may write different items.
    """

    def __init__(self, stage: str, out: Path, journal: Journal, key: str = "") -> None:  # key: of all that is made
        self.stage, self.out, self.journal, self.key = stage, out, journal, key
        self._taken: dict[str, str] = {}  # file: the item of this run that becomes it
        self._claims: dict[str, tuple[str, ...]] = {}  # item: its files

    def entries(self, items: Iterable[str]) -> list[Entry]:
        """What became of each item, in that order."""
        found = (self.journal.entry(self.stage, item) for item in items)
        return [entry for entry in found if entry is not None]

    def settled(self, item: str, content: str) -> bool:
        """Whether the last word on an item of this content (a hash; empty: unknown) still holds. For any thread."""
        before = self.journal.entry(self.stage, item)
        if before is None or before.status not in ("done", "no_face") or not content:
            return False
        return before.key == self._key(content) and all(lexists(self.out / file) for file in before.outputs)

    def claimed(self, item: str) -> bool:
        """Whether an item may be worked on in this run."""
        return item in self._claims

    def claim(self, item: str, place: Path, *files: str) -> None:
        """Have an item become these files of the folder; others that it became before are removed.

        `place` is where it is from, for messages. To be called where `alone` makes a skipped or a failed item of what
        it raises: for a file that is there and not the item's own, or that another item of the run becomes.
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

    @contextmanager
    def alone(self, item: str, place: Path, target: Path | None = None) -> Iterator[None]:
        """Whatever goes wrong in the block is this item's alone; only a full disk ends the run.

        An item that fails before its `target` is written gives its names back: a broken one does not keep them from a
        sound one.
        """
        try:
            yield
        except DiskFull:
            raise
        except _InTheWay as error:
            self.skipped(item, str(error))
        except Exception as error:
            if target is None:
                self._taken = {file: other for file, other in self._taken.items() if other != item}
                self._claims.pop(item, None)
            self.failed(item, place, error, target)

    @contextmanager
    def writing(self, item: str, place: Path, content: str, *, count: int | None = None) -> Iterator[Writing]:
        """Begun before the block writes the claimed files (the first `count` of them), done after it."""
        files = self._claims[item][:count]
        with self.alone(item, place, self.out / files[0]):
            self.journal.record(Entry(self.stage, item, "begun", outputs=files))
            writing = Writing(tuple(self.out / file for file in files))
            yield writing
            status: Status = "no_face" if writing.no_face else "done"
            entry = Entry(self.stage, item, status, self._key(content), writing.no_face, writing.notes, files)
            self.journal.record(entry)

    def no_face(self, item: str, content: str, reason: str) -> None:
        """There is no face to work on, and there will be none while the content is this."""
        self._end(Entry(self.stage, item, "no_face", self._key(content), reason))

    def skipped(self, item: str, reason: str, content: str = "") -> None:
        """Pass an item over: for good because of its `content`, or for something that the next run may not meet."""
        self._end(Entry(self.stage, item, "skipped", self._key(content), reason))

    def failed(self, item: str, place: Path, error: Exception, target: Path | None = None) -> None:
        """Say why there is no result; one of the item as it was before must not pass for it."""
        self._end(Entry(self.stage, item, "failed", reason=_reason(error, place, target)))

    def withdraw(self, item: str, *, but: Sequence[str] = ()) -> dict[str, OSError]:
        """Remove the files that an item became, `but` these. What could not be removed stays its own; here is why."""
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

    def _end(self, entry: Entry) -> None:
        """The last word on an item that has no files."""
        left = self.withdraw(entry.item)
        for file, why in left.items():
            told = f"{self.out / file} is the result of an older photo and could not be removed ({why}): remove it."
            entry = replace(entry, status="failed", reason=f"{entry.reason} {told}", outputs=tuple(left))
        self.journal.record(entry)

    def _own(self, item: str) -> tuple[str, ...]:
        before = self.journal.entry(self.stage, item)
        return before.outputs if before else ()

    def _key(self, content: str) -> str:
        return fingerprint(self.key, content) if content else ""


class _InTheWay(UnfadeError):
    """A file that is not the item's own."""


def _reason(error: Exception, place: Path, target: Path | None) -> str:
    """One sentence; of what nobody foresaw the kind is told, and where it came up."""
    if isinstance(error, UnfadeError):
        return str(error)
    if isinstance(error, OSError) and target is not None:
        return f"{target} could not be written ({error}); check its name, and that its folder may be written to."
    said = " ".join(str(error).split()).rstrip(".")
    frames = traceback.extract_tb(error.__traceback__)
    at = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{place} failed with {type(error).__name__}: {said}{at}; look at this file, or take it out."
