"""Pictures that are aligned faces already, brought to the restorer's size; `crop` takes whole photos."""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from unfade.jobs.journal import Entry, Journal
from unfade.jobs.run_stage import Item, Stage, run_stage
from unfade.progress import Advance, Progress, silent


def take_aligned(
    photos: Iterable[Path], out: Path, *, size: int, journal: Journal, progress: Progress = silent
) -> list[Entry]:
    """Bring pictures that are face crops already to (size, size) and write them to `out`. One entry for each photo."""

    return run_stage(Stage("faces", _same, size, 16, f"aligned/{size}"), photos, out, journal, progress=progress)


def as_they_are(pictures: Iterable[Path], out: Path, *, stage: str, journal: Journal) -> list[Entry]:
    """Write pictures to `out` as PNG of 8 bits, each under its own stem. One entry for each."""
    return run_stage(Stage(stage, _same, None, 16), pictures, out, journal)


def _same(items: list[Item], advance: Advance) -> Tensor:
    return torch.stack([item.pixels for item in items])
