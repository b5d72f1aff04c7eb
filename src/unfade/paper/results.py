"""Reproduce the paper's tables: rows with intervals next to the printed values, and whether its claims are seen."""

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from unfade.atomic import atomic_write
from unfade.devices import Device, choose_device
from unfade.diffusion.load import load_prior
from unfade.errors import BadInput
from unfade.evaluation.evaluate import LOADED
from unfade.evaluation.sets import SET_METRICS, load_embed, published_statistics
from unfade.jobs.runs import open_run
from unfade.paper.costs import measured_costs
from unfade.paper.pieces import Runs, lacking
from unfade.paper.printed import REAL, Printed, cameras_of, printed_tables
from unfade.paper.scores import Values, Verdict, estimates_of, exactly, mean_of_sets, share_of, verdict_on
from unfade.paper.settings import missing, needs
from unfade.paper.tables import COSTS, TABLES, Scale, Share, scale_named, tables_named
from unfade.paper.text import Made, Row, as_json, as_markdown
from unfade.progress import Progress, silent
from unfade.recipes.compare import load_own
from unfade.restorers.load import load_restorer
from unfade.stages.methods import METHODS
from unfade.store.checkpoints import sha256_of
from unfade.store.seeds import fingerprint
from unfade.training.batches import find_training_pictures


@dataclass(frozen=True)
class Asked:
    """What tables should be made from, and where."""

    out: Path
    faces: Path | None = None  # folder of clean, aligned faces
    photos: Path | None = None  # folder of aligned photos without a truth
    scale: str = "builtin"
    most: int = 0  # largest number of photos to adapt to, and of photos to score; 0: all
    device: Device = "auto"


def make_tables(name: str, asked: Asked, *, progress: Progress = silent) -> tuple[list[Made], list[str]]:
    """Reproduce one of the paper's tables, or "all"; resumable. Also returns which tables were left out, and why.

    Each has a folder in `out` with table.md and table.json; what they are made of lies in `out/runs`. Raises BadInput
    for an unknown table or scale and where its photos are not given, and UnknownModel, with the command that downloads
    missing weights, before any work starts.
    """
    names, scale, device = tables_named(name), scale_named(asked.scale), choose_device(asked.device)
    wanting = {each: _wanting(each, scale, asked) for each in names}
    if name != "all" and wanting[name]:
        raise BadInput(wanting[name])
    chosen = [each for each in names if not wanting[each]]
    if not chosen:
        raise BadInput(next(iter(wanting.values())))
    _check(chosen, scale, device)
    faces, real = (find_training_pictures(folder, {})[0] if folder else [] for folder in (asked.faces, asked.photos))
    runs = Runs(asked.out / "runs", scale, faces, real, asked.most, device, progress=progress)
    made = [_make(each, asked, runs) for each in chosen]
    return made, [f"{printed_tables()[each].title}: {why}" for each, why in wanting.items() if why]


def device_name(device: str) -> str:
    """The product name of the GPU or CPU."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _wanting(name: str, scale: Scale, asked: Asked) -> str:
    """Why a table cannot be made; "" if it can."""
    if name == COSTS:
        return ""
    if REAL in printed_tables()[name].sets:
        reason = "is about photos that no command can make: give `photos`, aligned as `unfade data prepare wider` does"
        return "" if asked.photos else f"Table {name} {reason}."
    if asked.faces is None:
        return f"The photos of table {name} are made from clean, aligned faces: give a folder of them as `faces`."
    can = [way for way in TABLES[name].values() if not isinstance(way, Share) and not missing(scale, way)]
    if len({repr(way) for way in can}) < 2:
        return f"Table {name} is about CodeFormer's own losses, which no built-in restorer has: set `scale` to paper."
    return ""


def _check(names: Sequence[str], scale: Scale, device: str) -> None:
    """Raises UnknownModel for the first weights that are missing."""
    guides = {method.own for method in METHODS.values()}
    for name in dict.fromkeys(model for table in names if table != COSTS for model in needs(table, scale)):
        load = load_prior if name == scale.prior else load_own if name in guides else load_restorer
        load(name, device="cpu")
    real = [table for table in names if REAL in printed_tables()[table].sets]
    faces = [table for table in names if table not in (*real, COSTS)]
    _check_metrics(scale.metrics if faces else (), scale.reference, device)
    _check_metrics(scale.real_metrics if real else (), scale.real_reference, device)


def _check_metrics(metrics: Sequence[str], reference: str | None, device: str) -> None:
    for metric in metrics:
        if metric in LOADED:
            LOADED[metric](device)
        elif metric in SET_METRICS:
            load_embed(device=device)
            published_statistics(str(reference))


def _make(name: str, asked: Asked, runs: Runs) -> Made:
    printed, out = printed_tables()[name], asked.out / f"table-{name}"
    files = [out / "table.md", out / "table.json"]
    found = runs.real if REAL in printed.sets else () if name == COSTS else runs.faces
    contents = fingerprint([(path.name, sha256_of(path)) for path in found])
    settings = {"table": name, "scale": asked.scale, "most": asked.most, "photos": contents}
    with open_run(out, settings, files=files):
        before = len(runs.failures)
        rows, verdicts = _costs(runs) if name == COSTS else _rows(printed, runs)
        about = {
            "scale": asked.scale,
            "photos": f"{len(found)} in {asked.photos if REAL in printed.sets else asked.faces}" if found else "none",
            "most": asked.most or "all",
            "models": ", ".join(needs(name, runs.scale)) if name != COSTS else "published shapes with filled weights",
            "device": device_name(runs.device),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        }
        made = Made(name, printed, rows, verdicts, about, [*runs.failures][before:], files[0])
        atomic_write(files[0], as_markdown(made))
        atomic_write(files[1], json.dumps(as_json(made), indent=1) + "\n")
    return made


def _costs(runs: Runs) -> tuple[list[Row], list[Verdict]]:
    costs = measured_costs(device=runs.device, progress=runs.progress)
    return [Row(c.label, "512 px", {k: exactly(v) for k, v in c.values().items()}, c.note) for c in costs], []


def _rows(printed: Printed, runs: Runs) -> tuple[list[Row], list[Verdict]]:
    ways = TABLES[printed.name]
    found: dict[tuple[str, str], Values] = {}
    rows = []
    for photos in printed.sets:
        for label, way in ways.items():
            if isinstance(way, Share):
                rows.append(
                    Row(label, photos, share_of(*(found.get((n, photos)) for n in (way.before, way.after, way.upper))))
                )
                continue
            note = missing(runs.scale, way) or next(
                filter(None, (lacking(runs, way, camera) for camera in cameras_of(photos))), ""
            )
            if not note:
                found[label, photos] = mean_of_sets([runs.values(way, camera) for camera in cameras_of(photos)])
            rows.append(Row(label, photos, {} if note else estimates_of(found[label, photos]), note))
    return rows, [verdict_on(claim, found, runs.scale) for claim in printed.claims]
