"""Aligned faces to restored faces: one pass through a restorer."""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from unfade.progress import Advance, Progress, silent
from unfade.restorers.base import Restorer
from unfade.stages.items import Item, Stage, run_stage
from unfade.store.runs import Entry, Journal
from unfade.training.modes import mode


def restore_faces(
    faces: Iterable[Path],
    out: Path,
    restorer: Restorer,
    *,
    journal: Journal,
    batch: int = 8,
    key: str = "",
    stage: str = "restored",
    progress: Progress = silent,
) -> list[Entry]:
    """Write each face restored to `out`, at the restorer's size. One entry for each face.

    `key` says which restorer this is: faces restored by another are restored again.
    """

    def work(items: list[Item], advance: Advance) -> Tensor:
        return restore_batch(torch.stack([item.pixels for item in items]), restorer)

    return run_stage(Stage(stage, work, restorer.size, batch, key), faces, out, journal, progress=progress)


@torch.no_grad()
def restore_batch(face: Tensor, restorer: Restorer) -> Tensor:
    """(B, 3, size, size) to the same, clamped to [-1, 1]."""
    device = next(restorer.parameters()).device
    with mode(False, restorer):
        restored: Tensor = restorer(face.to(device))
    return restored.float().clamp(-1, 1)
