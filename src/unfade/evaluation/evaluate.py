"""Compute metrics, chosen by name, for a folder of results."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from unfade.devices import Device, choose_device
from unfade.diffusion.features import feature_distance
from unfade.diffusion.load import load_prior
from unfade.errors import BadInput, UnreadableImage
from unfade.evaluation.pairs import METRICS, Alone, Item, Score, Scores, mean_with_interval, score_folder
from unfade.evaluation.sets import (
    SET_METRICS,
    PictureSet,
    SetScores,
    compare_sets,
    embed_folder,
    load_embed,
    published_statistics,
)
from unfade.faces.identity import load_embedder, load_identity_distance
from unfade.images.files import read_image
from unfade.images.finding import find_pictures, list_images
from unfade.jobs.journal import refuse_existing
from unfade.jobs.shards import WHOLE, Shard
from unfade.metrics.identity import IdentityAngle, identity_angle, published_angles
from unfade.metrics.landmarks import LandmarkDistance
from unfade.metrics.no_reference import CroppedManiqa
from unfade.nets.lpips import LPIPS
from unfade.own_modes import own_modes
from unfade.progress import Progress, silent
from unfade.zoo.load import load_network


def load_feature_distance(device: Device) -> Score:
    """The feature distance, in the features of the built-in prior."""
    return feature_distance(load_prior("small-prior", device=device))


def load_identity_angle(device: Device) -> Score:
    """The identity distance by the published ArcFace. Raises UnknownModel, which says how to get it."""
    angle = IdentityAngle(load_network("arcface-18", "identity", device=device).network)
    return lambda restored, truth: angle(restored.to(device), truth.to(device))


def load_sface_angle(device: Device) -> Score:
    """The identity distance by SFace, which uses colour and runs on the CPU. Raises UnknownModel, as above."""
    embed = load_embedder("sface")
    return lambda restored, truth: identity_angle(embed(restored), embed(truth))


def load_landmark_distance(device: Device) -> Score:
    """The landmark distance by the published network. Raises UnknownModel, which says how to get it."""
    distance = LandmarkDistance(load_network("awing-fan", "landmarks", device=device).network)
    return lambda restored, truth: distance(restored.to(device), truth.to(device))


def load_perceptual(device: Device, name: str = "lpips-vgg") -> Score:
    """LPIPS. Raises UnknownModel, which says how to get it."""
    network: LPIPS = load_network(name, "perceptual", device=device).network
    return lambda restored, truth: network(restored.to(device), truth.to(device))


def load_musiq(device: Device) -> Score:
    """Raises UnknownModel, which says how to get its weights."""
    network = load_network("musiq-koniq", "quality", device=device).network
    return Alone(lambda restored: network(restored.to(device)))


def load_niqe(device: Device) -> Score:
    """NIQE, always on the CPU: its statistics need float64, which not every GPU supports."""
    return Alone(load_network("niqe-pristine", "quality").network)


def load_maniqa(device: Device, name: str, scale: float) -> Score:
    """MANIQA; `scale` belongs to the weights. Raises UnknownModel, which says how to get it."""
    cropped = CroppedManiqa(load_network(name, "quality", device=device).network, scale=scale)
    return Alone(lambda restored: cropped(restored.to(device)))


LOADED: dict[str, Callable[[Device], Score]] = {  # those in METRICS need no weights
    "lpips": load_perceptual,
    "lpips_alex": partial(load_perceptual, name="lpips-alex"),
    "feature_distance": load_feature_distance,
    "identity_distance": lambda device: load_identity_distance(device=device),
    "deg": load_identity_angle,
    "deg_sface": load_sface_angle,
    "lmd": load_landmark_distance,
    "musiq": load_musiq,
    "maniqa": partial(load_maniqa, name="maniqa-koniq", scale=0.8),
    "maniqa_pipal": partial(load_maniqa, name="maniqa-pipal", scale=0.13),
    "niqe": load_niqe,
}
ALONE = ("musiq", "maniqa", "maniqa_pipal", "niqe")  # these need no truth
NAMES = (*METRICS, *LOADED, *SET_METRICS)


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`."""

    scores: Scores | None  # of each file, with or without a truth
    sets: SetScores | None  # of all files together, against the reference
    passed_over: Mapping[str, tuple[tuple[str, int], ...]] = field(default_factory=dict)  # folder -> endings not read

    @property
    def failed(self) -> list[tuple[str, str]]:
        """(file, why it could not be read), each once."""
        both = [*(self.scores.failed if self.scores else ()), *(self.sets.failed if self.sets else ())]
        return list({name: (name, reason) for name, reason in reversed(both)}.values())[::-1]

    @property
    def notes(self) -> list[tuple[str, str]]:
        """(file, what had to be converted before it was scored), each once."""
        both = [*(self.scores.notes if self.scores else ()), *(self.sets.notes if self.sets else ())]
        return [*dict.fromkeys(both)]

    def as_dict(self) -> dict[str, object]:
        """For JSON: as `Scores.as_dict`, with the scores of the set in `sets`."""
        failed = [{"file": name, "reason": reason} for name, reason in self.failed]
        found: dict[str, object] = {}
        if self.sets:
            found = {"found": self.sets.found, "scored": self.sets.count, "sets": self.sets.as_dict()}
        left_out = {folder: dict(endings) for folder, endings in self.passed_over.items()}
        remarks = {"failed": failed, "notes": [[*note] for note in self.notes], "passed_over": left_out}
        return {**found, **(self.scores.as_dict() if self.scores else {}), **remarks}


@own_modes()
def evaluate(
    results: str | Path,
    *,
    truth: str | Path | None = None,
    reference: str | Path | None = None,
    metrics: Sequence[str] = (),
    csv: str | Path | None = None,
    stems: Collection[str] | None = None,
    shard: Shard = WHOLE,
    device: Device = "auto",
    progress: Progress = silent,
) -> Evaluation:
    """Score a folder of results with the given metrics, which are names in NAMES.

    By default these are PSNR, SSIM and, for square pictures, the identity distance if there is a `truth`, and FID if
    there is a `reference`; with neither, NIQE. Metrics in ALONE need neither. The reference of FID and KID is a folder
    of pictures, or the name of published statistics; by default it is the truth. `csv` is a file for the scores of each
    picture. Metrics of single pictures score those with one of the `stems`, see `score_folder`, or of a `shard` only
    its own. All networks are loaded before anything is computed. Raises BadInput for a metric that is unknown or has
    nothing to compare with, for a `csv` that would be empty, and as `score_folder`, `embed_folder` and `compare_sets`
    do; OutputConflict if `csv` exists; UnknownModel, with the command that downloads them, for missing weights.
    """
    results, truth, device = Path(results), Path(truth) if truth else None, choose_device(device)
    metrics, stems = _several(metrics), None if stems is None else _several(stems)
    chosen = _chosen(metrics, truth, reference)
    if csv:
        _check_csv(Path(csv), chosen)
    each = _ready([name for name in chosen if name not in SET_METRICS], device)
    sets = [name for name in chosen if name in SET_METRICS]
    if sets and not shard.is_whole:
        raise BadInput(f"{sets[0]} scores a whole set: leave out `shard`, or choose other `metrics`.")
    against = _reference(sets, str(reference or truth), device, progress) if sets else None
    scores = None
    if each:
        track = partial(_tracked, progress=progress)
        scores = with_published_mean(score_folder(results, truth, metrics=each, stems=stems, track=track, shard=shard))
    folders = [place for place in (results, truth, Path(reference) if reference else None) if place and place.is_dir()]
    left_out = {str(place): find_pictures(place).passed_over for place in folders}
    left_out = {place: endings for place, endings in left_out.items() if endings}
    found = Evaluation(scores, compare_sets(sets, *against(results)) if against else None, left_out)
    if csv and scores:
        scores.write_csv(Path(csv))
    return found


def _several(names: Collection[str]) -> tuple[str, ...]:
    """The names, of which a text alone is one: its letters are none."""
    return (names,) if isinstance(names, str) else tuple(names)


def load_metrics(names: Sequence[str], *, truth: Path | None, device: Device = "cpu") -> dict[str, Score]:
    """The named metrics, loaded for `score_folder`; those of sets are refused. Raises what `evaluate` raises."""
    for name in names:
        if name in SET_METRICS:
            raise BadInput(f"{name} scores a set, not single pictures; leave it out, and use `unfade evaluate` for it.")
    return _ready(_chosen(names, truth, None) if names else [], device)


def _ready(names: Sequence[str], device: Device) -> dict[str, Score]:
    return {name: METRICS[name] if name in METRICS else LOADED[name](device) for name in names}


def with_published_mean(scores: Scores) -> Scores:
    """The scores, with `deg_published` added to `deg` if that was computed."""
    if "deg" not in scores.summary:
        return scores
    kept = published_angles([values["deg"] for values in scores.files.values()])
    published = mean_with_interval(kept, np.random.default_rng(0))
    return replace(scores, summary={**scores.summary, "deg_published": published})


def _chosen(names: Sequence[str], truth: Path | None, reference: str | Path | None) -> list[str]:
    for name in names:
        if name not in NAMES:
            raise BadInput(f"There is no metric {name}; there are: {', '.join(NAMES)}.")
    for name in names:
        if not truth and name not in (*SET_METRICS, *ALONE):
            raise BadInput(f"{name} compares each result with its truth: give `truth`, or leave {name} out.")
    if not truth and not reference and not set(names) <= set(ALONE):
        raise BadInput(
            "There is nothing to score against: give `truth`, `reference`, or both; "
            f"only {', '.join(ALONE)} need neither."
        )
    usual = [*(_usual(truth) if truth else ()), *(("fid",) if reference else ())]
    return list(dict.fromkeys(names)) or usual or ["niqe"]


def _check_csv(path: Path, names: Sequence[str]) -> None:
    """Raises, before the long work of scoring, if the file would be empty or exists."""
    if set(names) <= set(SET_METRICS):
        raise BadInput(
            "`csv` is for the scores of single pictures, but there are none: add `truth` or metrics of pictures, or "
            "leave `csv` out."
        )
    refuse_existing(path)


def _usual(truth: Path) -> list[str]:
    """The default metrics; the identity distance is one of them if the first picture is square, like aligned faces."""
    for path in list_images(truth):
        with suppress(UnreadableImage):
            height, width = read_image(path).shape[-2:]
            return [*METRICS, *(["identity_distance"] if height == width else [])]
    return list(METRICS)


def _reference(
    names: Sequence[str], spec: str, device: Device, progress: Progress
) -> Callable[[Path], tuple[PictureSet, PictureSet]]:
    """Load the weights at once; the returned function reads the pictures of the results and of the reference."""
    is_folder = Path(spec).is_dir()
    if "kid" in names and not is_folder:
        raise BadInput(
            f"kid needs the pictures of the reference, but {spec} is not a folder; give one, or leave kid out."
        )
    known = None if is_folder else published_statistics(spec)
    embedded = partial(embed_folder, embed=load_embed(device=device), progress=progress)
    return lambda results: (embedded(results), known or embedded(Path(spec)))


def _tracked(items: Sequence[Item], progress: Progress) -> Iterable[Item]:
    with progress("scores", len(items)) as advance:
        for item in items:
            yield item
            advance(1)
