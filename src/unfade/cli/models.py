"""The command `unfade models`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unfade.cli import export
from unfade.cli.command import Outcome, command
from unfade.progress import Progress

if TYPE_CHECKING:
    from unfade.zoo.convert import Imported
    from unfade.zoo.published import Model

app = typer.Typer(help="List, download, import, check and export models.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="Name of a model, as `unfade models list` shows it.")]


@app.command("list")
@command
def list_models(
    licence: Annotated[str | None, typer.Option(help="commercial: only models that may be used commercially.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only one kind: prior, restorer, detector, ...")] = None,
) -> Outcome:
    """List the models, with their kind, size and licence, and whether they are on this machine."""
    from unfade.errors import BadInput
    from unfade.zoo.models import MODELS

    if licence not in (None, "commercial"):
        raise BadInput(f"--licence takes commercial, got {licence}.")
    kinds = sorted({model.kind for model in MODELS.values()})
    if kind is not None and kind not in kinds:
        raise BadInput(f"There is no kind {kind}; there are: {', '.join(kinds)}.")
    rows = [*map(_row, MODELS.values()), *_own_rows()]
    rows = [row for row in rows if kind in (None, row["kind"]) and (licence is None or row["commercial"])]
    return Outcome({"models": rows}, rows=[_shown(row) for row in rows])


@app.command("show")
@command
def show(name: Name) -> Outcome:
    """Show a model, its card, and where its files come from."""
    from unfade.store.checkpoints import read_card, sha256_of
    from unfade.zoo.models import MODELS, how_to_get, imported, row_of

    added = {row["name"]: row for row in _own_rows()} if name in imported() else {}
    row = added[name] if name in added else _row(row_of(name))
    path = Path(str(row["path"]))
    stored: dict[str, Any] = {"sha256": sha256_of(path), "bytes": path.stat().st_size} if path.exists() else {}
    card = read_card(path) if path.exists() else {}
    lines = [f"{key}: {_said(value)}" for key, value in {**row, **stored}.items() if key != "files"]
    lines += [line for file in row["files"] for line in _file_lines(file)]
    lines += [f"{key}: {_said(value)}" for key, value in card.items() if key not in {**row, **stored}]
    if not path.exists():
        lines.append(f"The weights are not on this machine; {how_to_get(MODELS[name])}.")
    return Outcome({**row, **stored, "card": card}, lines)


@app.command("pull")
@command
def pull_model(
    name: Name,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Accept the licence of a model that is not for commercial use.")
    ] = False,
    mirror: Annotated[
        str, typer.Option(help="Address to try first: that of the file, or of its folder, ending in /.")
    ] = "",
    *,
    progress: Progress,
) -> Outcome:
    """Download a model, check it and convert it. Run it again to resume an interrupted download."""
    from unfade.zoo.models import path_of
    from unfade.zoo.pulling import pull, pullable

    row = pullable(name)
    if not (row.commercial or path_of(row).exists()):
        _settle_licence(row, accepted=accept_licence)
    return _imported(pull(name, mirror=mirror, progress=progress))


@app.command("import")
@command
def import_model(
    files: Annotated[list[Path], typer.Argument(help="The file of weights, or all of them if the model has several.")],
    name: Annotated[str, typer.Option("--as", help="Name for a model that is not in the list.")] = "",
) -> Outcome:
    """Convert weights that you have: .pth, .pt, .bin, .pkl, .ckpt or .safetensors of a network that unfade knows."""
    from unfade.zoo.convert import import_files

    return _imported(import_files(files, name=name))


@app.command("verify")
@command
def verify(
    names: Annotated[list[str] | None, typer.Argument(help="Names of models. Default: all on this machine.")] = None,
) -> Outcome:
    """Check model files against the hashes recorded when they were converted."""
    from unfade.zoo.models import find_named, installed

    states = {name: _state(find_named(name)) for name in names or installed()}
    failures = [(name, state) for name, state in states.items() if state.startswith("changed")]
    lines = [f"{name}: {state}" for name, state in states.items() if not state.startswith("changed")]
    return Outcome({"models": states}, lines, failures=failures, failed=len(failures))


@app.command("path")
@command
def path(name: Name) -> Outcome:
    """Print the path of a model's file."""
    from unfade.zoo.models import find_named

    place = str(find_named(name))
    return Outcome({"name": name, "path": place}, [place])


def _imported(result: "Imported") -> Outcome:
    lines = [f"{result.name}: {result.path}", *(f"  note: {note}" for note in result.notes)]
    about = {"name": result.name, "path": str(result.path), "architecture": result.architecture}
    return Outcome({**about, "notes": list(result.notes)}, lines)


def _settle_licence(row: "Model", *, accepted: bool) -> None:
    """Show the licence and ask the user to accept it, once for all models under it."""
    from unfade.errors import BadInput
    from unfade.zoo.models import accept, is_accepted
    from unfade.zoo.published import LICENCES

    if is_accepted(row.licence):
        return
    about = f"{row.name} by {row.author} is under this licence: {row.licence}, not for commercial use."
    print(f"{about} {LICENCES[row.licence].url or row.source}", file=sys.stderr)
    if not accepted and not sys.stdin.isatty():
        raise BadInput(f"The licence of {row.name} has to be accepted first; add --accept-licence if you accept it.")
    if not accepted and not typer.confirm("Do you accept it?", err=True):
        raise BadInput(f"The licence of {row.name} was not accepted, so nothing was downloaded.")
    accept(row.licence)


def _row(model: "Model") -> dict[str, Any]:
    from dataclasses import asdict

    from unfade.zoo.models import path_of

    facts = {"name": model.name, "kind": model.kind, "architecture": model.architecture, "size": model.size}
    whose = {"licence": model.licence, "commercial": model.commercial, "author": model.author, "source": model.source}
    where = {"built_in": model.built_in, "here": path_of(model).exists(), "path": str(path_of(model))}
    return {**facts, **whose, **where, "files": [asdict(download) for download in model.downloads]}


def _own_rows() -> list[dict[str, Any]]:
    """The models that the user imported under other names than those of the list."""
    from unfade.zoo.models import card_of, imported

    here = {"built_in": False, "here": True}
    empty = {"kind": "", "architecture": "", "size": 0, "licence": "", "commercial": False, "author": "", "source": ""}
    known = {*empty, "files"}
    found = {name: (path, card_of(path)) for name, path in imported().items()}
    return [
        {"name": name, **empty, **here, "path": str(path), "files": [], **{k: v for k, v in card.items() if k in known}}
        for name, (path, card) in found.items()
    ]


def _shown(row: dict[str, Any]) -> dict[str, object]:
    """The columns of the printed table, chosen to fit 100 characters."""
    here = "built in" if row["built_in"] else "yes" if row["here"] else "no"
    size = row["size"] or "any"
    money = "yes" if row["commercial"] else "no"
    same = {name: row[name] for name in ("name", "kind")}
    return {**same, "px": size, "licence": row["licence"], "commercial": money, "here": here}


def _file_lines(file: dict[str, Any]) -> list[str]:
    size = f"{file['bytes']:,} bytes" if file.get("bytes") else "size unknown"
    known = file.get("sha256") or "unknown until first seen"
    addresses = file.get("urls") or ["no known address: you have to find it yourself"]
    return [f"file: {file['file']}, {size}", f"  sha256: {known}", *(f"  from: {url}" for url in addresses)]


def _said(value: object) -> object:
    """A value as a line of text; of the rows that a training recorded step by step, only the last one and the count."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return {key: _said(part) for key, part in value.items()}
    if isinstance(value, list) and len(value) > 1 and all(isinstance(row, dict) and "step" in row for row in value):
        return f"{value[-1]} (the last of {len(value)})"
    return value


def _state(path: Path) -> str:
    from unfade.store.checkpoints import read_card, sha256_of

    known, found = read_card(path).get("sha256"), sha256_of(path)
    if known is None:
        return f"no hash was recorded; now it has sha256 {found}"
    return "unchanged" if known == found else f"changed: sha256 {known} was recorded, now it is {found}"


app.command("export")(export.export)
