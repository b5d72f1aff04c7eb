"""`unfade rehearse`: what adaptation will do for a camera, on known truth."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from unfade.cli import options as o
from unfade.cli.console import failure_lines, finish, progress, table
from unfade.cli.degrade import Demosaic, Iso, Kind, Preset, Scale, SensorFile, degradation_of


def rehearse(
    faces: Annotated[Path, typer.Argument(help="Folder of clean, aligned faces; folders below it are searched too.")],
    out: o.Out,
    kind: Kind = "camera",
    preset: Preset = None,
    scale: Scale = None,
    iso: Iso = None,
    demosaic: Demosaic = None,
    sensor: SensorFile = None,
    learn: Annotated[float, typer.Option(help="Share of the faces to adapt to; the others are scored.")] = 0.7,
    most: Annotated[int, typer.Option(help="Faces to adapt to, at most; 0: all of that share.")] = 0,
    more: Annotated[Path | None, typer.Option(help="Folder of other clean faces to adapt to, never scored.")] = None,
    restorer: o.Restorer = "small-restorer",
    prior: o.Prior = "small-prior",
    start: o.Start = None,
    free_from: o.FreeFrom = None,
    factor: o.Factor = None,
    spacing: o.Spacing = None,
    rounds: o.Rounds = None,
    fidelity: o.Fidelity = None,
    steps: o.Steps = None,
    learning_rate: o.LearningRate = None,
    seed: o.Seed = 0,
    device: o.Device = "auto",
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Degrade clean FACES as a camera would, adapt to some without their truth, and score on the others."""
    from unfade.recipes.rehearse import RehearseSettings
    from unfade.recipes.rehearse import rehearse as run

    degradation = degradation_of(kind, preset=preset, scale=scale, iso=iso, demosaic=demosaic, sensor=sensor)
    adapt = o.adapt_settings(
        restorer,
        prior,
        seed,
        targets={"start": start, "free_from": free_from, "factor": factor, "spacing": spacing},
        loop={"steps": steps, "learning_rate": learning_rate},
        finetune={},
        losses={},
        perceptual=None,
        fidelity=fidelity,
        rounds=rounds,
    )
    done = run(
        faces, out, degradation, RehearseSettings(adapt, learn, most, seed),
        more=more, device=device, progress=progress(quiet=quiet),
    )  # fmt: skip
    if not (as_json or quiet):
        rows = {**done.scores, "share of the gap": done.share}
        table([{"held-out faces": name, **{k: v.value for k, v in row.items()}} for name, row in rows.items()])
    lines = [
        f"adapted to {done.learned} photos, scored on {done.held_out} others",
        *(f"share of the gap, {k}: {v.value:.0%} ({v.low:.0%} to {v.high:.0%})" for k, v in done.share.items()),
        *done.warnings,
        *failure_lines(done.failures),
        f"report: {done.report}",
    ]
    result = {**done.as_dict(), "degradation": asdict(degradation)}
    finish(result, as_json=as_json, quiet=quiet, lines=lines, failed=len(done.failures))
