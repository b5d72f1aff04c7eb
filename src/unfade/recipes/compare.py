"""Run several methods on the same faces: a table, a contact sheet and a report."""

import mmap
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch

from unfade.atomic import atomic_write
from unfade.devices import Device, choose_device
from unfade.diffusion.load import loaded_prior
from unfade.diffusion.prior import DiffusionPrior
from unfade.errors import BadInput
from unfade.evaluation.evaluate import load_metrics, with_published_mean
from unfade.evaluation.pairs import METRICS, Score, Scores, built_in_distances, pair_by_stem, score_folder
from unfade.images.files import read_image, write_png
from unfade.images.finding import real_path
from unfade.images.pairing import by_stem, check_side
from unfade.images.sheet import sheet
from unfade.jobs.journal import Counts, Entry
from unfade.jobs.outputs import OwnFiles, withdraw_others
from unfade.jobs.runs import Run, open_run
from unfade.progress import Progress, silent
from unfade.recipes.adapt_settings import prior_for, weights_key
from unfade.report.document import Face, Report, render
from unfade.report.listings import undone
from unfade.report.pictures import picture_of, side_for
from unfade.restorers.base import Restorer
from unfade.restorers.load import loaded_restorer
from unfade.shown import first_few, json_text
from unfade.stages.crop import as_they_are, take_aligned
from unfade.stages.methods import METHODS, MethodSettings, Own, run_method
from unfade.stages.restore import restore_faces
from unfade.store.seeds import fingerprint, seed_for
from unfade.zoo.load import Loaded, load_network

SHOWN = 8  # faces on the sheet, drawn at random with a fixed seed
ON_PAGE = 60  # faces in the report, at most
FIRST = "restorer"  # the method that is just the given restorer


@dataclass(frozen=True)
class CompareSettings:
    """Which methods are compared, and with which models."""

    methods: tuple[str, ...] = (FIRST, "ours", "difface", "dr2")  # names in METHODS, or restorers
    restorer: str = "small-restorer"  # used by all methods that need a restorer
    prior: str | None = None  # of all diffusion methods without their own; None: the built-in one of its size
    run: MethodSettings = MethodSettings()

    def __post_init__(self) -> None:
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise BadInput(f"Name one or more methods, each once: {FIRST}, {', '.join(METHODS)}, or a restorer.")


@dataclass(frozen=True)
class Cost:
    """The cost of a method in this call; None if nothing was left to do, or its results were made elsewhere."""

    seconds: float | None = None  # per face
    memory_mb: float | None = None  # peak of the process (CPU) or of the device while it ran


@dataclass(frozen=True)
class Comparison:
    """The outcome of a comparison."""

    entries: Mapping[str, Sequence[Entry]]  # method -> an entry for each face
    scores: Mapping[str, Scores]  # method -> scores, where there is a truth or a metric that needs none
    costs: Mapping[str, Cost]
    report: Path
    sheet: Path
    left_out: Sequence[Entry] = ()  # faces that no method could be given

    @property
    def counts(self) -> Counts:
        """The counts of all results of all methods together, and of the faces that were left out."""
        return Counts.of([*self.left_out, *(entry for entries in self.entries.values() for entry in entries)])

    def rows(self) -> list[dict[str, object]]:
        """The table, one row per method."""
        return [
            {
                "method": name,
                **{metric: mean.mean for metric, mean in getattr(self.scores.get(name), "summary", {}).items()},
                "s per face": self.costs[name].seconds,
                "peak MB": self.costs[name].memory_mb,
            }
            for name in self.costs
        ]


def compare(
    faces: Path,
    out: Path,
    settings: CompareSettings = CompareSettings(),
    *,
    truth: Path | None = None,
    results: Mapping[str, Path] | None = None,
    metrics: Sequence[str] = (),
    device: Device = "auto",
    progress: Progress = silent,
) -> Comparison:
    """Run every method on a folder of aligned faces, score the results and write a report; resumable.

    With a `truth`, PSNR, SSIM, feature distance and identity distance are computed; `metrics`, by their names in
    `evaluation.evaluate`, add columns, some of which need no truth. `results` are folders of results made elsewhere,
    by name. All pictures are compared at the restorer's size. Raises BadInput for an unknown method or metric, if the
    truth of a face is missing or has another size, and for results that do not pair with the faces; UnknownModel, with
    the command that downloads them, for missing weights.
    """
    results, device = results or {}, choose_device(device)
    if both := sorted({*results} & {*settings.methods}):
        raise BadInput(f"{both[0]} names a method and a folder of results; name one of them otherwise.")
    named = load_metrics(metrics, truth=truth, device=device)
    found = [*by_stem(faces).values()]  # all that follows is paired by stem
    for place in results.values():
        by_stem(place)
    first = loaded_restorer(settings.restorer, device=device)
    model = loaded_prior(settings.prior or prior_for(first.network.size), device=device)
    others = {name: loaded_restorer(name, device=device) for name in _restorers(settings)}
    guides = {
        name: load_network(METHODS[name].own, "guide", device=device) for name in settings.methods if _has_own(name)
    }
    restorer, prior, key = first.network, model.network, weights_key(first, model)
    identity = {"compare": {**asdict(settings), "methods": None}, **key}
    about = {"faces": str(faces), "methods": settings.methods}
    own = [out / name for name in ("report.html", "table.json", "sheet.png")]
    folders = [out / name for name in ("faces", "truth", "results")]
    with open_run(out, identity, about=about, inputs=[faces], files=own, folders=folders, progress=progress) as run:
        taken = take_aligned(found, run.within("faces"), size=restorer.size)
        inputs = [out / "faces" / entry.output for entry in taken if entry.status == "done"]
        left_out = [entry for entry in taken if entry.status != "done"]
        withdraw_others(OwnFiles("faces", run.within("faces")), [path.name for path in found])
        if not inputs:
            raise BadInput(f"None of the {len(found)} faces in {faces} could be used; the first: {taken[0].reason}")
        truths = _truths(truth, inputs, [*results.values()], run, restorer.size) if truth else None
        entries: dict[str, Sequence[Entry]] = {}
        costs: dict[str, Cost] = {}
        made = {name: run.within("results", folder_of(name)) for name in settings.methods}
        for name, of_method in made.items():
            withdraw_others(OwnFiles(name, of_method), [path.name for path in inputs])  # whole folders are scored
            method = _Method(name, others.get(name, first), prior, guides.get(name), settings.run, fingerprint(key))
            work, before = partial(method.results, inputs, of_method), run.journal.stage(name)
            entries[name], costs[name] = _measured(work, before, device)
        places = {**{name: of_method.folder for name, of_method in made.items()}, **results}
        costs |= {name: Cost() for name in results}
        chosen = {**METRICS, **built_in_distances(prior), **named} if truth else named
        scores = _scored(places, truths, chosen, _shared(inputs, entries))
        done = Comparison(entries, scores, costs, out / "report.html", out / "sheet.png", left_out)
        _show(done, places, inputs, truth, taken, settings)
    return done


def folder_of(method: str) -> str:
    """The name of the folder of a method's results; that of a restorer given by its path must not be the path."""
    is_name = Path(method).name == method and method != ".."
    return method if is_name else f"{real_path(Path(method)).name}-{fingerprint(method)[:8]}"


def _restorers(settings: CompareSettings) -> list[str]:
    return [name for name in settings.methods if name != FIRST and name not in METHODS]


def _has_own(name: str) -> bool:
    return name in METHODS and bool(METHODS[name].own)


def load_own(name: str, *, device: str = "cpu") -> Own:
    """The network that a method was published with. Raises UnknownModel, with the way to get it, if it is missing."""
    network: Own = load_network(name, "guide", device=device).network
    return network


@dataclass(frozen=True)
class _Method:
    """One of the methods that are compared, with its models."""

    name: str
    restorer: Loaded[Restorer]
    prior: DiffusionPrior
    own: Loaded[Own] | None  # the network that it was published with
    settings: MethodSettings
    key: str  # of the restorer and the prior

    def results(self, faces: list[Path], run: Run) -> list[Entry]:
        """Write the results of the method to the folder of the run; one entry for each face."""
        network = self.restorer.network
        if self.name not in METHODS:
            return restore_faces(faces, run, network, key=self.restorer.sha256, stage=self.name)
        own, key = (self.own.network, self.key + self.own.sha256) if self.own else (None, self.key)
        return run_method(self.name, faces, run, network, self.prior, own=own, settings=self.settings, key=key)


def _shared(inputs: Sequence[Path], entries: Mapping[str, Sequence[Entry]]) -> list[str]:
    """The stems of the faces on which no method failed."""
    failed = {entry.item for made in entries.values() for entry in made if entry.status != "done"}
    return [path.stem for path in inputs if path.name not in failed]


def _measured(run: Callable[[], list[Entry]], before: Sequence[Entry], device: str) -> tuple[list[Entry], Cost]:
    """The entries of a method, and what those cost that were not done `before`."""
    with peak_memory(device) as peak:
        begin = time.perf_counter()
        entries = run()
        seconds = time.perf_counter() - begin
    made = sum(entry.status == "done" for entry in {*entries} - {*before})
    return entries, Cost(seconds / made, peak[0]) if made else Cost()


@contextmanager
def peak_memory(device: str) -> Iterator[list[float | None]]:
    """Yields a list whose only item is, after the block, the peak memory in MB; None if it is not known."""
    peak: list[float | None] = [None]
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        yield peak
        peak[0] = torch.cuda.max_memory_allocated(device) / 2**20
        return
    stop = threading.Event()
    watcher = threading.Thread(target=_watch, args=(stop, peak), daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        stop.set()
        watcher.join()


def _watch(stop: threading.Event, peak: list[float | None]) -> None:
    """Record the peak resident memory. Reads a file that only Linux has; elsewhere the peak stays None."""
    status = Path("/proc/self/statm")  # in pages
    while status.exists():
        resident = int(status.read_text().split()[1]) * mmap.PAGESIZE / 2**20
        peak[0] = max(peak[0] or 0.0, resident)
        if stop.wait(0.05):
            return


def _scored(
    places: Mapping[str, Path], truths: Path | None, metrics: Mapping[str, Score], stems: Sequence[str]
) -> dict[str, Scores]:
    """The scores of each folder, of the faces with these stems; empty without any, or without metrics."""
    if not metrics or not stems:
        return {}
    scores = {name: score_folder(place, truths, metrics=metrics, stems=stems) for name, place in places.items()}
    return {name: with_published_mean(found) for name, found in scores.items()}


def _truths(truth: Path, inputs: list[Path], results: Sequence[Path], run: Run, side: int) -> Path:
    """Copy the truths of these faces, and no others, to a folder of their own.

    Raises BadInput if one is missing, cannot be read, or is not `side` px wide and high, and for folders of results
    that do not pair with them.
    """
    known = by_stem(truth)
    missing = [path.name for path in inputs if path.stem not in known]
    if missing:
        raise BadInput(f"{len(missing)} faces have no truth in {truth}: {first_few(missing)}; add them.")
    paths, copies = [known[path.stem] for path in inputs], run.within("truth")
    withdraw_others(OwnFiles("truth", copies), [path.name for path in paths])
    check_side(paths, side)
    for entry in as_they_are(paths, copies, stage="truth"):
        if entry.status != "done":
            raise BadInput(f"A truth could not be used: {entry.reason}")
    for place in results:
        check_side([result for result, _ in pair_by_stem(place, copies.folder)], side)
    return copies.folder


def _show(
    done: Comparison,
    places: Mapping[str, Path],
    inputs: list[Path],
    truth: Path | None,
    taken: list[Entry],
    settings: CompareSettings,
) -> None:
    columns = {"face": inputs[0].parent, **places} | ({"truth": done.report.parent / "truth"} if truth else {})
    shown = {title: _by_stem_if_any(folder) for title, folder in columns.items()}
    names = [path.name for path in inputs if all(path.stem in files for files in shown.values())]
    drawn = sorted(sorted(names, key=lambda name: seed_for("shown", name))[:SHOWN])
    if drawn:
        pictures = {title: [read_image(files[Path(n).stem]) for n in drawn] for title, files in shown.items()}
        write_png(done.sheet, sheet([*pictures.items()]))
    failed = [listing for name, entries in done.entries.items() for listing in undone(entries, f": {name}")]
    counts = Counts.of(taken)
    page = Report(
        title="unfade: methods compared",
        summary=f"{counts.done} faces through {len(places)} methods, all at the restorer's size.",
        counts=counts.as_dict(),
        scores=done.rows(),
        curves=[],
        settings=asdict(settings),
        faces=[_face(name, shown, done.report.parent) for name in names[:ON_PAGE]],
        lists=[*undone(taken), *failed],
        files={"the table": "table.json", "the sheet": "sheet.png", "the journal": "journal.jsonl"},
    )
    atomic_write(done.report, render(page))
    atomic_write(done.report.with_name("table.json"), json_text(done.rows(), indent=1) + "\n")


def _by_stem_if_any(folder: Path) -> dict[str, Path]:
    """The pictures of a folder by stem; none if it is empty or missing, as when a method has failed on every face."""
    return by_stem(folder) if folder.is_dir() and any(folder.iterdir()) else {}


def _face(name: str, shown: Mapping[str, Mapping[str, Path]], folder: Path) -> Face:
    side = side_for(ON_PAGE * len(shown))
    return Face(name, {title: picture_of(files[Path(name).stem], folder, side) for title, files in shown.items()})
