"""The command `unfade degrade`: make degraded faces from clean ones."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from unfade.cli import flags as f
from unfade.cli.command import Outcome, command, of_entries
from unfade.cli.settings import Damage, Share
from unfade.errors import BadInput
from unfade.progress import Progress

PER_WORKER = 16  # pictures for which starting one more worker process pays off

Truth = Annotated[Path, typer.Argument(help="Folder of clean faces.")]
Size = Annotated[
    int | None,
    typer.Option(
        help="Resize the faces to this side first, px. Default: as they are; --kind fitted: the size it was fitted to."
    ),
]
Workers = Annotated[int | None, typer.Option(help="Worker processes. Default: one per core.")]


@command
def degrade(
    truth: Truth,
    out: f.Out,
    kind: f.Kind = "blind",
    size: Size = None,
    workers: Workers = None,
    seed: f.Seed = 0,
    *,
    share: Share,
    damage: Damage,
    progress: Progress,
) -> Outcome:
    """Degrade the clean faces of TRUTH; degradation.jsonl records every random parameter of each face."""
    from unfade.jobs.run_stage import SMALLEST
    from unfade.jobs.runs import open_run
    from unfade.jobs.workers import cores
    from unfade.stages.degrade import RECORDS, FittedKind, degrade_faces, settings_of

    portion = share.portion()
    found, shard = portion.pictures(truth, folder=True).paths, portion.shard
    degradation = damage.of_kind(kind)
    _need_at_least(SMALLEST, "--size", size)
    _need_at_least(1, "--workers", workers)
    about = {"truth": str(truth), **_versions()}
    if isinstance(degradation, FittedKind):
        size = size or degradation.size
        degradation.check_size(size, size)
        about["fitted"] = str(degradation.file)
    settings = {**settings_of(degradation), "kind": kind, "size": size, "seed": seed}
    records = out / shard.named(RECORDS)
    with open_run(
        out,
        {"degrade": settings},
        about=about,
        inputs=[truth],
        files=[records],
        shard=shard,
        items=(path.name for path in found),
        progress=progress,
    ) as run:
        entries = degrade_faces(
            found,
            run,
            degradation,
            size=size,
            seed=seed,
            workers=workers or min(cores(), 1 + len(found) // PER_WORKER),
            records=records.name,
        )
    done = of_entries(entries, out, shards=[shard])
    if not isinstance(degradation, FittedKind):
        return done
    resized = f"resized to {size} px where needed, the size of the faces that {degradation.file} was fitted to"
    return replace(done, result={**done.result, "size": size}, lines=[*done.lines, resized])


def _need_at_least(lowest: int, flag: str, value: int | None) -> None:
    """Raises BadInput for a value that is too low; called before the output folder is made."""
    if value is not None and value < lowest:
        raise BadInput(f"Expected {flag} to be at least {lowest}, got {value}; leave it out for the default.")


def _versions() -> dict[str, str]:
    """The versions of the libraries with which the pictures can be reproduced bit for bit."""
    import cv2
    import numpy as np

    return {"opencv": cv2.__version__, "numpy": np.__version__}
