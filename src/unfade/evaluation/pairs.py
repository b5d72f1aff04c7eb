"""Score a folder of results, against a folder of truth if there is one: per file, and means."""

import csv
import io
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unfade.atomic import atomic_write
from unfade.devices import device_of
from unfade.diffusion.features import feature_distance
from unfade.diffusion.prior import DiffusionPrior
from unfade.errors import BadInput, UnreadableImage
from unfade.faces.identity import load_identity_distance
from unfade.images.files import read_picture
from unfade.images.finding import list_images
from unfade.images.pairing import paired
from unfade.jobs.journal import refuse_existing
from unfade.jobs.shards import WHOLE, Shard
from unfade.metrics.bootstrap import bootstrap_interval
from unfade.metrics.reference import matched, psnr, ssim
from unfade.shown import cell, finite, first_few

Score = Callable[[Tensor, Tensor], Tensor]  # (restored, truth), both (B, 3, H, W) in [-1, 1] -> (B,)
Quality = Callable[[Tensor], Tensor]  # restored (B, 3, H, W) in [-1, 1] -> (B,)
Pair = tuple[Path, Path]  # (result, truth)
Item = tuple[Path, Path | None]  # the same, where there may be no truth


@dataclass(frozen=True)
class Alone:
    """A metric that needs only the result, and no truth."""

    quality: Quality

    def __call__(self, restored: Tensor, truth: Tensor) -> Tensor:
        return self.quality(restored)


METRICS: dict[str, Score] = {
    "psnr": psnr,
    "ssim": ssim,
    "psnr_matched": lambda restored, truth: psnr(matched(restored, truth), truth),
    "ssim_matched": lambda restored, truth: ssim(matched(restored, truth), truth),
}
PROTOCOL = {
    "psnr": "dB, all channels, 8-bit range, no border cut",
    "ssim": "11x11 Gaussian window of sigma 1.5, valid region, mean over channels, 8-bit range",
    "psnr_matched": "as psnr, after each channel's mean and deviation are set to the truth's (the paper's value)",
    "ssim_matched": "as ssim, after each channel's mean and deviation are set to the truth's (the paper's value)",
    "lpips": "version 0.1 with VGG16, pictures at their own size",
    "lpips_alex": "version 0.1 with AlexNet, pictures at their own size",
    "feature_distance": "LPIPS's distance in the features of the built-in prior's encoder at step 20, unweighted",
    "identity_distance": "Euclidean, between dlib's embeddings of FFHQ-aligned faces; one person's is at most 0.6",
    "deg": "degrees between the ArcFace-18 embeddings of the whole aligned picture in grey, 128 px, mean over all",
    "deg_sface": "degrees between the SFace embeddings of the face in colour, aligned by FFHQ's template, 112 px",
    "lmd": "mean distance of 98 landmarks (AWing FAN, whole aligned picture at 256 px), in px of faces of 512 px",
    "musiq": "MUSIQ of KonIQ-10k, the picture at its own size and with a longer side of 384 and 224, 0 to 100",
    "maniqa": "MANIQA of KonIQ-10k, mean of 20 crops of 224 px in fixed places (the published scripts draw them)",
    "maniqa_pipal": "as maniqa, but of PIPAL (the paper's value, of pyiqa 0.1.7, with 20 crops drawn at random)",
    "niqe": "blocks of 96 px at two scales, luma in whole levels, against LIVE's pristine photographs; lower is better",
    "deg_published": "as deg, but pairs under 1 degree are left out of the mean (the paper's value)",
}
_SMALLEST = 11  # pixels, the window of SSIM


def built_in_distances(prior: DiffusionPrior) -> dict[str, Score]:
    """The distances that need no download: the feature distance, on the prior's device, and the identity distance."""
    device = device_of(prior)
    return {"feature_distance": feature_distance(prior), "identity_distance": load_identity_distance(device=device)}


@dataclass(frozen=True)
class Mean:
    """The mean of one metric over all files."""

    mean: float
    low: float  # bootstrap interval of the mean, 95 %
    high: float
    count: int  # number of files


@dataclass(frozen=True)
class Scores:
    """The result of `score_folder`."""

    files: Mapping[str, Mapping[str, float]]  # file name of the result -> metric -> value
    summary: Mapping[str, Mean]  # by metric
    failed: Sequence[tuple[str, str]] = ()  # (file name of the result, why its pair could not be read)
    notes: Sequence[tuple[str, str]] = ()  # (file, what had to be converted before it was scored, such as transparency)

    def as_dict(self) -> dict[str, object]:
        """For JSON: counts, protocol, summary, files, failures. Values that are not finite become None."""
        return {
            "found": len(self.files) + len(self.failed),
            "scored": len(self.files),
            "failed": [{"file": name, "reason": reason} for name, reason in self.failed],
            "notes": [[*note] for note in self.notes],
            "protocol": {name: PROTOCOL[name] for name in self.summary if name in PROTOCOL},
            "summary": {name: finite(vars(mean)) for name, mean in self.summary.items()},
            "files": finite(self.files),
        }

    def write_csv(self, path: Path) -> None:
        """One line per scored file and one column per metric, written in one step.

        Raises OutputConflict if the file exists.
        """
        refuse_existing(path)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["file", *next(iter(self.files.values()))])
        writer.writerows([cell(name), *values.values()] for name, values in self.files.items())
        atomic_write(path, text.getvalue())


def pair_by_stem(results: Path, truth: Path) -> list[Pair]:
    """The pictures of two folders, paired by file name without its ending and sorted by it.

    Raises BadInput, naming the first few, if a picture has no partner or if two in a folder share a name.
    """
    found = paired(results, truth)
    sides = zip((results, truth), found.alone, strict=True)
    alone = [f"{path.name} only in {folder}" for folder, paths in sides for path in paths]
    if alone:
        raise BadInput(f"Every result needs a truth of the same name, but {first_few(alone)}; add or remove these.")
    return [*found.pairs]


def score_folder(
    results: Path,
    truth: Path | None,
    *,
    metrics: Mapping[str, Score] = METRICS,
    stems: Collection[str] | None = None,
    rng: Callable[[], np.random.Generator] = lambda: np.random.default_rng(0),
    track: Callable[[Sequence[Item]], Iterable[Item]] = iter,
    shard: Shard = WHOLE,
) -> Scores:
    """Score every picture of `results`, against the one of the same name in `truth` if there is one.

    Every result needs a truth and every truth a result, unless `stems` has the file stems of those to score. Without a
    truth, all `metrics` have to be `Alone`. `rng` makes the generator of the bootstrap, a new one for each metric, so
    that all metrics get the same resampling. Only the results in `shard` are scored. `track` may wrap the pairs to show
    progress (as `rich.progress.track` does). A file that cannot be read is listed as failed, and the others are still
    scored.

    Raises BadInput if the pairing is incomplete, if the sizes of a pair differ (nothing is resized here), if a picture
    is smaller than a metric's window, or if no file could be read.
    """
    items: list[Item] = [*_pairs(results, truth, stems)] if truth else [(path, None) for path in list_images(results)]
    items = [item for item in items if shard.holds(item[0].name) and (stems is None or item[0].stem in stems)]
    if not items:
        if shard.is_whole:
            raise BadInput(f"None of the pictures to score is in {results}; they failed, or were never made.")
        raise BadInput(f"None of the pictures of {results} is in shard {shard}; choose fewer shards.")
    files: dict[str, dict[str, float]] = {}
    failed: list[tuple[str, str]] = []
    notes: list[tuple[str, str]] = []
    for path, truth_path in track(items):
        try:
            restored, target, remarks = _read(path, truth_path)
        except UnreadableImage as error:
            failed.append((path.name, str(error)))
        else:
            files[path.name] = _score(path, restored, target, metrics)
            notes += remarks
    if not files:
        what = f"pairs of {results} and {truth}" if truth else f"pictures of {results}"
        raise BadInput(f"None of the {len(failed)} {what} could be read; {failed[0][1]}")
    means = {name: mean_with_interval([f[name] for f in files.values()], rng()) for name in metrics}
    return Scores(files, means, failed, notes)


def mean_with_interval(values: Sequence[float], rng: np.random.Generator) -> Mean:
    """The mean and its interval; NaN if any value is NaN, so that none is left out silently."""
    if not values or any(map(math.isnan, values)):
        return Mean(math.nan, math.nan, math.nan, len(values))
    return Mean(sum(values) / len(values), *bootstrap_interval(values, rng=rng), len(values))


def _pairs(results: Path, truth: Path, stems: Collection[str] | None) -> Sequence[Pair]:
    return pair_by_stem(results, truth) if stems is None else paired(results, truth).pairs


def _read(path: Path, truth_path: Path | None) -> tuple[Tensor, Tensor | None, list[tuple[str, str]]]:
    """A result, its truth if there is one, and notes on what had to be converted in each."""
    result = read_picture(path)
    restored, notes = result.pixels[None], [(path.name, note) for note in result.notes]
    if truth_path is None:
        return restored, None, notes
    clean = read_picture(truth_path)
    truth = clean.pixels[None]
    if restored.shape != truth.shape:
        raise BadInput(
            f"{path} has {_size(restored)} pixels and {truth_path} has {_size(truth)}; "
            "make them one size, since scores of resized pictures mean something else."
        )
    if min(restored.shape[-2:]) < _SMALLEST:
        raise BadInput(f"{path} has {_size(restored)} pixels; scoring needs at least {_SMALLEST} x {_SMALLEST}.")
    return restored, truth, notes + [(str(truth_path), note) for note in clean.notes]


@torch.no_grad()
def _score(path: Path, restored: Tensor, truth: Tensor | None, metrics: Mapping[str, Score]) -> dict[str, float]:
    values = {}
    for name, metric in metrics.items():
        if truth is None and not isinstance(metric, Alone):
            raise ValueError(f"{name} compares with a truth, and {path} has none")
        values[name] = _value(path, restored, truth if truth is not None else restored, name, metric)
    return values


def _value(path: Path, restored: Tensor, truth: Tensor, name: str, metric: Score) -> float:
    """Compute a metric; if it refuses the picture's size or shape, raises BadInput with the file's name."""
    try:
        return metric(restored, truth).item()
    except BadInput as error:
        raise BadInput(f"{path} cannot be scored: {str(error).rstrip('.')}; leave {name} out.") from error


def _size(image: Tensor) -> str:
    return f"{image.shape[-1]} x {image.shape[-2]}"
