"""The loop of every stage from pictures to pictures: read, work in batches, write, record what became of each."""

import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from unfade.devices import room_in_memory
from unfade.errors import BadInput, DiskFull, OutOfMemory, UnfadeError, refuse_below
from unfade.images.files import read_picture, write_png
from unfade.images.filters import fit_square
from unfade.jobs.journal import Entry
from unfade.jobs.outputs import Outputs
from unfade.jobs.runs import Run
from unfade.progress import Advance
from unfade.store.checkpoints import sha256_of
from unfade.store.seeds import seed_for

T = TypeVar("T")
Noted = Callable[[Tensor, Tensor], tuple[str, ...]]  # from a picture and its result, both (3, H, W), to notes on them

SMALLEST = 16  # pixels: below this there is no face to work from


@dataclass(frozen=True)
class Item:
    """A picture that is being worked on."""

    path: Path
    pixels: Tensor  # (3, H, W) in [-1, 1]
    content: str  # hash of the file's bytes
    notes: tuple[str, ...] = ()
    done: bool = False  # whether its result exists already

    @property
    def name(self) -> str:
        """The name of its file."""
        return self.path.name

    def seed(self, run_seed: int, purpose: str) -> int:
        """The seed of this picture's own generator, which does not depend on its batch, the order or the run."""
        return seed_for(purpose, run_seed, self.content)


@dataclass(frozen=True)
class Stage:
    """One step from a folder to a folder. `work` gets items and an `advance`, and returns (B, 3, H, W) in [-1, 1]."""

    name: str
    work: Callable[[list[Item], Advance], Tensor]
    size: int | None  # side to which pictures are resized first; None: not resized
    batch: int  # items that are worked on together
    key: str = ""  # hash of everything besides the pictures that the results depend on
    bf16: bool = False  # networks may compute in bfloat16
    noted: Noted = lambda pixels, result: ()

    def __post_init__(self) -> None:
        refuse_below(1, self, "batch")


def run_stage(stage: Stage, sources: Iterable[Path], run: Run) -> list[Entry]:
    """Work on every source and write `<stem>.png` to the run's folder; one entry for each, in the order given.

    Batches are formed of all sources, done or not, so that a picture stays in the same batch when a killed run is
    continued: the last bits of a network's output depend on the batch. Results with the same key and content are kept.
    A file of that name that this run did not write is never overwritten; its source is skipped. A bad picture fails
    alone, and the others continue.
    """
    paths = list(sources)
    outputs = Outputs(stage.name, run, stage.key)
    with run.progress(stage.name.replace("_", " "), len(paths)) as advance:
        for group in _batches(_opened(stage, paths, outputs, advance), stage.batch):
            if all(item.done for item in group):
                advance(len(group))
            else:
                _work_on(stage, group, outputs, advance)
    return outputs.entries(path.name for path in paths)


def load_item(path: Path, size: int | None) -> Item:
    """Read a picture; with a `size`, resize it, which must be square. Raises UnreadableImage or BadInput, naming it."""
    picture = read_picture(path)
    height, width = picture.pixels.shape[-2:]
    refuse_tiny(width, height, path)
    pixels = picture.pixels if size is None else fit_square(picture.pixels, size, path)
    return Item(path, pixels, sha256_of(path), picture.notes)


def refuse_tiny(width: int, height: int, path: Path) -> None:
    """Raises BadInput for a picture that is too small for a face; `path` is for the message."""
    if min(height, width) < SMALLEST:
        raise BadInput(f"{path} is {width} x {height} pixels; a face needs at least {SMALLEST} on each side.")


def attempted(work: Callable[[list[T]], Tensor], items: Sequence[T]) -> list[Tensor | Exception]:
    """A result for each item. Where the batch fails, each item is tried alone and gives a result or an error.

    Where memory is too small for the batch, each half of it is tried, and so on.
    """
    try:
        with room_in_memory():
            return [result for _, result in zip(items, work(list(items)), strict=True)]
    except DiskFull:
        raise
    except Exception as caught:
        error = caught
        traceback.clear_frames(caught.__traceback__)  # frees the tensors of the first try before the second
        if caught.__cause__ is not None:
            traceback.clear_frames(caught.__cause__.__traceback__)
    if len(items) == 1:
        return [error]
    together = -(-len(items) // 2) if isinstance(error, OutOfMemory) else 1
    parts = [items[first : first + together] for first in range(0, len(items), together)]
    return [result for part in parts for result in attempted(work, part)]


def all_of(work: Callable[[list[T]], Tensor], items: Sequence[T]) -> list[Tensor]:
    """`attempted` where every item needs a result: raises the first error."""
    results = attempted(work, items)
    for result in results:
        if isinstance(result, Exception):
            raise result
    return [result for result in results if isinstance(result, Tensor)]


def _opened(stage: Stage, paths: list[Path], outputs: Outputs, advance: Advance) -> Iterator[Item]:
    """Yields the items that can be worked on; records the others."""
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

    def counted(amount: float) -> None:  # progress stays at the end of the batch during a second try
        nonlocal left
        advance(min(amount, left))
        left -= min(amount, left)

    def work(some: list[Item]) -> Tensor:
        if len(some) == 1 and some[0].done:  # it is here only to complete its batch; its result exists
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
    """Groups of at most `size` successive items of equal shape."""
    group: list[Item] = []
    for item in items:
        if group and (len(group) == size or item.pixels.shape != group[0].pixels.shape):
            yield group
            group = []
        group.append(item)
    if group:
        yield group
