"""Aligned photos to faces of the restorer's size; photos that need cropping come later."""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from unfade.progress import Advance, Progress, silent
from unfade.stages.items import Item, Stage, run_stage
from unfade.store.runs import Entry, Journal


def take_aligned(
    photos: Iterable[Path], out: Path, *, size: int, journal: Journal, progress: Progress = silent
) -> list[Entry]:
    """Bring pictures that are face crops already to (size, size) and write them to `out`. One entry for each photo."""

    def work(items: list[Item], advance: Advance) -> Tensor:
        return torch.stack([item.pixels for item in items])

    return run_stage(Stage("faces", work, size, 16, f"aligned/{size}"), photos, out, journal, progress=progress)
