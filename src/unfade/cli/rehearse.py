"""The command `unfade rehearse`: measure what adapting to a camera gains, on faces whose truth is known."""

from pathlib import Path
from typing import Annotated

import typer

from unfade.cli import flags as f
from unfade.cli.command import Outcome, command
from unfade.cli.settings import Damage, Learning, Schedule, adapt_settings
from unfade.progress import Progress


@command
def rehearse(
    faces: Annotated[Path, typer.Argument(help="Folder of clean, aligned faces, searched with its subfolders.")],
    out: f.Out,
    kind: f.Kind = "camera",
    learn: Annotated[
        float, typer.Option(help="Share of the faces to adapt to; the restorer is scored on the others.")
    ] = 0.7,
    most: Annotated[int, typer.Option(help="Largest number of faces to adapt to; 0: the whole share.")] = 0,
    more: Annotated[Path | None, typer.Option(help="Folder of further clean faces to adapt to; never scored.")] = None,
    restorer: f.Restorer = "small-restorer",
    prior: f.Prior = None,
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
    """Degrade clean FACES like a camera, adapt to some of them without using the truth, and score on the others."""
    from unfade.recipes.rehearse import RehearseSettings
    from unfade.recipes.rehearse import rehearse as run
    from unfade.stages.degrade import settings_of

    degradation = damage.of_kind(kind)
    learning = Learning(steps=steps, learning_rate=learning_rate)
    adapt = adapt_settings(restorer, prior, seed, targets, learning, None, fidelity=fidelity, rounds=rounds)
    settings = RehearseSettings(adapt, learn, most, seed)
    done = run(faces, out, degradation, settings, more=more, device=device, progress=progress)
    rows = {**done.scores, "gain by adapting": done.gain, "share of the gap": done.share}
    return Outcome(
        {**done.as_dict(), "degradation": settings_of(degradation)},
        [
            f"adapted to {done.learned} photos, scored on {done.held_out} others",
            *(f"gain by adapting, {k}: {v.value:+.3g} ({v.low:+.3g} to {v.high:+.3g})" for k, v in done.gain.items()),
            *(f"share of the gap, {k}: {v.value:.0%} ({v.low:.0%} to {v.high:.0%})" for k, v in done.share.items()),
        ],
        failures=done.failures,
        warnings=done.warnings,
        last=[f"report: {done.report}"],
        failed=len(done.failures),
        rows=[{"held-out faces": name, **{k: v.value for k, v in row.items()}} for name, row in rows.items()],
    )
