"""The command `unfade models`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from unfade.cli import options as o
from unfade.cli.console import finish, table
from unfade.errors import UnknownModel

app = typer.Typer(help="The models there are.", no_args_is_help=True)


@app.command("list")
def list_models(as_json: o.Json = False, quiet: o.Quiet = False) -> None:
    """List the models: name, kind, size, licence."""
    from unfade.store.zoo import MODELS

    rows = [asdict(model) for model in MODELS.values()]
    if not (as_json or quiet):
        table(rows)
    finish({"models": rows}, as_json=as_json, quiet=quiet)


@app.command("import")
def import_model(
    name: Annotated[str, typer.Argument(help="Name of a model that does not come with unfade: lpips-vgg.")],
    files: Annotated[list[Path], typer.Argument(help="Its published files, in the order that the model names.")],
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Convert published weights that you have downloaded, once. lpips-vgg: torchvision's VGG16, then LPIPS' heads."""
    from unfade.recipes.lpips import import_lpips

    importers = {"lpips-vgg": import_lpips}
    if name not in importers:
        raise UnknownModel(f"{name} is not imported from files; there are: {', '.join(importers)}.")
    path = importers[name](files)
    finish({"name": name, "path": str(path)}, as_json=as_json, quiet=quiet, lines=[f"{name}: {path}"])


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="Name of a model.")], as_json: o.Json = False, quiet: o.Quiet = False
) -> None:
    """Show one model with its card."""
    from unfade.store.checkpoints import read_card, sha256_of
    from unfade.store.zoo import MODELS, path_of

    if name not in MODELS:
        raise UnknownModel(f"There is no model named {name}; there are: {', '.join(MODELS)}.")
    path = path_of(MODELS[name])
    stored = {"bytes": path.stat().st_size, "sha256": sha256_of(path)} if path.exists() else {"bytes": "not imported"}
    row = {**asdict(MODELS[name]), "path": str(path), **stored}
    card = read_card(path)
    lines = [f"{key}: {value}" for key, value in {**row, **card}.items()]
    finish({**row, "card": card}, as_json=as_json, quiet=quiet, lines=lines)
