"""The command `unfade models export`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from unfade.cli import flags as f
from unfade.cli.command import Outcome, command
from unfade.cli.settings import changed, names_in

Restorer = Annotated[str, typer.Argument(help="Name of a restorer, a file of weights, or a run folder.")]
Out = Annotated[Path, typer.Option("--out", help="File to write: .onnx, .safetensors (spandrel) or .pth (published).")]
To = Annotated[
    str | None,
    typer.Option(
        help="onnx (default): the network with its weights, for ONNX Runtime and browsers. spandrel: weights for "
        "spandrel and programs built on it, such as ComfyUI. published: weights for the network's original code."
    ),
]
LayoutWords = Annotated[
    str | None,
    typer.Option(
        "--layout",
        help="How an ONNX file takes and returns pictures, comma-separated: rgb or bgr; signed (-1..1), unit (0..1) "
        "or bytes (0..255); nchw or nhwc. Default: rgb,signed,nchw.",
    ),
]
Dtype = Annotated[
    str | None, typer.Option(help="Type of the stored weights: float32 (default), or float16 for half the size.")
]
FixedBatch = Annotated[
    int | None, typer.Option("--fixed-batch", min=1, help="Fixed number of faces per run. Default: any number.")
]
Opset = Annotated[int | None, typer.Option(help="ONNX operator set version, 18 to 23. Default: 20.")]


@command
def export(
    restorer: Restorer,
    out: Out,
    to: To = None,
    layout: LayoutWords = None,
    dtype: Dtype = None,
    fixed_batch: FixedBatch = None,
    opset: Opset = None,
    fidelity: f.Fidelity = None,
    refine: f.Refine = None,
) -> Outcome:
    """Export RESTORER to a file for other programs, once it gives the network's own results on random faces."""
    from unfade.hosts.export import export as run
    from unfade.hosts.settings import ExportSettings
    from unfade.restorers.picture_layout import layout_of

    of_file = {"to": to, "layout": layout and layout_of(names_in(layout)), "dtype": dtype, "opset": opset}
    settings = changed(ExportSettings(), batch=fixed_batch, fidelity=fidelity, refine=refine, **of_file)
    done = run(restorer, out, settings)
    checked = done.checked
    result = {"path": str(done.path), "to": done.to, "size": done.size, **asdict(checked), "allowed": settings.allowed}
    line = (
        f"{done.path}: {done.size} px; opened by {checked.by}, it differs from the network by at most "
        f"{checked.difference:.2g}, in values from -1 to 1 (allowed: {settings.allowed:.2g})"
    )
    return Outcome(result, [line, *(f"  note: {note}" for note in checked.notes)])
