"""The command `unfade restore`."""

from pathlib import Path
from typing import Annotated

import typer

from unfade.cli import options as o
from unfade.cli import whole as w
from unfade.cli.console import finish_stage, progress

Photos = Annotated[Path, typer.Argument(help="Folder of photos; folders below it are searched too. Or one photo.")]


def restore(
    photos: Photos,
    out: o.Out,
    restorer: o.Restorer = "small-restorer",
    aligned: w.Aligned = False,
    fidelity: o.Fidelity = None,
    batch: Annotated[int, o.option(o.BASIC, "Faces restored together.")] = 8,
    precision: o.Precision = "float32",
    device: o.Device = "auto",
    which: w.Faces = None,
    min_face: w.MinFace = None,
    max_face: w.MaxFace = None,
    min_score: w.MinScore = None,
    detector: w.Detector = None,
    refine: o.Refine = None,
    strength: o.Strength = 1.0,
    size: w.Size = "photo",
    paste: w.Paste = None,
    match_colour: w.MatchColour = False,
    colour: w.Colour = False,
    format: w.Format = None,
    quality: w.Quality = None,
    copy: w.Copy = False,
    background: w.Background = None,
    scale: w.Scale = None,
    identity: w.Identity = None,
    mask: w.Mask = None,
    sidecar: w.Sidecar = False,
    no_provenance: w.NoProvenance = False,
    report: w.Report = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Restore the faces of PHOTOS (videos too) with any restorer, an adapted one too; names and formats are kept."""
    from unfade.recipes.restore import passed_over
    from unfade.recipes.restore import restore as run

    find = w.find_settings(
        aligned, which=which, min_face=min_face, max_face=max_face, min_score=min_score, detector=detector
    )
    settings = w.photo_settings(
        aligned, way=paste, match_colour=match_colour, colour=colour, format=format, quality=quality, copy=copy,
        sidecar=sidecar, scale=scale, background=background, mask=mask,
    )  # fmt: skip
    entries = run(
        photos, out, restorer,
        aligned=aligned, size=size, find=find, settings=settings, background=background, embedder=identity, mask=mask,
        provenance=not no_provenance, fidelity=fidelity, refine=refine, strength=strength, batch=batch, report=report,
        bf16=bool(o.is_bf16(precision)), device=device, progress=progress(quiet=quiet),
    )  # fmt: skip
    finish_stage(entries, out, as_json, quiet, passed_over=passed_over(photos, out, aligned=aligned))
