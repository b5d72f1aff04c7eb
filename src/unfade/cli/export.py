"""The command `unfade models export`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from unfade.cli import flags as f
from unfade.cli.command import Outcome, command
from unfade.cli.settings import changed

Restorer = Annotated[str, typer.Argument(help="Name of a restorer, a file of weights, or a run folder.")]
Out = Annotated[Path, typer.Option("--out", help="File to write: .onnx, .safetensors (spandrel) or .pth (published).")]
To = Annotated[
    str | None,
    typer.Option(
        help="onnx (default): a whole program, for ONNX Runtime and browsers. spandrel: weights that spandrel and the "
        "programs built on it open. published: the file that the network's own authors read."
    ),
]
LayoutWords = Annotated[
    str | None,
    typer.Option(
        "--layout",
        help="Pictures of an ONNX file, words with commas between them: rgb or bgr; signed (-1..1), unit (0..1) or "
        "bytes (0..255); nchw or nhwc. Default: rgb,signed,nchw.",
    ),
]
Dtype = Annotated[
    str | None, typer.Option(help="Of the stored weights: float32 (default), or float16 for half the file.")
]
FixedBatch = Annotated[int | None, typer.Option("--fixed-batch", min=1, help="Faces per run; without it, any number.")]
Opset = Annotated[int | None, typer.Option(help="Version of the ONNX operators, 18 to 23; by default 20.")]


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
    """Write RESTORER as one file for other programs, checked against the network on random faces before it is there."""
    from unfade.hosts.export import export as run
    from unfade.hosts.settings import ExportSettings
    from unfade.restorers.layout import layout_of

    settings = changed(
        ExportSettings(),
        to=to, layout=layout and layout_of(layout.split(",")), dtype=dtype, batch=fixed_batch, opset=opset,
        fidelity=fidelity, refine=refine,
    )  # fmt: skip
    done = run(restorer, out, settings)
    checked = done.checked
    result = {"path": str(done.path), "to": done.to, "size": done.size, **asdict(checked), "allowed": settings.allowed}
    line = (
        f"{done.path}: {done.size} px, differs from the network by at most {checked.difference:.2g} of values in "
        f"[-1, 1] (allowed: {settings.allowed:.2g}), as read by {checked.by}"
    )
    return Outcome(result, [line, *(f"  note: {note}" for note in checked.notes)])
