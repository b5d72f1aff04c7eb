"""`unfade degrade`: clean faces to degraded ones."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unfade.cli import options as o
from unfade.cli.console import finish_stage, progress
from unfade.errors import BadInput

if TYPE_CHECKING:
    from unfade.stages.degrade import BlindDegradation, CameraDegradation

PER_WORKER = 16  # pictures that are worth the start of another worker process

Truth = Annotated[Path, typer.Argument(help="Folder of clean faces.")]
Kind = Annotated[str, typer.Option(help="blind (Eq. 9) or camera (Eq. 10).")]
Preset = Annotated[
    str | None,
    typer.Option(help="blind: swinir, gfpgan, codeformer, ...; camera: moderate, mild, severe, moderate-text, ..."),
]
Scale = Annotated[int | None, typer.Option(help="Downsampling ratio, instead of the preset's.")]
Size = Annotated[int | None, typer.Option(help="Bring the faces to this size first.")]
Iso = Annotated[float | None, typer.Option(help="camera: ISO, instead of the preset's.")]
Demosaic = Annotated[str | None, typer.Option(help="camera: edge-aware, bilinear, ...")]
SensorFile = Annotated[Path | None, typer.Option("--sensor", help="camera: JSON file with the numbers of another one.")]
Workers = Annotated[int | None, typer.Option(help="Worker processes; by default one for each core.")]


def degrade(
    truth: Truth,
    out: o.Out,
    kind: Kind = "blind",
    preset: Preset = None,
    scale: Scale = None,
    size: Size = None,
    iso: Iso = None,
    demosaic: Demosaic = None,
    sensor: SensorFile = None,
    workers: Workers = None,
    seed: o.Seed = 0,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Make degraded faces of clean ones, to train with or to rehearse on; degradation.jsonl says how each was made."""
    from unfade.images.files import list_images
    from unfade.jobs.run_stage import SMALLEST
    from unfade.jobs.runs import open_run
    from unfade.jobs.workers import cores
    from unfade.stages.degrade import degrade_faces

    found = list_images(truth)
    degradation = degradation_of(kind, preset=preset, scale=scale, iso=iso, demosaic=demosaic, sensor=sensor)
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
            progress=progress(quiet=quiet),
        )
    finish_stage(entries, out, as_json, quiet)


def degradation_of(kind: str, *, sensor: Path | None, **flags: Any) -> "BlindDegradation | CameraDegradation":
    """Raises BadInput for a kind there is not, and for a flag that would have no effect."""
    from unfade.degradations.sensor import load_sensor
    from unfade.stages.degrade import KINDS

    if kind not in KINDS:
        raise BadInput(f"There is no degradation named {kind}; there are: {', '.join(KINDS)}.")
    given = {name: value for name, value in {**flags, "sensor": sensor}.items() if value is not None}
    for name in ("iso", "demosaic", "sensor"):
        if name in given and kind != "camera":
            raise BadInput(f"--{name} is of no use to --kind {kind}; leave it out, or choose --kind camera.")
    if sensor is not None:
        given["sensor"] = load_sensor(sensor)
    return KINDS[kind](**given)


def _need_at_least(lowest: int, flag: str, value: int | None) -> None:
    """Before the folder is made: a flag that cannot be followed leaves nothing behind."""
    if value is not None and value < lowest:
        raise BadInput(f"Expected {flag} to be at least {lowest}, got {value}; leave it out for the default.")


def _versions() -> dict[str, str]:
    """The pictures can be made again bit for bit with these."""
    import cv2
    import numpy as np

    return {"opencv": cv2.__version__, "numpy": np.__version__}
