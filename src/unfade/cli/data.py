"""The commands `unfade data ...`: prepare and verify face data sets that you have downloaded."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unfade.cli import flags as f
from unfade.cli.command import SHOWN, Outcome, command, failure_lines, first_lines, sum_line
from unfade.progress import Progress

if TYPE_CHECKING:
    from unfade.datasets.prepare import Prepared

app = typer.Typer(help="Prepare face data sets that you have downloaded for training and tests.", no_args_is_help=True)


@app.command()
@command
def prepare(
    kind: Annotated[str, typer.Argument(help="ffhq, celebahq, wider or folder.")],
    source: Annotated[Path, typer.Argument(help="The folder or the zip file that you have downloaded.")],
    out: f.Out,
    size: Annotated[int, typer.Option(help="Side of the pictures, in pixels.")] = 512,
    split: Annotated[
        tuple[int, int] | None,
        typer.Option(help="How many pictures go to OUT/train and OUT/test; default for celebahq: 2500 500."),
    ] = None,
    stems: Annotated[Path | None, typer.Option(help="Text file of the file stems for the split, one per line.")] = None,
    min_face: Annotated[
        int | None, typer.Option(help="wider: least length of the shorter side of a face's box, px. Default: 48.")
    ] = None,
    crop: Annotated[
        bool, typer.Option("--crop", help="Crop pictures that are not square to their central square.")
    ] = False,
    enlarge: Annotated[
        bool,
        typer.Option(
            "--enlarge",
            help="Enlarge pictures smaller than --size; without it they fail (boxes of wider: are left out).",
        ),
    ] = False,
    limit: Annotated[int | None, typer.Option(help="Process only this many pictures, for a trial run.")] = None,
    workers: Annotated[int | None, typer.Option(help="Threads. Default: one per core.")] = None,
    *,
    progress: Progress,
) -> Outcome:
    """Make a folder of faces of one size, with a manifest, from SOURCE. Nothing is downloaded; see docs/data.md."""
    from unfade.datasets.data_sets import PrepareSettings
    from unfade.datasets.prepare import prepare as run
    from unfade.datasets.splits import read_stems
    from unfade.jobs.workers import cores

    listed = read_stems(stems) if stems else ()
    settings = PrepareSettings(size, split, listed, min_face, crop, enlarge)
    count = cores() if workers is None else workers
    prepared = run(kind, source, out, settings=settings, limit=limit, workers=count, progress=progress)
    return _outcome(prepared, out)


@app.command()
@command
def verify(
    folder: Annotated[Path, typer.Argument(help="A folder that `unfade data prepare` has filled.")],
    *,
    progress: Progress,
) -> Outcome:
    """Check every picture of a prepared folder against its manifest: missing, changed and extra files."""
    from unfade.datasets.manifest import verify_folder

    found = verify_folder(folder, progress=progress)
    wrong = {"missing": found.missing, "changed": found.changed, "extra": found.extra}
    good = found.checked - len(found.missing) - len(found.changed)
    counts = " + ".join(f"{len(names)} {what}" for what, names in wrong.items() if what != "extra")
    lines = [f"{found.checked} in the manifest = {good} unchanged + {counts}; {len(found.extra)} extra"]
    lines += first_lines(failure_lines([(what, name) for what, names in wrong.items() for name in names]))
    result = {"checked": found.checked, **{what: list(names) for what, names in wrong.items()}}
    return Outcome(result, lines, failed=sum(map(len, wrong.values())))


def _outcome(prepared: "Prepared", out: Path) -> Outcome:
    from unfade.jobs.journal import Counts

    counts = Counts.of(prepared.entries).as_dict()
    failures = [(entry.item, entry.reason) for entry in prepared.entries if entry.status in ("skipped", "failed")]
    result: Mapping[str, Any] = {
        **counts,
        "expected": prepared.expected,
        "missing": list(prepared.missing),
        "left_out": dict(prepared.left_out),
        "odd_names": list(prepared.odd),
        "verified": prepared.verified,
        "failures": [list(failure) for failure in failures],
        "out": str(out),
    }
    lines = [sum_line(counts), *_about(prepared), *first_lines(failure_lines(failures)), f"results: {out}"]
    return Outcome(result, lines, failed=sum(entry.is_open for entry in prepared.entries))


def _about(prepared: "Prepared") -> list[str]:
    lines = [f"left out: {count} faces {why}" for why, count in prepared.left_out.items()]
    if prepared.missing:
        lines.append(f"missing: {len(prepared.missing)} of {prepared.expected}: {_names(prepared.missing)}")
    if prepared.odd:
        lines.append(f"not taken, as their names are not of this set: {len(prepared.odd)}: {_names(prepared.odd)}")
    if prepared.verified:
        lines.append(f"verified: {prepared.verified} files by their published MD5")
    return lines


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
