"""A rehearsal: degrade clean faces like a given camera, and measure what adapting to it gains.

The restorer is adapted to a part of the faces, without using their truth. The pre-trained and the adapted restorer are
then scored on the other faces, next to a supervised one that was fine-tuned on the truth, the most that fine-tuning can
give. The share of that gap that adaptation closes, (adapted - pre-trained) / (supervised - pre-trained), has no unit
and can be compared between cameras, metrics and papers.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from unfade.atomic import atomic_write
from unfade.devices import Device, choose_device
from unfade.diffusion.load import loaded_prior
from unfade.diffusion.prior import DiffusionPrior
from unfade.errors import BadInput, refuse_below
from unfade.evaluation.gap import Estimate, Row, Space, estimates, features_of, gains, shares
from unfade.evaluation.pairs import METRICS, built_in_distances, score_folder
from unfade.images.pairing import without_namesakes
from unfade.jobs.journal import Entry
from unfade.jobs.runs import Run, open_run
from unfade.progress import Progress, silent
from unfade.recipes.adapt import Adapted, adapt, attempts_by, checked
from unfade.recipes.adapt_settings import SMALL_ADAPT, AdaptSettings, weights_key
from unfade.recipes.photo_report import shown_faces
from unfade.recipes.tuning import finetune_to_file
from unfade.report.document import Report, render
from unfade.report.listings import Line, Listing
from unfade.restorers.load import head_of, loaded_restorer
from unfade.shown import finite
from unfade.stages.crop import take_aligned
from unfade.stages.degrade import Degradation, FittedKind, degrade_faces
from unfade.stages.finetune import Pair
from unfade.stages.restore import restore_faces
from unfade.stages.targets import TargetSettings, make_targets
from unfade.store.checkpoints import card_path
from unfade.store.seeds import fingerprint, seed_for
from unfade.training.batches import find_training_pictures
from unfade.zoo.load import Loaded

ROWS = ("pre-trained", "targets", "adapted", "supervised")  # the columns of pictures and the rows of scores
SUPERVISED = "supervised.safetensors"  # in a rehearsal's folder: the restorer that was fine-tuned on the truth
SHOWN = 24  # held-out faces in the report
ENOUGH = 10  # with fewer faces than this to adapt to, or to score, the shares are unreliable


@dataclass(frozen=True)
class RehearseSettings:
    """The settings of a rehearsal."""

    adapt: AdaptSettings = SMALL_ADAPT
    learn: float = 0.7  # share of the faces to adapt to; the others are scored
    most: int = 0  # largest number of faces to adapt to; 0: the whole share
    seed: int = 0  # of the split and of the degradation

    def __post_init__(self) -> None:
        if not 0 < self.learn < 1:
            raise BadInput(f"The share of faces to adapt to must lie between 0 and 1, got {self.learn}.")
        refuse_below(0, self, "most", "seed")


@dataclass(frozen=True)
class Rehearsal:
    """The outcome of a rehearsal."""

    scores: Mapping[str, Mapping[str, Estimate]]  # row of ROWS -> metric -> score
    gain: Mapping[str, Estimate]  # adapted - pre-trained, by metric
    share: Mapping[str, Estimate]  # of the gap that adaptation closes, by metric; 1 is all of it
    learned: int  # number of faces adapted to
    held_out: int  # number of faces scored
    failures: Sequence[tuple[str, str]]  # (file, reason)
    report: Path

    @property
    def warnings(self) -> list[str]:
        """Reasons why the shares are unreliable, one sentence each."""
        if min(self.learned, self.held_out) >= ENOUGH:
            return []
        few = f"{self.learned} faces to adapt to and {self.held_out} to score are few"
        return [f"{few}: with fewer than {ENOUGH} of each, other faces may give very different shares."]

    def as_dict(self) -> dict[str, object]:
        """For JSON; a share is None if there is no gap to close."""
        found: dict[str, object] = finite(asdict(self))
        return {**found, "warnings": self.warnings, "report": str(self.report)}


def rehearse(
    faces: Path,
    out: Path,
    degradation: Degradation,
    settings: RehearseSettings = RehearseSettings(),
    *,
    more: Path | None = None,
    spaces: Mapping[str, Space] | None = None,
    supervised: Path | None = None,
    device: Device = "auto",
    progress: Progress = silent,
) -> Rehearsal:
    """Degrade clean, aligned faces, adapt to some of them, score on the others and write a report; resumable.

    `more` is a folder of further clean faces to adapt to, after those of `faces`; they are never scored. `spaces` are
    feature spaces in which Fréchet distances to the truth are computed too; they should not be those of the loss.
    `supervised` is the folder of another rehearsal whose supervised restorer is reused if it was made in the same way.
    Raises BadInput for too few faces or a degradation of another size, OutputConflict if `out` holds another rehearsal.
    """
    device = choose_device(device)
    found, others, failures = _found(faces, more)
    restorer = loaded_restorer(settings.adapt.restorer, fidelity=settings.adapt.fidelity, device="cpu")
    _check_size(degradation, restorer.network.size)
    prior = loaded_prior(settings.adapt.prior, device=device)
    checked(settings.adapt, restorer.network, prior.network, [])
    key = weights_key(restorer, prior)
    identity = {**asdict(settings), "adapt": settings.adapt.identity(), "degradation": repr(degradation)}
    about, upper = {"faces": str(faces), "more": str(more)}, out / SUPERVISED
    own = [out / "report.html", upper, card_path(upper)]
    folders, parts = [out / name for name in ("truth", "photos", "results")], split(found, settings, others)
    identity["faces"] = fingerprint({part: [path.name for path in paths] for part, paths in parts.items()})
    made_of = {"rehearse": identity, **key}
    with open_run(out, made_of, about=about, inputs=[faces], files=own, folders=folders, progress=progress) as run:
        size = head_of(settings.adapt.restorer).size
        failures += prepare(run, parts, degradation, size=size, seed=settings.seed)
        learn = out / "photos" / "learn"
        adapted = adapt(learn, out / "adapted", settings.adapt, aligned=True, device=device, progress=progress)
        if supervised is not None:
            _borrow_upper_bound(out, supervised)
        _supervise(out, settings.adapt, prior, device, progress)
        restorers: dict[str, str | Path] = {
            "pre-trained": settings.adapt.restorer,
            "adapted": adapted.restorer,
            "supervised": upper,
        }
        names, failed = _results(run, restorers, settings.adapt, prior, device)
        rows = _rows(out, names, prior.network, spaces or {})
        scores = {name: estimates(rows[name], rows["truth"], seed=settings.seed) for name in ROWS}
        failures += adapted.failures + failed
        result = Rehearsal(
            scores,
            gains(rows, seed=settings.seed),
            shares(rows, seed=settings.seed),
            adapted.counts.done,
            rows["truth"].count,
            failures,
            own[0],
        )
        atomic_write(result.report, render(_report(result, adapted, settings, repr(degradation))))
    return result


def _found(faces: Path, more: Path | None) -> tuple[list[Path], list[Path], list[tuple[str, str]]]:
    """The pictures of both folders, and those that have the name of another, with reasons."""
    found, twice = without_namesakes(find_training_pictures(faces, {})[0])
    others, again = without_namesakes(find_training_pictures(more, {})[0] if more else [], found)
    return found, others, twice + again


def _check_size(degradation: Degradation, size: int) -> None:
    """Raises BadInput for a fitted degradation of faces of another size than the restorer's."""
    if isinstance(degradation, FittedKind):
        degradation.check_size(size, size)


def split(faces: Sequence[Path], settings: RehearseSettings, more: Sequence[Path] = ()) -> dict[str, list[Path]]:
    """Faces to learn from and faces to score, in an order that depends only on their names and the seed.

    With a smaller `most`, the faces to learn from are therefore a subset of those with a larger one, and the scored
    faces are the same. Raises BadInput if either part would be empty.
    """
    order, others = (
        sorted(part, key=lambda path: (seed_for("rehearse", settings.seed, path.stem), path.name))
        for part in (faces, more)
    )
    cut = round(len(order) * settings.learn)
    if not 0 < cut < len(order):
        raise BadInput(f"{len(order)} faces are too few to adapt to {settings.learn:.0%} of them and score the others.")
    learn = [*order[:cut], *others]
    return {"learn": learn[: settings.most or len(learn)], "score": order[cut:]}


def prepare(
    run: Run, parts: Mapping[str, list[Path]], degradation: Degradation, *, size: int, seed: int
) -> list[tuple[str, str]]:
    """Resize the truths to `truth/PART` of a run, degrade them to `photos/PART`, and return failures with reasons.

    Raises BadInput if no face of a part can be used.
    """
    failures = []
    for part, paths in parts.items():
        resized = run.within("truth", part)
        truth = take_aligned(paths, resized, size=size)
        failures += [(entry.item, entry.reason) for entry in truth if entry.status != "done"]
        kept = [resized.folder / entry.output for entry in truth if entry.status == "done"]
        if not kept:
            raise BadInput(f"None of the {len(paths)} faces to {part} could be used; the first: {truth[0].reason}")
        made = degrade_faces(kept, run.within("photos", part), degradation, seed=seed)
        failures += [(entry.item, entry.reason) for entry in made if entry.status != "done"]
    return failures


def on_truth(settings: AdaptSettings) -> AdaptSettings:
    """The settings for fine-tuning on the truth instead of targets: like one round of `adapt`, but without targets."""
    true_pairs = replace(settings.finetune, redegraded=0.0)
    return replace(settings, targets=TargetSettings(), finetune=true_pairs, agreement=0.0, rounds=1)


def _supervise(
    out: Path, settings: AdaptSettings, prior: Loaded[DiffusionPrior], device: str, progress: Progress
) -> None:
    settings = on_truth(settings)
    restorer = loaded_restorer(settings.restorer, fidelity=settings.fidelity, device=device)
    photos = sorted((out / "photos" / "learn").glob("*.png"))
    pairs = [Pair(photo, out / "truth" / "learn" / photo.name) for photo in photos]
    finetune_to_file(
        restorer, prior, pairs, out / SUPERVISED, settings, clean=[], replace_older=True, progress=progress
    )


def _borrow_upper_bound(folder: Path, other: Path) -> None:
    """Copy the supervised restorer of another rehearsal, if it has one and this folder does not.

    It does not depend on the settings of targets. If it was made in another way, its card says so, and it is replaced.
    """
    if not (folder / SUPERVISED).exists() and (other / SUPERVISED).exists():
        for file in (other / SUPERVISED, card_path(other / SUPERVISED)):
            shutil.copy(file, folder)


def _results(
    run: Run, restorers: Mapping[str, str | Path], settings: AdaptSettings, prior: Loaded[DiffusionPrior], device: str
) -> tuple[list[str], list[tuple[str, str]]]:
    """Restore the held-out photos with every restorer, and make their pseudo targets.

    Returns the names of the photos that succeeded in all rows, and the failures with reasons. Raises BadInput if no
    photo did.
    """
    out, results = run.folder, run.within("results")
    photos = sorted((out / "photos" / "score").glob("*.png"))
    entries: list[Entry] = []
    for name, spec in restorers.items():
        restorer = loaded_restorer(spec, fidelity=settings.fidelity, device=device)
        entries += restore_faces(photos, results.within(name), restorer.network, key=restorer.sha256, stage=name)
    first = loaded_restorer(attempts_by(out / "adapted", settings), fidelity=settings.fidelity, device=device)
    key, targets = fingerprint(weights_key(first, prior)), results.within("targets")
    entries += make_targets(photos, targets, first.network, prior.network, settings=settings.targets, key=key)
    failures = [(entry.item, f"{entry.stage}: {entry.reason}") for entry in entries if entry.status != "done"]
    names = sorted({photo.name for photo in photos} - {name for name, _ in failures})
    if not names:
        raise BadInput(f"None of the {len(photos)} held-out faces could be scored; the first: {failures[0][1]}")
    return names, failures


def _rows(out: Path, names: Sequence[str], prior: DiffusionPrior, spaces: Mapping[str, Space]) -> dict[str, Row]:
    """Scores and features of the named held-out faces, in the same order in all rows; the truth has features only."""
    metrics = {**METRICS, **built_in_distances(prior)}
    stems = [Path(name).stem for name in names]
    truth, rows = out / "truth" / "score", {}
    for name in ROWS:
        found = score_folder(out / "results" / name, truth, metrics=metrics, stems=stems)
        rows[name] = Row(found.files, features_of(out / "results" / name, sorted(found.files), spaces))
    return {**rows, "truth": Row({name: {} for name in names}, features_of(truth, names, spaces))}


def _report(result: Rehearsal, run: Adapted, settings: RehearseSettings, degradation: str) -> Report:
    out, metrics = result.report.parent, list(result.share)
    scores = [{"held-out faces": row, **_values(result.scores[row], metrics)} for row in ROWS]
    scores.append({"held-out faces": "gain by adapting", **_values(result.gain, metrics)})
    scores.append({"held-out faces": "share of the gap", **_values(result.share, metrics)})
    photos = sorted(path.name for path in (out / "photos" / "score").glob("*.png"))
    names = [name for name in photos if all(path.exists() for path in _files(out, name).values())]
    drawn = sorted(names, key=lambda name: seed_for("shown", name))[:SHOWN]  # at random, not picked
    return Report(
        title="unfade: rehearsal",
        summary=(
            f"Adapted to {result.learned} photos without their truth and scored on {result.held_out} others. The "
            "supervised restorer is fine-tuned on the truth; the share of the gap is (adapted - pre-trained) / "
            "(supervised - pre-trained)."
        ),
        counts=run.counts.as_dict(),
        scores=scores,
        curves=run.page.curves,
        settings={**asdict(settings), "degradation": degradation},
        faces=shown_faces({name: _files(out, name) for name in sorted(drawn)}, out),
        lists=[Listing("Not done", [Line(*failure) for failure in result.failures])] if result.failures else [],
        warnings=result.warnings,
    )


def _values(values: Mapping[str, Estimate], metrics: Sequence[str]) -> dict[str, float | str]:
    return {name: values[name].value if name in values else "" for name in metrics}


def _files(out: Path, name: str) -> dict[str, Path]:
    return {
        "input": out / "photos" / "score" / name,
        **{row: out / "results" / row / name for row in ROWS},
        "truth": out / "truth" / "score" / name,
    }
