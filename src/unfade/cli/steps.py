"""The commands `unfade targets` and `unfade finetune`: two steps of `unfade adapt` on their own."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from unfade.cli import flags as f
from unfade.cli.command import Outcome, command, of_entries
from unfade.cli.settings import Learning, Share, Targets, adapt_settings, changed, is_bf16
from unfade.progress import Progress

Faces = Annotated[Path, typer.Argument(help="Folder of aligned, degraded faces.")]


@command
def targets(
    faces: Faces,
    out: f.Out,
    restorer: f.Restorer = "small-restorer",
    prior: f.Prior = None,
    fidelity: f.Fidelity = None,
    batch: Annotated[int | None, typer.Option(help="Faces denoised together. Default: 4, more on a GPU.")] = None,
    precision: f.Precision = "float32",
    seed: f.Seed = 0,
    device: f.Device = "auto",
    *,
    share: Share,
    how: Targets,
    progress: Progress,
) -> Outcome:
    """Make a pseudo target for each aligned face."""
    from unfade.devices import choose_device
    from unfade.diffusion.load import loaded_prior
    from unfade.jobs.runs import open_run
    from unfade.recipes.adapt_settings import settings_for, weights_key
    from unfade.restorers.load import loaded_restorer
    from unfade.stages.restore import choices
    from unfade.stages.targets import make_targets
    from unfade.store.seeds import fingerprint

    portion = share.portion()
    found = portion.pictures(faces)
    where = choose_device(device)
    usual = settings_for(restorer, prior)
    begun, model = loaded_restorer(restorer, fidelity=fidelity, device=where), loaded_prior(usual.prior, device=where)
    network = begun.network
    settings = changed(usual.targets, batch=batch, bf16=is_bf16(precision), seed=seed, **asdict(how))
    settings.check(model.network.size)  # before a run begins that could not go on with others
    key = weights_key(begun, model)
    with open_run(
        out,
        {"targets": settings.identity(), **key, **choices(network)},
        about={"faces": str(faces)},
        inputs=[found.root],
        shard=portion.shard,
        items=(name.name for name in found.names),
        progress=progress,
    ) as run:
        entries = make_targets(found.paths, run, network, model.network, settings=settings, key=fingerprint(key))
    return of_entries(entries, out, shards=[portion.shard], passed_over=found.passed_over)


@command
def finetune(
    faces: Faces,
    targets: Annotated[Path, typer.Argument(help="Folder of their pseudo targets, with the same file names.")],
    out: f.OutFile,
    restorer: f.Restorer = "small-restorer",
    prior: f.Prior = None,
    real: f.Real = None,
    fidelity: f.Fidelity = None,
    precision: f.TunedPrecision = None,
    seed: f.Seed = 0,
    device: f.Device = "auto",
    *,
    learning: Learning,
    progress: Progress,
) -> Outcome:
    """Fine-tune a restorer on pairs of a face and its pseudo target, and write it to a file."""
    from unfade.degradations.fitted_file import DEGRADATION
    from unfade.devices import choose_device
    from unfade.diffusion.load import loaded_prior
    from unfade.images.finding import list_images
    from unfade.recipes.tuning import finetune_to_file, warnings_of
    from unfade.restorers.load import loaded_restorer
    from unfade.stages.finetune import pairs_of

    settings = adapt_settings(restorer, prior, seed, Targets(), learning, precision, fidelity=fidelity)
    degradation = out.with_suffix(f".{DEGRADATION}")
    pairs = pairs_of(faces, targets)
    where = choose_device(device)
    history = finetune_to_file(
        loaded_restorer(restorer, fidelity=settings.fidelity, device=where),
        loaded_prior(settings.prior, device=where),
        pairs,
        out,
        settings,
        clean=list_images(real) if real else [],
        degradation=degradation,
        progress=progress,
    )
    alone = len(list_images(faces)) - len(pairs)
    scores = {"losses": history.losses[-1:], "held_out": history.validations[-1:]}
    lines = [f"{len(pairs)} pairs, {alone} faces without a target left out; fine-tuned restorer: {out}"]
    fitted = str(degradation) if degradation.exists() else None
    lines += [f"degradation: {fitted}"] if fitted else []
    return Outcome(
        {"pairs": len(pairs), "without_target": alone, **scores, "degradation": fitted, "out": str(out)},
        lines,
        warnings=warnings_of(history, settings, len(pairs), fitted=fitted is not None),
    )
