"""The command `unfade inspect`: what damaged the photos of a folder."""

from pathlib import Path
from typing import Annotated

import typer

from unfade.cli import flags as f
from unfade.cli.command import Outcome, command


@command
def inspect(
    place: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="Run folder of an adaptation, or the file of a fitted degradation."),
    ],
    out: Annotated[
        Path | None, f.option(f.OUTPUT, "Folder for the picture. Default: beside the degradation.", "--out")
    ] = None,
) -> Outcome:
    """Report what damaged the photos of a RUN: blur, noise, contrast and JPEG, in words, numbers and a picture."""
    from unfade.recipes.inspect import in_words
    from unfade.recipes.inspect import inspect as run

    found = run(place, out)
    words = [f"{kind}: {text}" for kind, text in in_words(found.damage).items()]
    return Outcome(found.as_dict(), words, last=[f"picture: {found.picture}"])
