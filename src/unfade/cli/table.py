"""The command `unfade table`: reproduce the paper's tables."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unfade.cli import flags as f
from unfade.cli.command import Outcome, command
from unfade.errors import BadInput
from unfade.progress import Progress

if TYPE_CHECKING:
    from unfade.paper.text import Made


@command
def table(
    name: Annotated[str | None, typer.Argument(help="1 to 27, fig9, fig15, or all.")] = None,
    faces: Annotated[Path | None, typer.Option(help="Folder of clean, aligned faces.")] = None,
    photos: Annotated[
        Path | None, typer.Option(help="Folder of aligned photos without a truth, for tables 3 and 10.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results.")] = None,
    scale: Annotated[str, typer.Option(help="builtin: use the built-in models; paper: use the paper's.")] = "builtin",
    most: Annotated[
        int, typer.Option(help="Largest number of photos to adapt to, and of photos to score; 0: all.", min=0)
    ] = 0,
    list_tables: Annotated[bool, typer.Option("--list", help="List the tables and what each needs.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Check the paper's printed numbers against each other.")
    ] = False,
    device: f.Device = "auto",
    *,
    progress: Progress,
) -> Outcome:
    """Reproduce one of the paper's tables, or all of them, from a folder of clean faces, which it degrades itself."""
    if list_tables:
        return _list(scale, most)
    if check:
        return _check()
    from unfade.paper.results import Asked, make_tables

    if name is None or out is None:
        raise BadInput("Name a table and give it --faces FOLDER and --out FOLDER; `unfade table --list` lists them.")
    begin = time.monotonic()
    made, passed_over = make_tables(name, Asked(out, faces, photos, scale, most, device), progress=progress)
    return _outcome(made, passed_over, time.monotonic() - begin)


def _outcome(made: "Sequence[Made]", passed_over: Sequence[str], seconds: float) -> Outcome:
    from unfade.paper.text import as_json, cells_of, claimed

    failures = list(dict.fromkeys(failure for each in made for failure in each.failures))
    lines = []
    for each in made:
        lines += [each.printed.title, *(f"  {claimed(verdict)}" for verdict in each.verdicts), f"  {each.file}"]
    lines += [f"{key}: {value}" for key, value in made[0].about.items() if key in ("device", "torch", "threads")]
    return Outcome(
        {"tables": [{**as_json(each), "file": str(each.file)} for each in made], "passed_over": list(passed_over)},
        [*lines, *(f"passed over: {why}" for why in passed_over), f"made in {seconds:.0f} s"],
        failures=failures,
        failed=len(failures),
        tables={f"{each.printed.title}: {each.printed.caption}": cells_of(each.rows) for each in made},
    )


def _list(scale: str, most: int) -> Outcome:
    from unfade.paper.needs import MOST, listed
    from unfade.paper.tables import scale_named

    chosen = scale_named(scale)
    rows = listed(scale, chosen, most)
    lines = [
        f"Times are for {most or MOST} photos to adapt to and as many to score (`most`), and for each table alone; "
        "tables made in one folder share the work they have in common.",
        f"Metrics at this scale: {', '.join(chosen.metrics)}; without a truth {', '.join(chosen.real_metrics)}.",
    ]
    result = {"scale": scale, "metrics": list(chosen.metrics), "photos": most or MOST, "tables": rows}
    return Outcome(result, lines, rows=rows)


def _check() -> Outcome:
    from unfade.paper.consistency import check_tables
    from unfade.paper.printed import printed_tables

    checked = check_tables()
    lines = [
        f"{checked.repeated} repeated cells, {checked.means} means and {checked.costs} numbers of table 27 compared; "
        f"{len(checked.contradictions)} rows are inconsistent:",
        *(f"{printed_tables()[found.table].title}: {found.sentence}" for found in checked.contradictions),
    ]
    result = {
        "repeated": checked.repeated,
        "means": checked.means,
        "costs": checked.costs,
        "contradictions": [vars(found) for found in checked.contradictions],
    }
    return Outcome(result, lines)
