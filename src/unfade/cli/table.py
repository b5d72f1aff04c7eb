"""`unfade table`: the paper's tables."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unfade.cli import options as o
from unfade.cli.console import failure_lines, finish, progress
from unfade.cli.console import table as print_table
from unfade.errors import BadInput

if TYPE_CHECKING:
    from unfade.recipes.table_text import Made


def table(
    name: Annotated[str | None, typer.Argument(help="1 to 27, fig9, fig15, or all.")] = None,
    faces: Annotated[Path | None, typer.Option(help="Folder of clean, aligned faces.")] = None,
    photos: Annotated[Path | None, typer.Option(help="Folder of aligned photos without a truth: tables 3, 10.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder that is filled.")] = None,
    scale: Annotated[str, typer.Option(help="builtin: with the models that come along; paper: with its own.")] = (
        "builtin"
    ),
    most: Annotated[int, typer.Option(help="Photos to adapt to, and photos to score, at most; 0: all.", min=0)] = 0,
    list_tables: Annotated[bool, typer.Option("--list", help="Say which tables there are and what each needs.")] = (
        False
    ),
    check: Annotated[bool, typer.Option("--check", help="Check the printed numbers against each other.")] = False,
    device: o.Device = "auto",
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Make one of the paper's tables, or all, from a folder of clean FACES, which it degrades itself."""
    if list_tables:
        _list(scale, most, as_json=as_json, quiet=quiet)
        return
    if check:
        _check(as_json=as_json, quiet=quiet)
        return
    from unfade.recipes.table_results import Asked, make_tables

    if name is None or out is None:
        raise BadInput("Name a table and give it --faces FOLDER and --out FOLDER; `unfade table --list` lists them.")
    begin = time.monotonic()
    asked = Asked(out, faces, photos, scale, most, device)
    made, passed_over = make_tables(name, asked, progress=progress(quiet=quiet))
    _finish(made, passed_over, time.monotonic() - begin, as_json=as_json, quiet=quiet)


def _finish(made: "Sequence[Made]", passed_over: Sequence[str], seconds: float, *, as_json: bool, quiet: bool) -> None:
    from unfade.recipes.table_text import as_json as as_values
    from unfade.recipes.table_text import cells_of, claimed

    failures = list(dict.fromkeys(failure for each in made for failure in each.failures))
    lines = []
    for each in made:
        if not (as_json or quiet):
            print_table(cells_of(each.rows))
        title = f"{each.printed.title}: {each.printed.caption}"
        lines += [title, *(f"  {claimed(verdict)}" for verdict in each.verdicts), f"  {each.file}"]
    lines += [f"{key}: {value}" for key, value in made[0].about.items() if key in ("device", "torch", "threads")]
    lines += [*(f"passed over: {why}" for why in passed_over), f"made in {seconds:.0f} s", *failure_lines(failures)]
    result = {
        "tables": [{**as_values(each), "file": str(each.file)} for each in made],
        "passed_over": list(passed_over),
        "failures": [[*failure] for failure in failures],
    }
    finish(result, as_json=as_json, quiet=quiet, lines=lines, failed=len(failures))


def _list(scale: str, most: int, *, as_json: bool, quiet: bool) -> None:
    from unfade.recipes.table_list import MOST, listed
    from unfade.recipes.tables import scale_named

    chosen = scale_named(scale)
    rows = listed(scale, chosen, most)
    if not (as_json or quiet):
        print_table(rows)
    lines = [
        f"Times are those of {most or MOST} photos to adapt to and as many to score (`most`), a table alone; tables in "
        "one folder share what they have in common.",
        f"Metrics at this scale: {', '.join(chosen.metrics)}; without a truth {', '.join(chosen.real_metrics)}.",
    ]
    result = {"scale": scale, "metrics": list(chosen.metrics), "photos": most or MOST, "tables": rows}
    finish(result, as_json=as_json, quiet=quiet, lines=lines)


def _check(*, as_json: bool, quiet: bool) -> None:
    from unfade.recipes.paper import printed_tables
    from unfade.recipes.table_check import check_tables

    checked = check_tables()
    lines = [
        f"{checked.repeated} repeated cells, {checked.means} means and {checked.costs} numbers of table 27 compared; "
        f"{len(checked.contradictions)} rows do not fit:",
        *(f"{printed_tables()[found.table].title}: {found.sentence}" for found in checked.contradictions),
    ]
    result = {
        "repeated": checked.repeated, "means": checked.means, "costs": checked.costs,
        "contradictions": [vars(found) for found in checked.contradictions],
    }  # fmt: skip
    finish(result, as_json=as_json, quiet=quiet, lines=lines)
