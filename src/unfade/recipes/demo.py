"""The demonstration on the sample set, offline: adapt to some of the photos, score on others never learned from."""

import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from unfade.atomic import atomic_write
from unfade.devices import Device, choose_device
from unfade.diffusion.load import load_prior
from unfade.evaluation.pairs import METRICS, Score, built_in_distances, score_folder
from unfade.images.finding import list_images
from unfade.progress import Progress, silent
from unfade.recipes.adapt import Adapted, adapt
from unfade.recipes.adapt_settings import SAMPLES, SMALL_ADAPT, AdaptSettings
from unfade.recipes.photo_report import shown_faces
from unfade.recipes.restore import RestoreSettings, restore
from unfade.report.document import render

# A little shorter than for a user's photos, so that it takes minutes on two cores.
DEMO = replace(SMALL_ADAPT, finetune=replace(SMALL_ADAPT.finetune, loop=replace(SMALL_ADAPT.finetune.loop, steps=60)))

# The shortest run that still does everything: few evaluations of the prior, few steps of the optimiser.
QUICK = replace(
    DEMO,
    targets=replace(DEMO.targets, start=4, free_from=2),
    finetune=replace(DEMO.finetune, loop=replace(DEMO.finetune.loop, steps=20)),
)


@dataclass(frozen=True)
class DemoResult:
    """The outcome of the demonstration; the scores are means over the held-out faces."""

    pretrained: Mapping[str, float]  # psnr (dB), ssim, feature_distance, identity_distance
    adapted: Mapping[str, float]
    faces: int  # number of faces adapted to
    held_out: int  # number of faces scored
    seconds: Mapping[str, float]  # spent on each stage
    peak_memory_mb: float
    report: Path
    run: Adapted


def demo(
    out: Path, settings: AdaptSettings = DEMO, *, device: Device = "auto", progress: Progress = silent
) -> DemoResult:
    """Adapt the built-in restorer to the sample photos and score it on the held-out ones."""
    device, photos = choose_device(device), SAMPLES / "photos"
    run = adapt(photos, out, settings, aligned=True, truth=SAMPLES / "truth", device=device, progress=progress)
    metrics = built_in_distances(load_prior(settings.prior, device=device))
    scores, own_size = {}, RestoreSettings(size="restorer")
    for name, restorer in {"pre-trained": settings.restorer, "adapted": str(run.restorer)}.items():
        results = out / "held_out" / name
        restore(SAMPLES / "held_out_photos", results, restorer, own_size, aligned=True, device=device)
        scores[name] = _scores(results, metrics)
    _write_report(run, out, scores)
    return DemoResult(
        pretrained=scores["pre-trained"],
        adapted=scores["adapted"],
        faces=run.counts.done,
        held_out=len(list_images(SAMPLES / "held_out_photos")),
        seconds=run.seconds,
        peak_memory_mb=_peak_memory_mb(),
        report=run.report,
        run=run,
    )


def _scores(results: Path, metrics: Mapping[str, Score]) -> dict[str, float]:
    found = score_folder(results, SAMPLES / "held_out_truth", metrics={**METRICS, **metrics})
    return {name: found.summary[name].mean for name in ("psnr", "ssim", *metrics)}


def _write_report(run: Adapted, out: Path, scores: Mapping[str, Mapping[str, float]]) -> None:
    """The report of the adaptation, with the held-out faces and their scores first."""
    photos = {photo.name: photo for photo in list_images(SAMPLES / "held_out_photos")}
    files = {name: _held_out(photo, out) for name, photo in photos.items()}
    faces = shown_faces(files, out, notes=dict.fromkeys(photos, "held out: never learned from"))
    rows = [{"held-out faces": name, **values} for name, values in scores.items()]
    summary = (
        f"Adapted to {run.counts.done} photos; the scores are for {len(faces)} others that were never learned from."
    )
    page = replace(
        run.page, title="unfade: demonstration", summary=summary, scores=rows, faces=[*faces, *run.page.faces]
    )
    atomic_write(run.report, render(page))


def _held_out(photo: Path, out: Path) -> dict[str, Path]:
    name = f"{photo.stem}.png"
    return {
        "input": photo,
        "pre-trained": out / "held_out" / "pre-trained" / name,
        "adapted": out / "held_out" / "adapted" / name,
        "truth": SAMPLES / "held_out_truth" / name,
    }


def _peak_memory_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)
