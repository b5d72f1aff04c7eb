"""`unfade table`: the paper's tables."""

import time
from pathlib import Path
from typing import Annotated

import typer

from unfade.cli import flags as f
from unfade.cli.command import Outcome, command
from unfade.errors import BadInput
from unfade.progress import Progress


@command
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
    device: f.Device = "auto",
    *,
    progress: Progress,
) -> Outcome:
    """Make one of the paper's tables from a folder of clean FACES, which it degrades itself."""
    from unfade.recipes.table_runs import make_table, shown

    if list_tables:
        return _list(scale)
    if name is None or faces is None or out is None:
        raise BadInput("Name a table and give it --faces FOLDER and --out FOLDER; `unfade table --list` lists them.")
    begin = time.monotonic()
    made = make_table(name, faces, out, scale=scale, device=device, progress=progress)
    columns = list(dict.fromkeys(column for row in made.rows for column in row))
    return Outcome(
        {"table": made.name, **made.about, "rows": list(made.rows), "file": str(made.file)},
        [
            made.caption,
            *(f"{key}: {value}" for key, value in made.about.items()),
            f"made in {time.monotonic() - begin:.0f} s",
        ],
        failures=made.failures,
        last=[f"table: {made.file}"],
        failed=len(made.failures),
        rows=[{column: shown(row.get(column)) for column in columns} for row in made.rows],
    )


def _list(scale: str) -> Outcome:
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
    lines = [f"Metrics at this scale: {', '.join(chosen.metrics)}."]
    return Outcome({"scale": scale, "metrics": list(chosen.metrics), "tables": rows}, lines, rows=rows)
