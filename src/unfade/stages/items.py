"""The way of every stage that turns pictures into pictures: read, work in batches, write, say what became of each."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from unfade.errors import BadInput, DiskFull, UnfadeError
from unfade.images.files import read_picture, write_png
from unfade.images.filters import fit_square
from unfade.progress import Advance, Progress, silent
from unfade.stages.claims import check_unclaimed, is_strange, strange
from unfade.store.runs import Entry, Journal
from unfade.store.seeds import seed_for

SMALLEST = 16  # pixels: below this there is no face to work from


@dataclass(frozen=True)
class Item:
    """A picture that is being worked on."""

    name: str  # of its file
    pixels: Tensor  # (3, H, W) in [-1, 1]
    content: str  # hash of the file's bytes
    notes: tuple[str, ...] = ()
    done: bool = False  # its result is there already

    def seed(self, run_seed: int, purpose: str) -> int:
        """The seed of this picture's own generator: the same in any company, order or run."""
        return seed_for(purpose, run_seed, self.content)


@dataclass(frozen=True)
class Stage:
    """One step from a folder to a folder. `work` gets items and an `advance`, and returns (B, 3, H, W) in [-1, 1]."""

    name: str
    work: Callable[[list[Item], Advance], Tensor]
    size: int | None  # side that pictures are brought to before; None: left as they are
    batch: int  # items worked on together
    key: str = ""  # what the results depend on besides the pictures


def run_stage(
    stage: Stage, sources: Iterable[Path], out: Path, journal: Journal, *, progress: Progress = silent
) -> list[Entry]:
    """Work on every source and write `out/<stem>.png`; one entry for each, in the order given.

    Batches are formed of all sources, done or not, so that a picture keeps its company when a killed run goes on: the
    last bits of a network's output depend on it. What is done under the same key and content is kept. A file of that
    name which this run did not write is never overwritten: its source is skipped. Bad input fails alone, and the rest
    goes on.
    """
    paths = list(sources)
    taken: dict[str, str] = {}
    with progress(stage.name, len(paths)) as advance:
        for group in _batches(_opened(stage, paths, out, journal, taken, advance), stage.batch):
            if all(item.done for item in group):
                advance(len(group))
            else:
                _work_on(stage, group, out, journal, advance)
    entries = [journal.entry(stage.name, path.name) for path in paths]
    return [entry for entry in entries if entry is not None]


def load_item(path: Path, size: int | None) -> Item:
    """Read a picture and bring a square one to `size`. Raises UnreadableImage or BadInput, naming the file."""
    picture = read_picture(path)
    height, width = picture.pixels.shape[-2:]
    if min(height, width) < SMALLEST:
        raise BadInput(f"{path} is {width} x {height} pixels; a face needs at least {SMALLEST} on each side.")
    pixels = picture.pixels if size is None else fit_square(picture.pixels, size, path)
    return Item(path.name, pixels, hashlib.sha256(path.read_bytes()).hexdigest(), picture.notes)


def _opened(
    stage: Stage, paths: list[Path], out: Path, journal: Journal, taken: dict[str, str], advance: Advance
) -> Iterator[Item]:
    """The items that can be worked on; the others get their entries here."""
    for path in paths:
        try:
            item = _open(stage, path, out, journal, taken)
        except DiskFull:
            raise
        except UnfadeError as error:
            journal.record(Entry(stage.name, path.name, "failed", reason=str(error)))
            item = None
        if item is None:
            advance(1)
        else:
            yield item


def _open(stage: Stage, path: Path, out: Path, journal: Journal, taken: dict[str, str]) -> Item | None:
    target = out / f"{path.stem}.png"
    check_unclaimed(path, target.name, taken)
    before = journal.entry(stage.name, path.name)
    if is_strange(target, target.name, before):
        journal.record(strange(stage.name, path.name, path, target))
        return None
    item = _load_or_withdraw(stage, path, target)
    taken[target.name] = path.name
    if target.exists() and before is not None and before.status == "done" and before.key == _key(stage, item):
        return replace(item, done=True)
    return item


def _load_or_withdraw(stage: Stage, path: Path, target: Path) -> Item:
    try:
        return load_item(path, stage.size)
    except UnfadeError:
        target.unlink(missing_ok=True)  # of this item as it was before: it must not pass for the result
        raise


def _work_on(stage: Stage, items: list[Item], out: Path, journal: Journal, advance: Advance) -> None:
    spent = 0.0

    def counted(amount: float) -> None:
        nonlocal spent
        spent += amount
        advance(amount)

    try:
        for item, result in zip(items, stage.work(items, counted).cpu(), strict=True):
            if not item.done:
                journal.record(_written(stage, item, result, out, journal))
    except DiskFull:
        raise
    except UnfadeError as error:  # these pictures cannot be worked on: they are of one shape
        for item in items:
            journal.record(_failed(stage, item, str(error), out))
    advance(len(items) - spent)


def _written(stage: Stage, item: Item, result: Tensor, out: Path, journal: Journal) -> Entry:
    if not bool(torch.isfinite(result).all()):
        return _failed(stage, item, "the network gave values that are not numbers; try --precision float32.", out)
    target = out / f"{Path(item.name).stem}.png"
    journal.record(Entry(stage.name, item.name, "begun", output=target.name))
    write_png(target, result)
    return Entry(stage.name, item.name, "done", key=_key(stage, item), notes=item.notes, output=target.name)


def _failed(stage: Stage, item: Item, reason: str, out: Path) -> Entry:
    (out / f"{Path(item.name).stem}.png").unlink(missing_ok=True)  # of an earlier pass, as in _load_or_withdraw
    return Entry(stage.name, item.name, "failed", reason=f"{item.name}: {reason}")


def _key(stage: Stage, item: Item) -> str:
    return hashlib.sha256(f"{stage.key}/{item.content}".encode()).hexdigest()[:16]


def _batches(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    """Groups of at most `size` items of equal shape."""
    group: list[Item] = []
    for item in items:
        if group and (len(group) == size or item.pixels.shape != group[0].pixels.shape):
            yield group
            group = []
        group.append(item)
    if group:
        yield group
