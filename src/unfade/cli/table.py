"""`unfade table`: the paper's tables."""

import time
from pathlib import Path
from typing import Annotated

import typer

from unfade.cli import options as o
from unfade.cli.console import failure_lines, finish, progress
from unfade.cli.console import table as print_table
from unfade.errors import BadInput


def table(
    name: Annotated[str | None, typer.Argument(help="Name, or the number in the paper.")] = None,
    faces: Annotated[Path | None, typer.Option(help="Folder of clean, aligned faces.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder that is filled.")] = None,
    scale: Annotated[str, typer.Option(help="builtin: with the models that come along; paper: with its own.")] = (
        "builtin"
    ),
    list_tables: Annotated[bool, typer.Option("--list", help="Say which tables there are and what each needs.")] = (
        False
    ),
    device: o.Device = "auto",
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Make one of the paper's tables from a folder of clean FACES, which it degrades itself."""
    from unfade.recipes.table_runs import make_table, shown

    if list_tables:
        _list(scale, as_json=as_json, quiet=quiet)
        return
    if name is None or faces is None or out is None:
        raise BadInput("Name a table and give it --faces FOLDER and --out FOLDER; `unfade table --list` lists them.")
    begin = time.monotonic()
    made = make_table(name, faces, out, scale=scale, device=device, progress=progress(quiet=quiet))
    columns = list(dict.fromkeys(column for row in made.rows for column in row))
    if made.rows and not (as_json or quiet):
        print_table([{column: shown(row.get(column)) for column in columns} for row in made.rows])
    lines = [
        made.caption,
        *(f"{key}: {value}" for key, value in made.about.items()),
        f"made in {time.monotonic() - begin:.0f} s",
        *failure_lines(made.failures),
        f"table: {made.file}",
    ]
    result = {
        "table": made.name, **made.about, "rows": list(made.rows),
        "failures": [list(failure) for failure in made.failures], "file": str(made.file),
    }  # fmt: skip
    finish(result, as_json=as_json, quiet=quiet, lines=lines, failed=len(made.failures))


def _list(scale: str, *, as_json: bool, quiet: bool) -> None:
    from unfade.recipes.tables import TABLES, needs, scale_named

    chosen = scale_named(scale)
    rows = [
        {
            "name": name,
            "in the paper": ", ".join(map(str, known.numbers)) or "number not known",
            "what": known.caption,
            "needs": ", ".join(needs(known, chosen)),
        }
        for name, known in TABLES.items()
    ]
    if not (as_json or quiet):
        print_table(rows)
    lines = [f"Metrics at this scale: {', '.join(chosen.metrics)}."]
    finish({"scale": scale, "metrics": list(chosen.metrics), "tables": rows}, as_json=as_json, quiet=quiet, lines=lines)
