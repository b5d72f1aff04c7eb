"""The command `unfade compare`: run several methods on the same faces."""

from pathlib import Path
from typing import Annotated

import typer

from unfade.cli import flags as f
from unfade.cli.command import Outcome, command, sum_line
from unfade.cli.settings import is_bf16, names_in
from unfade.errors import BadInput
from unfade.progress import Progress


@command
def compare(
    faces: Annotated[Path, typer.Argument(help="Folder of aligned, degraded faces.")],
    out: f.Out,
    methods: Annotated[
        str,
        typer.Option(
            help="Comma-separated: restorer, ours, ours-short, difface, difface-ddim, ilvr, dda, dr2, pgdiff, "
            "pgdiff-restored, diffbir, or any restorer: a name, a file, a run folder."
        ),
    ] = "restorer,ours,difface,dr2",
    truth: Annotated[Path | None, typer.Option(help="Folder of clean versions; the table then has scores.")] = None,
    results: Annotated[
        list[str] | None, typer.Option(help="NAME=FOLDER: results of another program; may be given several times.")
    ] = None,
    metrics: Annotated[
        str,
        typer.Option(
            help="More columns, comma-separated. With --truth: lpips, lpips_alex, deg, deg_sface, lmd; "
            "with or without: musiq, maniqa, maniqa_pipal, niqe."
        ),
    ] = "",
    restorer: f.Restorer = "small-restorer",
    prior: f.Prior = None,
    batch: Annotated[int, typer.Option(help="Faces denoised together.")] = 4,
    precision: f.Precision = "float32",
    seed: f.Seed = 0,
    device: f.Device = "auto",
    *,
    progress: Progress,
) -> Outcome:
    """Run several methods on the same FACES; make a table with time and memory, a contact sheet and a report."""
    from dataclasses import asdict

    from unfade.recipes.compare import CompareSettings
    from unfade.recipes.compare import compare as run
    from unfade.stages.methods import MethodSettings

    names = tuple(names_in(methods))
    settings = CompareSettings(names, restorer, prior, MethodSettings(batch, bool(is_bf16(precision)), seed))
    others, columns = _folders(results or []), names_in(metrics)
    done = run(faces, out, settings, truth=truth, results=others, metrics=columns, device=device, progress=progress)
    counts = done.counts.as_dict()
    failures = [
        (e.item, e.reason) for rows in (done.left_out, *done.entries.values()) for e in rows if e.status != "done"
    ]
    scores = {name: {k: asdict(v) for k, v in found.summary.items()} for name, found in done.scores.items()}
    result = {**counts, "rows": done.rows(), "scores": scores, "report": str(done.report), "sheet": str(done.sheet)}
    return Outcome(
        result,
        [sum_line(counts)],
        failures=failures,
        last=[f"sheet: {done.sheet}", f"report: {done.report}"],
        failed=counts["failed"] + counts["skipped"],
        rows=[{k: "-" if v is None else v for k, v in row.items()} for row in done.rows()],
    )


def _folders(given: list[str]) -> dict[str, Path]:
    folders = {}
    for text in given:
        name, sign, folder = text.partition("=")
        if not (name and sign and folder):
            raise BadInput(f"--results {text} is not NAME=FOLDER, for example theirs=outputs/theirs.")
        folders[name] = Path(folder)
    return folders
