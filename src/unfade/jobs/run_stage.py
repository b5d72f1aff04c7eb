"""The way of every stage that turns pictures into pictures: read, work in batches, write, say what became of each."""

import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from unfade.errors import BadInput, DiskFull, UnfadeError
from unfade.images.files import read_picture, write_png
from unfade.images.filters import fit_square
from unfade.jobs.journal import Entry, Journal
from unfade.jobs.outputs import Outputs
from unfade.progress import Advance, Progress, silent
from unfade.store.checkpoints import sha256_of
from unfade.store.seeds import seed_for

T = TypeVar("T")
Noted = Callable[[Tensor, Tensor], tuple[str, ...]]  # of a picture and its result, both (3, H, W): what to say of them

SMALLEST = 16  # pixels: below this there is no face to work from


@dataclass(frozen=True)
class Item:
    """A picture that is being worked on."""

    path: Path
    pixels: Tensor  # (3, H, W) in [-1, 1]
    content: str  # hash of the file's bytes
    notes: tuple[str, ...] = ()
    done: bool = False  # its result is there already

    @property
    def name(self) -> str:
        """Of its file."""
        return self.path.name

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
    bf16: bool = False  # networks may compute in bfloat16
    noted: Noted = lambda pixels, result: ()


def run_stage(
    stage: Stage, sources: Iterable[Path], out: Path, journal: Journal, *, progress: Progress = silent
) -> list[Entry]:
    """Work on every source and write `out/<stem>.png`; one entry for each, in the order given.

    Batches are formed of all sources, done or not, so that a picture keeps its company when a killed run goes on: the
    last bits of a network's output depend on it. What is done under the same key and content is kept. A file of that
    name which this run did not write is never overwritten: its source is skipped. What is bad fails alone, and the
    rest goes on.
    """
    paths = list(sources)
    outputs = Outputs(stage.name, out, journal, stage.key)
    with progress(stage.name, len(paths)) as advance:
        for group in _batches(_opened(stage, paths, outputs, advance), stage.batch):
            if all(item.done for item in group):
                advance(len(group))
            else:
                _work_on(stage, group, outputs, advance)
    return outputs.entries(path.name for path in paths)


def load_item(path: Path, size: int | None) -> Item:
    """Read a picture and bring a square one to `size`. Raises UnreadableImage or BadInput, naming the file."""
    picture = read_picture(path)
    height, width = picture.pixels.shape[-2:]
    refuse_tiny(width, height, path)
    pixels = picture.pixels if size is None else fit_square(picture.pixels, size, path)
    return Item(path, pixels, sha256_of(path), picture.notes)


def refuse_tiny(width: int, height: int, path: Path) -> None:
    """Raises BadInput for a picture of `path` that is too small to be a face."""
    if min(height, width) < SMALLEST:
        raise BadInput(f"{path} is {width} x {height} pixels; a face needs at least {SMALLEST} on each side.")


def attempted(work: Callable[[list[T]], Tensor], items: Sequence[T]) -> list[Tensor | Exception]:
    """A result for each item; where all of them together fail, each is tried alone, and has a result or an error."""
    try:
        return [result for _, result in zip(items, work(list(items)), strict=True)]
    except DiskFull:
        raise
    except Exception as caught:
        error = caught
        traceback.clear_frames(caught.__traceback__)  # they hold what the second try needs the memory of
    return [error] if len(items) == 1 else [attempted(work, [item])[0] for item in items]


def _opened(stage: Stage, paths: list[Path], outputs: Outputs, advance: Advance) -> Iterator[Item]:
    """The items that can be worked on; the others get their entries here."""
    for path in paths:
        item: Item | None = None
        with outputs.alone(path.name, path):
            outputs.claim(path.name, path, f"{path.stem}.png")
            item = load_item(path, stage.size)
        if item is None:
            advance(1)
        else:
            yield replace(item, done=outputs.settled(item.name, item.content))


def _work_on(stage: Stage, items: list[Item], outputs: Outputs, advance: Advance) -> None:
    left = float(len(items))

    def counted(amount: float) -> None:  # a second try counts no more
        nonlocal left
        advance(min(amount, left))
        left -= min(amount, left)

    def work(some: list[Item]) -> Tensor:
        if len(some) == 1 and some[0].done:  # it only keeps the others company: nothing is to be done again
            return some[0].pixels[None]
        return stage.work(some, counted).cpu()

    for item, result in zip(items, attempted(work, items), strict=True):
        if not item.done:
            with outputs.writing(item.name, item.path, item.content) as writing:
                checked = _checked(item, result, stage)
                writing.notes = (*item.notes, *stage.noted(item.pixels, checked))
                write_png(writing.path, checked)
    advance(left)


def _checked(item: Item, result: Tensor | Exception, stage: Stage) -> Tensor:
    if isinstance(result, UnfadeError):
        raise BadInput(f"{item.name}: {result}") from result
    if isinstance(result, Exception):
        raise result
    if not bool(torch.isfinite(result).all()):
        way_out = "compute in float32 (see `bf16`)" if stage.bf16 else "try another `restorer`"
        raise BadInput(f"{item.name}: the network gave values that are not numbers; {way_out}.")
    return result


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
