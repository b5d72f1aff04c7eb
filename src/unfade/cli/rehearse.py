"""`unfade rehearse`: what adaptation will do for a camera, on known truth."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from unfade.cli import flags as f
from unfade.cli.command import Outcome, command
from unfade.cli.settings import Damage, Learning, Schedule, adapt_settings
from unfade.progress import Progress


@command
def rehearse(
    faces: Annotated[Path, typer.Argument(help="Folder of clean, aligned faces; folders below it are searched too.")],
    out: f.Out,
    kind: f.Kind = "camera",
    learn: Annotated[float, typer.Option(help="Share of the faces to adapt to; the others are scored.")] = 0.7,
    most: Annotated[int, typer.Option(help="Faces to adapt to, at most; 0: all of that share.")] = 0,
    more: Annotated[Path | None, typer.Option(help="Folder of other clean faces to adapt to, never scored.")] = None,
    restorer: f.Restorer = "small-restorer",
    prior: f.Prior = "small-prior",
    rounds: f.Rounds = None,
    fidelity: f.Fidelity = None,
    steps: f.Steps = None,
    learning_rate: f.LearningRate = None,
    seed: f.Seed = 0,
    device: f.Device = "auto",
    *,
    damage: Damage,
    targets: Schedule,
    progress: Progress,
) -> Outcome:
    """Degrade clean FACES as a camera would, adapt to some without their truth, and score on the others."""
    from unfade.recipes.rehearse import RehearseSettings
    from unfade.recipes.rehearse import rehearse as run

    degradation = damage.of_kind(kind)
    learning = Learning(steps=steps, learning_rate=learning_rate)
    adapt = adapt_settings(restorer, prior, seed, targets=targets, learning=learning, fidelity=fidelity, rounds=rounds)
    done = run(
        faces, out, degradation, RehearseSettings(adapt, learn, most, seed),
        more=more, device=device, progress=progress,
    )  # fmt: skip
    rows = {**done.scores, "share of the gap": done.share}
    return Outcome(
        {**done.as_dict(), "degradation": asdict(degradation)},
        [
            f"adapted to {done.learned} photos, scored on {done.held_out} others",
            *(f"share of the gap, {k}: {v.value:.0%} ({v.low:.0%} to {v.high:.0%})" for k, v in done.share.items()),
            *done.warnings,
        ],
        failures=done.failures,
        last=[f"report: {done.report}"],
        failed=len(done.failures),
        rows=[{"held-out faces": name, **{k: v.value for k, v in row.items()}} for name, row in rows.items()],
    )
