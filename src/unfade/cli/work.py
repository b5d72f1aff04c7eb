"""The commands that work on folders of pictures."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unfade.cli import options as o
from unfade.cli import whole as w
from unfade.cli.console import failure_lines, finish, progress, sum_line, table

if TYPE_CHECKING:
    from unfade.jobs.journal import Entry
    from unfade.recipes.adapt import Adapted
    from unfade.training.loop import History

Photos = Annotated[Path, typer.Argument(help="Folder of photos; folders below it are searched too. Or one photo.")]
Faces = Annotated[Path, typer.Argument(help="Folder of aligned, degraded faces.")]


def adapt(
    photos: Photos,
    out: o.Out,
    aligned: w.Aligned = False,
    which: w.Faces = None,
    min_face: w.MinFace = None,
    max_face: w.MaxFace = None,
    min_score: w.MinScore = None,
    detector: w.Detector = None,
    restorer: o.Restorer = "small-restorer",
    prior: o.Prior = "small-prior",
    truth: Annotated[Path | None, typer.Option(help="Clean versions, if there are any: scores in the report.")] = None,
    real: o.Real = None,
    identity: w.Identity = None,
    mask: w.Mask = None,
    start: o.Start = None,
    free_from: o.FreeFrom = None,
    factor: o.Factor = None,
    spacing: o.Spacing = None,
    update: o.Update = None,
    begin_with: o.BeginWith = None,
    by_damage: o.ByDamage = None,
    agreement: o.Agreement = None,
    rounds: o.Rounds = None,
    steps: o.Steps = None,
    batch: o.Batch = None,
    micro_batch: o.MicroBatch = None,
    learning_rate: o.LearningRate = None,
    flip: o.Flip = None,
    hold_out: o.HoldOut = None,
    perceptual: o.Perceptual = None,
    perceptual_weight: o.PerceptualWeight = None,
    gan_weight: o.GanWeight = None,
    code_losses: o.CodeLosses = None,
    fidelity: o.Fidelity = None,
    refine: o.Refine = None,
    strength: o.Strength = 1.0,
    precision: Annotated[str | None, typer.Option(help=f"{o.PRECISIONS} Of targets and fine-tuning.")] = None,
    seed: o.Seed = 0,
    device: o.Device = "auto",
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Adapt a restorer to PHOTOS and restore them: faces, pseudo targets, fine-tuning, results, report."""
    from unfade.recipes.adapt import adapt as run

    find = w.find_settings(aligned, which=which, min_face=min_face, max_face=max_face, min_score=min_score,
                           detector=detector)  # fmt: skip
    bf16, where = o.is_bf16(precision), o.choose_device(device)
    settings = o.adapt_settings(
        restorer, prior, seed,
        targets={"start": start, "free_from": free_from, "factor": factor, "spacing": spacing, "update": update,
                 "begin_with": begin_with, "by_damage": by_damage, "bf16": bf16},
        loop={"steps": steps, "batch": batch, "micro_batch": micro_batch, "learning_rate": learning_rate, "bf16": bf16},
        finetune={"flip": flip, "hold_out": hold_out},
        losses={"perceptual_weight": perceptual_weight, "gan_weight": gan_weight},
        perceptual=perceptual, code_losses=code_losses, fidelity=fidelity, strength=strength, rounds=rounds,
        refine=refine, agreement=agreement,
    )  # fmt: skip
    done = run(
        photos, out, settings,
        find=find, real=real, truth=truth, embedder=identity, mask=mask, device=where, progress=progress(quiet=quiet),
    )  # fmt: skip
    _finish_adapted(done, as_json, quiet)


def _finish_adapted(done: "Adapted", as_json: bool, quiet: bool) -> None:
    counts = done.counts.as_dict()
    places = {"restorer": done.restorer, "restored": done.restorer.parent / "restored", "report": done.report}
    result = {
        **counts,
        "seconds": done.seconds,
        "failures": [list(failure) for failure in done.failures],
        **{name: str(path) for name, path in places.items()},
    }
    lines = [sum_line(counts), *failure_lines(done.failures), *(f"{name}: {path}" for name, path in places.items())]
    finish(result, as_json=as_json, quiet=quiet, lines=lines, failed=counts["failed"] + counts["skipped"])


def restore(
    photos: Photos,
    out: o.Out,
    restorer: o.Restorer = "small-restorer",
    aligned: w.Aligned = False,
    which: w.Faces = None,
    min_face: w.MinFace = None,
    max_face: w.MaxFace = None,
    min_score: w.MinScore = None,
    detector: w.Detector = None,
    fidelity: o.Fidelity = None,
    refine: o.Refine = None,
    strength: o.Strength = 1.0,
    paste: w.Paste = None,
    match_colour: w.MatchColour = False,
    colour: w.Colour = False,
    format: w.Format = None,
    quality: w.Quality = None,
    copy: w.Copy = False,
    background: w.Background = None,
    scale: w.Scale = None,
    identity: w.Identity = None,
    mask: w.Mask = None,
    sidecar: w.Sidecar = False,
    no_provenance: w.NoProvenance = False,
    batch: Annotated[int, typer.Option(help="Faces restored together.")] = 8,
    device: o.Device = "auto",
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Restore the faces of PHOTOS (videos too) with any restorer, an adapted one too; names and formats are kept."""
    from unfade.recipes.restore import restore as run

    find = w.find_settings(
        aligned, which=which, min_face=min_face, max_face=max_face, min_score=min_score, detector=detector
    )
    settings = w.photo_settings(
        aligned, no_provenance=no_provenance, way=paste, match_colour=match_colour, colour=colour, format=format,
        quality=quality, copy=copy, sidecar=sidecar, scale=scale, background=background, identity=identity,
        mask=mask,
    )  # fmt: skip
    entries = run(
        photos, out, restorer,
        find=find, settings=settings, background=background, embedder=identity, mask=mask,
        provenance=not no_provenance, fidelity=fidelity, refine=refine, strength=strength, batch=batch,
        device=o.choose_device(device), progress=progress(quiet=quiet),
    )  # fmt: skip
    finish_stage(entries, out, as_json, quiet)


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
    from unfade.diffusion.load import load_prior
    from unfade.images.files import list_images
    from unfade.jobs.runs import open_run
    from unfade.recipes.adapt_settings import settings_for, weights_key
    from unfade.restorers.load import load_restorer
    from unfade.stages.restore import choices
    from unfade.stages.targets import make_targets
    from unfade.store.seeds import fingerprint

    found = list_images(faces)
    where = o.choose_device(device)
    network, model = load_restorer(restorer, fidelity=fidelity, device=where), load_prior(prior, device=where)
    settings = o.changed(
        settings_for(restorer, prior).targets,
        start=start, free_from=free_from, factor=factor, spacing=spacing, update=update,
        begin_with=begin_with, by_damage=by_damage, batch=batch, bf16=o.is_bf16(precision), seed=seed,
    )  # fmt: skip
    key = weights_key(restorer, prior)
    identity = {"targets": settings.identity(), **key, **choices(network)}
    with open_run(out, identity, about={"faces": str(faces)}, inputs=[faces]) as journal:
        entries = make_targets(
            found, out, network, model,
            size=network.size, settings=settings, journal=journal, key=fingerprint(key), progress=progress(quiet=quiet),
        )  # fmt: skip
    finish_stage(entries, out, as_json, quiet)


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
    perceptual: o.Perceptual = None,
    perceptual_weight: o.PerceptualWeight = None,
    gan_weight: o.GanWeight = None,
    code_losses: o.CodeLosses = None,
    fidelity: o.Fidelity = None,
    precision: Annotated[str | None, typer.Option(help=o.PRECISIONS)] = None,
    seed: o.Seed = 0,
    device: o.Device = "auto",
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Fine-tune a restorer on pairs of a face and its pseudo target, and write it to a file."""
    from unfade.diffusion.load import load_prior
    from unfade.images.files import list_images
    from unfade.recipes.tuning import finetune_to_file
    from unfade.restorers.load import load_restorer
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
        finetune={"flip": flip, "hold_out": hold_out},
        losses={"perceptual_weight": perceptual_weight, "gan_weight": gan_weight},
        perceptual=perceptual, code_losses=code_losses, fidelity=fidelity,
    )  # fmt: skip
    pairs = pairs_of(faces, targets)
    where = o.choose_device(device)
    history = finetune_to_file(
        load_restorer(restorer, fidelity=settings.fidelity, device=where),
        load_prior(prior, device=where),
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


def evaluate(
    results: Annotated[Path, typer.Argument(help="Folder of results.")],
    truth: Annotated[Path | None, typer.Option(help="Folder of clean versions, with the same file names.")] = None,
    reference: Annotated[
        str | None, typer.Option(help="For fid and kid: folder of clean faces, or statistics by name (fid-ffhq-512).")
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(help="Comma-separated: psnr, ssim, psnr_matched, ssim_matched, lpips, lpips_alex, "
                          "feature_distance, identity_distance, deg, deg_sface, lmd, fid, kid, and with no truth: "
                          "musiq, maniqa, maniqa_pipal, niqe. Default with --truth: the first four, and of square "
                          "pictures identity_distance; with --reference: fid."),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the scores of each file there.")] = None,
    protocol: Annotated[
        str | None, typer.Option(help="ntire: the identity check of the NTIRE 2025 challenge and four of the six terms "
                                      "of its score; takes --photos and --subset in place of --truth and --metrics."),
    ] = None,
    photos: Annotated[Path | None, typer.Option(help="For ntire: the degraded faces, with the same names.")] = None,
    subset: Annotated[
        str | None, typer.Option(help="For ntire: where they are from: celeba, lfw, celebchild, wider, webphoto.")
    ] = None,
    device: o.Device = "auto",
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:  # fmt: skip
    """Score a folder of results: each against its truth, all against a reference set, or each by itself."""
    from unfade.errors import BadInput
    from unfade.jobs.journal import refuse_existing
    from unfade.recipes.scoring import ALONE, evaluate_folder

    names = [name for name in (metrics or "").split(",") if name]
    if protocol or photos or subset:
        if protocol != "ntire" or not photos or not subset or truth or names or csv:
            raise BadInput(
                "--protocol ntire takes --photos FOLDER and --subset NAME, and no --truth, --metrics, --csv."
            )
        _evaluate_ntire(results, photos, subset, reference, o.choose_device(device), as_json, quiet)
        return
    if csv and not truth and not set(names) & set(ALONE):
        raise BadInput("--csv takes the scores of each file, which need --truth FOLDER; add it, or leave --csv out.")
    if csv:
        refuse_existing(csv)  # before the hours of scoring
    found = evaluate_folder(
        results, truth=truth, reference=reference, metrics=names,
        device=o.choose_device(device), progress=progress(quiet=quiet),
    )  # fmt: skip
    if csv and found.scores:
        found.scores.write_csv(csv)
    if found.scores and not (as_json or quiet):
        table([{"metric": name, **asdict(mean)} for name, mean in found.scores.summary.items()])
    lines = [*(found.sets.lines if found.sets else ()), *failure_lines(found.failed)]
    finish(found.as_dict(), as_json=as_json, quiet=quiet, lines=lines, failed=len(found.failed))


def _evaluate_ntire(
    results: Path, photos: Path, subset: str, reference: str | None, device: str, as_json: bool, quiet: bool
) -> None:
    from unfade.recipes.ntire import REFERENCE, evaluate_ntire

    found = evaluate_ntire(
        results, photos, subset, reference=reference or REFERENCE, device=device, progress=progress(quiet=quiet)
    )
    lines = [
        *found.lines,
        *(found.evaluation.sets.lines if found.evaluation.sets else ()),
        *failure_lines(found.failed),
    ]
    finish(found.as_dict(), as_json=as_json, quiet=quiet, lines=lines, failed=len(found.failed))


def finish_stage(entries: "list[Entry]", out: Path, as_json: bool, quiet: bool) -> None:
    """Say what became of each picture of a stage, and exit with 1 if some were not done."""
    from unfade.jobs.journal import Counts

    counts = Counts.of(entries).as_dict()
    failures = [(entry.item, entry.reason) for entry in entries if entry.status != "done"]
    doubts = [(e.item, note) for e in entries for note in e.notes if "no longer resembles" in note]
    lines = [sum_line(counts), *failure_lines([*failures, *doubts]), f"results: {out}"]
    result = {**counts, "failures": [list(failure) for failure in failures], "out": str(out)}
    finish(result, as_json=as_json, quiet=quiet, lines=lines, failed=sum(entry.is_open for entry in entries))
