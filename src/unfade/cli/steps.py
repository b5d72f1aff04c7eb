"""The commands `unfade targets` and `unfade finetune`: the two steps of `unfade adapt` on their own."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unfade.cli import options as o
from unfade.cli.console import finish, finish_stage, progress

if TYPE_CHECKING:
    from unfade.training.loop import History

Faces = Annotated[Path, typer.Argument(help="Folder of aligned, degraded faces.")]


def targets(
    faces: Faces,
    out: o.Out,
    restorer: o.Restorer = "small-restorer",
    prior: o.Prior = "small-prior",
    start: o.Start = None,
    free_from: o.FreeFrom = None,
    factor: o.Factor = None,
    spacing: o.Spacing = None,
    update: o.Update = None,
    begin_with: o.BeginWith = None,
    by_damage: o.ByDamage = None,
    fidelity: o.Fidelity = None,
    batch: Annotated[int | None, typer.Option(help="Faces denoised together; default: 4, more on a GPU.")] = None,
    precision: o.Precision = "float32",
    seed: o.Seed = 0,
    device: o.Device = "auto",
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Make a pseudo target for each aligned face."""
    from unfade.devices import choose_device
    from unfade.diffusion.load import loaded_prior
    from unfade.images.finding import find_pictures
    from unfade.jobs.runs import open_run
    from unfade.recipes.adapt_settings import settings_for, weights_key
    from unfade.restorers.load import loaded_restorer
    from unfade.stages.restore import choices
    from unfade.stages.targets import make_targets
    from unfade.store.seeds import fingerprint

    found = find_pictures(faces)
    where = choose_device(device)
    begun, model = loaded_restorer(restorer, fidelity=fidelity, device=where), loaded_prior(prior, device=where)
    network = begun.network
    settings = o.changed(
        settings_for(restorer, prior).targets,
        start=start, free_from=free_from, factor=factor, spacing=spacing, update=update,
        begin_with=begin_with, by_damage=by_damage, batch=batch, bf16=o.is_bf16(precision), seed=seed,
    )  # fmt: skip
    key = weights_key(begun, model)
    identity = {"targets": settings.identity(), **key, **choices(network)}
    with open_run(out, identity, about={"faces": str(faces)}, inputs=[found.root]) as journal:
        entries = make_targets(
            found.paths, out, network, model.network,
            size=network.size, settings=settings, journal=journal, key=fingerprint(key), progress=progress(quiet=quiet),
        )  # fmt: skip
    finish_stage(entries, out, as_json, quiet, passed_over=found.passed_over)


def finetune(
    faces: Faces,
    targets: Annotated[Path, typer.Argument(help="Folder of their pseudo targets, with the same file names.")],
    out: o.OutFile,
    restorer: o.Restorer = "small-restorer",
    prior: o.Prior = "small-prior",
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
    fidelity: o.Fidelity = None,
    precision: o.TunedPrecision = None,
    seed: o.Seed = 0,
    device: o.Device = "auto",
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Fine-tune a restorer on pairs of a face and its pseudo target, and write it to a file."""
    from unfade.devices import choose_device
    from unfade.diffusion.load import loaded_prior
    from unfade.images.files import list_images
    from unfade.recipes.tuning import finetune_to_file
    from unfade.restorers.load import loaded_restorer
    from unfade.stages.finetune import pairs_of

    settings = o.adapt_settings(
        restorer,
        prior,
        seed,
        targets={},
        loop={
            "steps": steps, "batch": batch, "micro_batch": micro_batch, "learning_rate": learning_rate,
            "bf16": o.is_bf16(precision),
        },
        finetune={"flip": flip, "hold_out": hold_out, "redegraded": redegraded},
        losses={"perceptual_weight": perceptual_weight, "gan_weight": gan_weight},
        perceptual=perceptual, code_losses=code_losses, fidelity=fidelity,
    )  # fmt: skip
    pairs = pairs_of(faces, targets)
    where = choose_device(device)
    history = finetune_to_file(
        loaded_restorer(restorer, fidelity=settings.fidelity, device=where),
        loaded_prior(prior, device=where),
        pairs,
        out,
        settings,
        clean=list_images(real) if real else [],
        progress=progress(quiet=quiet),
    )
    _finish_tuned(len(pairs), len(list_images(faces)) - len(pairs), history, out, as_json, quiet)


def _finish_tuned(pairs: int, alone: int, history: "History", out: Path, as_json: bool, quiet: bool) -> None:
    scores = {"losses": history.losses[-1:], "held_out": history.validations[-1:]}
    line = f"{pairs} pairs, {alone} faces without a target left out; fine-tuned restorer: {out}"
    result = {"pairs": pairs, "without_target": alone, **scores, "out": str(out)}
    finish(result, as_json=as_json, quiet=quiet, lines=[line])
