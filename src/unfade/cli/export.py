"""The command `unfade models export`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from unfade.cli.command import Outcome, command
from unfade.cli.settings import changed


@command
def export(
    restorer: Annotated[str, typer.Argument(help="Name of a restorer, a file of weights, or a run folder.")],
    out: Annotated[Path, typer.Option("--out", help="File to write, ending in .onnx.")],
    fixed_batch: Annotated[
        int | None, typer.Option("--fixed-batch", min=1, help="Faces per run; without it, any number.")
    ] = None,
    opset: Annotated[int | None, typer.Option(help="Version of the ONNX operators, 18 to 23; by default 20.")] = None,
) -> Outcome:
    """Write RESTORER as one ONNX file, checked against the network on random faces before it is there."""
    from unfade.recipes.export import ExportSettings
    from unfade.recipes.export import export as run

    settings = changed(ExportSettings(), batch=fixed_batch, opset=opset)
    done = run(restorer, out, settings)
    result = {**asdict(done), "path": str(done.path), "tolerance": settings.tolerance}
    line = (
        f"{done.path}: {done.size} px, differs from the network by at most {done.difference:.2g} "
        f"of values in [-1, 1] (allowed: {settings.tolerance:.2g})"
    )
    return Outcome(result, [line])
