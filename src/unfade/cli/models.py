"""The command `unfade models`."""

from dataclasses import asdict
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
    row = {**asdict(MODELS[name]), "path": str(path), "bytes": path.stat().st_size, "sha256": sha256_of(path)}
    card = read_card(path)
    lines = [f"{key}: {value}" for key, value in {**row, **card}.items()]
    finish({**row, "card": card}, as_json=as_json, quiet=quiet, lines=lines)
