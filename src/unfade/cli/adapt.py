"""The command `unfade adapt`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unfade.cli import options as o
from unfade.cli import whole as w
from unfade.cli.console import failure_lines, finish, note_lines, passed_over_lines, progress, sum_line

if TYPE_CHECKING:
    from unfade.recipes.adapt import Adapted

Photos = Annotated[Path, typer.Argument(help="Folder of photos; folders below it are searched too. Or one photo.")]
Truth = Annotated[Path | None, o.option(o.OUTPUT, "Clean versions, if there are any: scores in the report.")]


def adapt(
    photos: Photos,
    out: o.Out,
    aligned: w.Aligned = False,
    restorer: o.Restorer = "small-restorer",
    prior: o.Prior = "small-prior",
    fidelity: o.Fidelity = None,
    precision: o.TunedPrecision = None,
    seed: o.Seed = 0,
    device: o.Device = "auto",
    which: w.Faces = None,
    min_face: w.MinFace = None,
    max_face: w.MaxFace = None,
    min_score: w.MinScore = None,
    detector: w.Detector = None,
    start: o.Start = None,
    free_from: o.FreeFrom = None,
    factor: o.Factor = None,
    spacing: o.Spacing = None,
    update: o.Update = None,
    begin_with: o.BeginWith = None,
    by_damage: o.ByDamage = None,
    agreement: o.Agreement = None,
    rounds: o.Rounds = None,
    real: o.Real = None,
    steps: o.Steps = None,
    batch: o.Batch = None,
    micro_batch: o.MicroBatch = None,
    learning_rate: o.LearningRate = None,
    flip: o.Flip = None,
    hold_out: o.HoldOut = None,
    redegraded: o.Redegraded = None,
    perceptual: o.Perceptual = None,
    perceptual_weight: o.PerceptualWeight = None,
    gan_weight: o.GanWeight = None,
    code_losses: o.CodeLosses = None,
    truth: Truth = None,
    refine: o.Refine = None,
    strength: o.Strength = 1.0,
    identity: w.Identity = None,
    mask: w.Mask = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Adapt a restorer to PHOTOS and restore them: faces, pseudo targets, fine-tuning, results, report."""
    from unfade.recipes.adapt import adapt as run

    find = w.find_settings(aligned, which=which, min_face=min_face, max_face=max_face, min_score=min_score,
                           detector=detector)  # fmt: skip
    settings = o.adapt_settings(
        restorer, prior, seed,
        targets={"start": start, "free_from": free_from, "factor": factor, "spacing": spacing, "update": update,
                 "begin_with": begin_with, "by_damage": by_damage, "bf16": (bf16 := o.is_bf16(precision))},
        loop={"steps": steps, "batch": batch, "micro_batch": micro_batch, "learning_rate": learning_rate, "bf16": bf16},
        finetune={"flip": flip, "hold_out": hold_out, "redegraded": redegraded}, perceptual=perceptual, rounds=rounds,
        losses={"perceptual_weight": perceptual_weight, "gan_weight": gan_weight}, code_losses=code_losses,
        fidelity=fidelity, refine=refine, strength=strength, agreement=agreement,
    )  # fmt: skip
    _finish_adapted(run(photos, out, settings, aligned=aligned, find=find, real=real, truth=truth, embedder=identity,
                        mask=mask, device=device, progress=progress(quiet=quiet)), as_json, quiet)  # fmt: skip


def _finish_adapted(done: "Adapted", as_json: bool, quiet: bool) -> None:
    counts = done.counts.as_dict()
    places = {"restorer": done.restorer, "restored": done.restorer.parent / "restored", "report": done.report}
    result = {
        **counts,
        "seconds": done.seconds,
        "failures": [list(failure) for failure in done.failures],
        "notes": [list(note) for note in done.notes],
        "passed_over": dict(done.passed_over),
        **{name: str(path) for name, path in places.items()},
    }
    lines = [
        sum_line(counts),
        *passed_over_lines(done.passed_over),
        *failure_lines(done.failures),
        *note_lines(done.notes),
        *(f"{name}: {path}" for name, path in places.items()),
    ]
    finish(result, as_json=as_json, quiet=quiet, lines=lines, failed=counts["failed"] + counts["skipped"])
