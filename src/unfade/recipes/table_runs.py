"""Makes one of the tables: clean faces in, a table of numbers out, with all that is needed to compare them."""

import json
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from unfade.atomic import atomic_write
from unfade.devices import Device, choose_device
from unfade.diffusion.load import load_prior
from unfade.errors import BadInput
from unfade.evaluation.evaluate import LOADED, evaluate
from unfade.evaluation.sets import SET_METRICS, load_embed, published_statistics
from unfade.jobs.runs import open_run
from unfade.progress import Progress, silent
from unfade.recipes.compare import FIRST, CompareSettings, compare, load_own
from unfade.recipes.rehearse import ROWS, RehearseSettings, rehearse
from unfade.recipes.tables import (
    BASE,
    CAMERAS,
    SHARE,
    TABLES,
    Comparison,
    Rehearsals,
    Scale,
    Table,
    base_settings,
    named,
    needs,
    scale_named,
)
from unfade.restorers.load import head_of, load_restorer
from unfade.stages.crop import take_aligned
from unfade.stages.degrade import degrade_faces
from unfade.stages.methods import METHODS, in_latents
from unfade.training.batches import find_training_pictures

TIMED = 8  # faces whose time is taken
Row = dict[str, object]
Failures = dict[tuple[str, str], None]


@dataclass(frozen=True)
class Made:
    """A table."""

    name: str
    caption: str
    rows: Sequence[Row]
    about: Mapping[str, object]  # faces, models, device
    failures: Sequence[tuple[str, str]]  # (file, reason)
    file: Path  # Markdown; JSON is beside it


def make_table(
    name: str, faces: Path, out: Path, *, scale: str = "builtin", device: Device = "auto", progress: Progress = silent
) -> Made:
    """Make a table, by its name or the paper's number, of a folder of clean, aligned faces; resumable.

    Writes table.md and table.json to `out`, beside the runs. Raises BadInput for an unknown table or scale, and
    UnknownModel, with the command that brings it, for weights that are not there, before anything is begun.
    """
    name, chosen, device = named(name), scale_named(scale), choose_device(device)
    table = TABLES[name]
    if isinstance(table, Rehearsals) and table.restorer and scale != "paper":
        raise BadInput(
            f"The table {name} is about {table.restorer}, which no built-in prior fits: set `scale` to paper."
        )
    found, _ = find_training_pictures(faces, {})
    _check(table, chosen, device)
    failures: Failures = {}  # each once, though several rows may meet it
    files = [out / "table.md", out / "table.json"]
    with open_run(out, {"table": name, "scale": scale}, about={"faces": str(faces)}, inputs=[faces], files=files):
        rows = list(_RUNS[type(table)](table, chosen, found, faces, out, failures, device, progress))
        about = {
            "scale": scale,
            "faces": f"{len(found)} in {faces}",
            "models": ", ".join(needs(table, chosen)),
            "device": device_name(device),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        }
        made = Made(name, table.caption, rows, about, list(failures), out / "table.md")
        atomic_write(made.file, as_markdown(made))
        told = {"table": name, **about, "rows": [_finite(row) for row in rows]}
        atomic_write(out / "table.json", json.dumps(told, indent=1) + "\n")
    return made


def device_name(device: str) -> str:
    """The product name of a GPU, or of the processor."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def as_markdown(made: Made) -> str:
    """The table and, below it, what it was made of."""
    columns = list(dict.fromkeys(column for row in made.rows for column in row))
    lines = [f"# {made.caption}", "", f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    lines += [f"| {' | '.join(shown(row.get(column)) for column in columns)} |" for row in made.rows]
    return "\n".join([*lines, "", *(f"- {name}: {value}" for name, value in made.about.items()), ""])


def shown(value: object) -> str:
    """A cell."""
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.4g}"
    return "-" if value is None else str(value)


def _check(table: Table, scale: Scale, device: str) -> None:
    """All weights are there, or the first that is not is named."""
    guides = {method.own for method in METHODS.values()}
    for name in needs(table, scale):
        load = load_prior if name == scale.prior else load_own if name in guides else load_restorer
        load(name, device="cpu")
    if isinstance(table, Comparison) and table.costs:
        return
    for metric in scale.metrics:
        if metric in LOADED:
            LOADED[metric](device)
        elif metric in SET_METRICS:
            load_embed(device=device)
            published_statistics(str(scale.reference))


def _rehearsals(
    table: Table, scale: Scale, found: list[Path], faces: Path, out: Path, failures: Failures, device: str,
    progress: Progress,
) -> Iterator[Row]:  # fmt: skip
    assert isinstance(table, Rehearsals)
    variants = table.variants(base_settings(scale, table.restorer))
    most = round(len(found) * RehearseSettings().learn)  # more than there are would be all of them under another name
    variants = {label: settings for label, settings in variants.items() if settings.most <= most}
    needed = [row for row in ROWS if row in table.rows or (SHARE in table.rows and row != "targets")]
    for camera in table.cameras:
        folders = {label: out / f"{camera} {label}".strip().replace(" ", "-") for label in variants}
        for label, settings in variants.items():
            folder = folders[label]
            done = rehearse(
                faces, folder, CAMERAS[camera], settings,
                supervised=next(iter(folders.values())), device=device, progress=progress,
            )  # fmt: skip
            failures |= dict.fromkeys(done.failures)
            truth = folder / "truth" / "score"
            values = {row: _scores(folder / "results" / row, truth, scale, device) for row in needed}
            varied: Row = {table.varied: label} if table.varied else {}
            for row in table.rows:
                yield {"camera": camera, **varied, "": row, **(_share(values) if row == SHARE else values[row])}


def _scores(results: Path, truth: Path, scale: Scale, device: str) -> dict[str, float]:
    found = evaluate(results, truth=truth, reference=scale.reference, metrics=scale.metrics, device=device)
    means = {name: mean.mean for name, mean in found.scores.summary.items()} if found.scores else {}
    return {**means, **(found.sets.values if found.sets else {})}


def _share(values: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """(adapted - pre-trained) / (supervised - pre-trained), of means."""
    before, after, best = (values[row] for row in ("pre-trained", "adapted", "supervised"))
    return {
        name: (after[name] - before[name]) / (best[name] - before[name]) if best[name] != before[name] else math.nan
        for name in before
    }


def _comparison(
    table: Table, scale: Scale, found: list[Path], faces: Path, out: Path, failures: Failures, device: str,
    progress: Progress,
) -> Iterator[Row]:  # fmt: skip
    assert isinstance(table, Comparison)
    specs = {"pre-trained": scale.restorer, "adapted": str(out / "rehearsal" / "adapted")}
    if "adapted" in table.restorers:
        base = base_settings(scale)
        first = rehearse(faces, out / "rehearsal", CAMERAS[BASE], base, device=device, progress=progress)
        failures |= dict.fromkeys(first.failures)
        photos, truth = (out / "rehearsal" / side / "score" for side in ("photos", "truth"))
    else:
        photos, truth = _degraded(found[:TIMED] if table.costs else found, out, scale, failures, progress)
    for stage in table.restorers:
        settings = CompareSettings(table.methods or scale.methods, specs[stage], scale.prior)
        folder, compared_to = out / f"compared-{stage}", None if table.costs else truth
        done = compare(photos, folder, settings, truth=compared_to, device=device, progress=progress)
        failures |= {(e.item, e.reason): None for rows in done.entries.values() for e in rows if e.status != "done"}
        for row in done.rows():
            method = str(row["method"])
            if table.costs:
                yield {"method": method, "parameters, M": _millions(method, scale),
                       "s per face": row["s per face"], "peak MB": row["peak MB"]}  # fmt: skip
            else:
                scores = _scores(folder / "results" / method, truth, scale, device)
                yield {**({"first stage": stage} if len(table.restorers) > 1 else {}), "method": method, **scores}


def _degraded(found: list[Path], out: Path, scale: Scale, failures: Failures, progress: Progress) -> tuple[Path, Path]:
    """(photos, truth): folders of faces at the restorer's size, and of what one camera makes of them."""
    size = head_of(scale.restorer).size
    out = out / "degraded"
    with open_run(out, {"table": repr(CAMERAS[BASE]), "size": size}, inputs=[found[0].parent]) as journal:
        taken = take_aligned(found, out / "truth", size=size, journal=journal, progress=progress)
        kept = [out / "truth" / entry.output for entry in taken if entry.status == "done"]
        failures |= {(entry.item, entry.reason): None for entry in taken if entry.status != "done"}
        if not kept:
            raise BadInput(f"None of the {len(found)} faces could be used; the first: {taken[0].reason}")
        degrade_faces(kept, out / "photos", CAMERAS[BASE], journal=journal, progress=progress)
    return out / "photos", out / "truth"


def _millions(method: str, scale: Scale) -> float:
    """Of the network that makes the result; a method's first stage counts by itself."""
    if method not in METHODS:
        network: nn.Module = load_restorer(scale.restorer if method == FIRST else method, device="cpu")
    elif METHODS[method].walk is in_latents:
        network = load_own(METHODS[method].own)
    else:
        network = load_prior(scale.prior, device="cpu")
    return sum(p.numel() for p in network.parameters()) / 1e6


def _finite(row: Row) -> Row:
    return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in row.items()}


_RUNS = {Rehearsals: _rehearsals, Comparison: _comparison}
