"""The main workflow: photos -> faces -> pseudo targets -> adapted restorer -> restored photos -> report."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from unfade.atomic import atomic_write
from unfade.declared import as_declared
from unfade.degradations.fitted_file import DEGRADATION
from unfade.devices import Device, choose_device
from unfade.diffusion.load import loaded_prior
from unfade.diffusion.prior import DiffusionPrior
from unfade.errors import BadInput
from unfade.evaluation.pairs import built_in_distances
from unfade.faces.identity import Likeness
from unfade.images.finding import list_images
from unfade.images.pairing import by_stem, check_side
from unfade.jobs.journal import Counts, Entry, notes_of
from unfade.jobs.runs import Run, of_gone, open_run
from unfade.own_modes import own_modes
from unfade.progress import Progress, silent
from unfade.recipes.adapt_report import RESTORED, Ran, report_of
from unfade.recipes.adapt_settings import BEGUN_WITH, AdaptSettings, settings_for, settled, weights_key
from unfade.recipes.photo_report import photo_views
from unfade.recipes.restore import EVERY_FACE, PLAIN
from unfade.recipes.sources import (
    AlignedFaces,
    FindSettings,
    Source,
    WholePhotos,
    likeness_for,
    masking_for,
    only_faces,
)
from unfade.recipes.suiting import Settings, suited
from unfade.recipes.tuning import check_perceptual, finetune_to_file, warnings_of
from unfade.report.document import Report, render
from unfade.restorers.base import Restorer
from unfade.restorers.families import picture_losses
from unfade.restorers.load import loaded_restorer
from unfade.stages.agreement import agreeing
from unfade.stages.finetune import Pair
from unfade.stages.restore import restore_faces
from unfade.stages.restore_photos import STAGE as RESTORED_PHOTOS
from unfade.stages.restore_photos import PhotoSettings
from unfade.stages.targets import STAGE, make_targets
from unfade.store.checkpoints import card_path
from unfade.store.seeds import fingerprint
from unfade.training.loop import History
from unfade.zoo.load import Loaded

FIRST = "pretrained"  # stage and folder of the faces as they are restored before the adaptation
WEIGHTS = "restorer.safetensors"  # of a run, and of each of its rounds


@dataclass(frozen=True)
class Adapted:
    """The outcome of an adaptation."""

    restorer: Path
    begun_with: str  # the restorer that was adapted
    report: Path
    counts: Counts  # of the photos
    failures: list[tuple[str, str]]  # (file name, reason), of any stage
    notes: list[tuple[str, str]]  # (file name, what was noted about its result)
    seconds: dict[str, float]  # spent on each stage in this call
    history: History
    page: Report  # the content of the report
    passed_over: tuple[tuple[str, int], ...] = ()  # endings of files that are not read, and WRITTEN, counted
    of_gone: tuple[str, ...] = ()  # results of earlier runs, in `restored`, whose photos were not given this time
    degradation: Path | None = None  # that of the photos, for `load_degradation`; None: there was none to be fitted
    warnings: tuple[str, ...] = ()  # what to know about the adapted restorer, one sentence each; in the report too


@own_modes()
def adapt(
    photos: str | Path,
    out: str | Path,
    settings: Settings = settings_for,
    *,
    aligned: bool = False,
    find: FindSettings = EVERY_FACE,
    whole: PhotoSettings = PLAIN,
    real: str | Path | None = None,
    truth: str | Path | None = None,
    embedder: str | Path | None = None,
    mask: str | Path | None = None,
    device: Device = "auto",
    progress: Progress = silent,
) -> Adapted:
    """Adapt a restorer to a folder of photos and restore them with it. Run it again to resume an interrupted run.

    Without `settings`, the built-in restorer is chosen by the sizes of the faces (`restorers.by_size.size_for` of their
    median), with its defaults; a function is called with the name of that restorer and returns the settings.
    `find` says which faces of the photos are used and `whole` how results are pasted and written. With `aligned` the
    pictures are square face crops in FFHQ's framing, and neither may be given. `real` is a folder of clean faces, to
    learn from re-degraded and for the discriminator; `truth` is a folder of clean versions of the restorer's size, for
    the scores of the report. `embedder` and `mask` are as in `RestoreSettings`. Raises BadInput if no photo can be
    used, a truth does not fit, or the settings are those of another family of restorers; OutputConflict if `out` holds
    another run.
    """
    photos, out, device = Path(photos), Path(out), choose_device(device)
    find, whole = as_declared(find), as_declared(whole)
    clean, likeness = list_images(Path(real)) if real else [], likeness_for(embedder, device=device)
    source = _source(photos, find, whole, mask, likeness, aligned=aligned, device=device)
    settings = as_declared(suited(settings, source, out, progress))
    begun = loaded_restorer(settings.restorer, fidelity=settings.fidelity, refine=settings.refine, device=device)
    restorer = begun.network
    truths = _truths(Path(truth), photos if aligned else None, restorer.size) if truth else {}
    prior = loaded_prior(settings.prior, device=device)
    settings = checked(settings, restorer, prior.network, clean)
    key = weights_key(begun, prior)
    identity = {"adapt": settings.identity(), **key, **source.identity()}
    clock, own = _Clock(), _own_files(out, settings.rounds)
    about, folders = {"photos": str(photos)}, _folders(out, settings.rounds)
    with open_run(out, identity, about=about, inputs=[photos], files=own, folders=folders, progress=progress) as run:
        with clock.measure("faces"):
            entries, faces = source.take(run, restorer.size)
            _refuse_none(faces, entries, photos)
        with clock.measure("pretrained"):
            first = restore_faces(faces, run.within(FIRST), restorer, key=key[BEGUN_WITH], stage=FIRST)
        learned = _learned(run, faces, _Begun(begun, prior, clean, likeness), settings, clock)
        with clock.measure("restore"):
            adapted = replace(begun, path=out / WEIGHTS)
            shown = _shown(run, faces, adapted, settings.strength)
            results = source.restore(run, entries, adapted, settings.strength)
        with clock.measure("report"):
            views = {} if aligned else photo_views(run, source.found(out), results, out / "restored")
            ran = Ran(results, shown, learned.targets, learned.left_out, learned.history, views, learned.warnings)
            metrics = built_in_distances(prior.network)
            page = report_of(out, ran, asdict(settings), truth=truths, metrics=metrics, likeness=likeness)
            atomic_write(out / "report.html", render(page))
    return _outcome(out, settings.restorer, ran, first, clock, page, source.found(out).passed_over)


def _source(
    photos: Path,
    find: FindSettings,
    whole: PhotoSettings,
    mask: str | Path | None,
    likeness: Likeness | None,
    *,
    aligned: bool,
    device: str,
) -> Source:
    """Whole photos, or aligned faces. Raises BadInput for settings that these cannot have."""
    if not aligned:
        return WholePhotos(photos, find.loaded(device=device), whole, likeness, masking_for(mask, device=device))
    only_faces(find=find != EVERY_FACE, whole=whole != PLAIN, mask=mask is not None)
    return AlignedFaces(photos, likeness)


def checked(settings: AdaptSettings, restorer: Restorer, prior: DiffusionPrior, clean: list[Path]) -> AdaptSettings:
    """The settings, with what depends on the restorer. Raises, before any work, for those that these cannot have."""
    settings = settled(settings, restorer, clean)
    settings.targets.check(prior.size)
    if picture_losses(settings.losses):
        check_perceptual(settings.perceptual)
    return settings


def _shown(run: Run, faces: list[Path], restorer: Loaded[Restorer], strength: float) -> list[Entry]:
    """Restore the faces for the report."""
    results, key = run.within(RESTORED), restorer.sha256
    return restore_faces(faces, results, restorer.network, strength=strength, key=key, stage=RESTORED)


def _refuse_none(faces: list[Path], entries: list[Entry], photos: Path) -> None:
    """Raises BadInput if no photo has given a face."""
    if not faces:
        raise BadInput(f"None of the {len(entries)} photos in {photos} could be used; the first: {entries[0].reason}")


@dataclass(frozen=True)
class _Begun:
    """What an adaptation begins with."""

    restorer: Loaded[Restorer]
    prior: Loaded[DiffusionPrior]
    clean: list[Path]  # faces to learn from re-degraded
    likeness: Likeness | None  # of a target and the first attempt


@dataclass(frozen=True)
class _Learned:
    """The outcome of the last round."""

    history: History
    targets: list[Entry]
    left_out: list[str]  # names of the faces that their targets disagree with
    warnings: list[str]  # about the fine-tuning


def _outcome(
    out: Path,
    begun_with: str,
    ran: Ran,
    first: list[Entry],
    clock: "_Clock",
    page: Report,
    passed_over: tuple[tuple[str, int], ...],
) -> Adapted:
    """What a finished run reports; `first` are the entries of the faces before the adaptation."""
    every = [*ran.photos, *ran.targets, *first, *ran.faces]
    failures = [(entry.item, entry.reason) for entry in every if entry.status != "done"]
    gone = of_gone([replace(entry, stage=RESTORED_PHOTOS) for entry in ran.photos], out, RESTORED_PHOTOS)
    return Adapted(
        out / WEIGHTS,
        begun_with,
        out / "report.html",
        Counts.of(ran.photos),
        failures,
        notes_of(ran.photos),
        clock.seconds,
        ran.history,
        page,
        passed_over,
        tuple(gone),
        out / DEGRADATION if (out / DEGRADATION).exists() else None,
        tuple(ran.warnings),
    )


def _learned(run: Run, faces: list[Path], begun: _Begun, settings: AdaptSettings, clock: "_Clock") -> _Learned:
    """Make targets and fine-tune, for each round; the restorer is changed in place."""
    restorer, prior, key = begun.restorer, begun.prior, weights_key(begun.restorer, begun.prior)
    for folder, stage in _rounds(run.folder, settings.rounds):
        with clock.measure("targets"):
            targets = make_targets(
                faces,
                replace(run, folder=folder / "targets"),
                restorer.network,
                prior.network,
                settings=settings.targets,
                key=fingerprint(key),
                stage=stage,
            )
        with clock.measure("finetune"):
            pairs = _pairs(run.folder, folder, targets)
            agreed = agreeing(pairs, settings.agreement, begun.likeness, run.folder / FIRST)
            history = finetune_to_file(
                restorer,
                prior,
                agreed.kept,
                folder / WEIGHTS,
                settings,
                key=key,
                clean=begun.clean,
                replace_older=True,
                degradation=folder / DEGRADATION,
                progress=run.progress,
            )
        restorer = replace(restorer, path=folder / WEIGHTS)
        key = {**key, BEGUN_WITH: restorer.sha256}
    doubts = warnings_of(history, settings, len(agreed.kept), fitted=(run.folder / DEGRADATION).exists())
    return _Learned(history, targets, [pair.face.name for pair in agreed.left_out], doubts)


def attempts_by(out: Path, settings: AdaptSettings) -> str | Path:
    """The restorer that made the first attempts for the last targets of a run: the one before the last round."""
    return settings.restorer if settings.rounds == 1 else [*_rounds(out, settings.rounds)][-2][0] / WEIGHTS


def _rounds(out: Path, count: int) -> Iterator[tuple[Path, str]]:
    """For each round, the folder of its targets and weights and its stage in the journal; the last one's is `out`."""
    for number in range(1, count):
        yield out / f"round-{number}", f"{STAGE} of round {number}"
    yield out, STAGE


def _own_files(out: Path, rounds: int) -> list[Path]:
    """The files that belong to a run as a whole."""
    places = [folder for folder, _ in _rounds(out, rounds)]
    weights = [folder / WEIGHTS for folder in places]
    return [out / "report.html", *weights, *map(card_path, weights), *(folder / DEGRADATION for folder in places)]


def _folders(out: Path, rounds: int) -> list[Path]:
    """The folders whose files a run takes for its own."""
    targets = [folder / "targets" for folder, _ in _rounds(out, rounds)]
    return [*targets, *(out / name for name in ("faces", FIRST, RESTORED))]


def _pairs(out: Path, folder: Path, targets: list[Entry]) -> list[Pair]:
    """The faces for which a round has made targets, with these."""
    return [Pair(out / "faces" / t.item, folder / "targets" / t.output) for t in targets if t.status == "done"]


def _truths(folder: Path, faces: Path | None, side: int) -> dict[str, Path]:
    """Clean versions by file stem; only those of the given `faces`, where the photos are aligned faces.

    Raises BadInput, before any work begins, if two files on either side share a stem, or a truth is not `side` px.
    """
    truths = by_stem(folder)
    if faces is not None:
        stems = by_stem(faces) if faces.is_dir() else {faces.stem}
        truths = {stem: path for stem, path in truths.items() if stem in stems}
    check_side(truths.values(), side)
    return truths


class _Clock:
    """Measures the seconds spent on each stage, summed over all rounds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.perf_counter() - begin, 2)
