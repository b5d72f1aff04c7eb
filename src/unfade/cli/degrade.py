"""`unfade degrade`: clean faces to degraded ones."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from unfade.cli import flags as f
from unfade.cli.command import Outcome, command, of_entries
from unfade.cli.settings import Damage
from unfade.errors import BadInput
from unfade.progress import Progress

PER_WORKER = 16  # pictures that are worth the start of another worker process

Truth = Annotated[Path, typer.Argument(help="Folder of clean faces.")]
Size = Annotated[int | None, typer.Option(help="Bring the faces to this size first.")]
Workers = Annotated[int | None, typer.Option(help="Worker processes; by default one for each core.")]


@command
def degrade(
    truth: Truth,
    out: f.Out,
    kind: f.Kind = "blind",
    size: Size = None,
    workers: Workers = None,
    seed: f.Seed = 0,
    *,
    damage: Damage,
    progress: Progress,
) -> Outcome:
    """Make degraded faces of clean ones, to train with or to rehearse on; degradation.jsonl says how each was made."""
    from unfade.images.files import list_images
    from unfade.jobs.run_stage import SMALLEST
    from unfade.jobs.runs import open_run
    from unfade.jobs.workers import cores
    from unfade.stages.degrade import degrade_faces

    found = list_images(truth)
    degradation = damage.of_kind(kind)
    _need_at_least(SMALLEST, "--size", size)
    _need_at_least(1, "--workers", workers)
    settings = {"kind": kind, "size": size, "seed": seed, **asdict(degradation)}
    about = {"truth": str(truth), **_versions()}
    with open_run(out, {"degrade": settings}, about=about, inputs=[truth]) as journal:
        entries = degrade_faces(
            found,
            out,
            degradation,
            size=size,
            seed=seed,
            workers=workers or min(cores(), 1 + len(found) // PER_WORKER),
            journal=journal,
            progress=progress,
        )
    return of_entries(entries, out)


def _need_at_least(lowest: int, flag: str, value: int | None) -> None:
    """Before the folder is made: a flag that cannot be followed leaves nothing behind."""
    if value is not None and value < lowest:
        raise BadInput(f"Expected {flag} to be at least {lowest}, got {value}; leave it out for the default.")


def _versions() -> dict[str, str]:
    """The pictures can be made again bit for bit with these."""
    import cv2
    import numpy as np

    return {"opencv": cv2.__version__, "numpy": np.__version__}
