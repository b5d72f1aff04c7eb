"""The table of models: what there is by name, and where its file lies."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from unfade.errors import UnknownModel

Kind = Literal["prior", "restorer"]


@dataclass(frozen=True)
class Model:
    """One row of the table."""

    name: str
    kind: Kind
    architecture: str
    size: int  # side of its images in pixels
    licence: str
    author: str
    file: str  # of the package data


MODELS = {
    model.name: model
    for model in (
        Model("small-prior", "prior", "unet", 128, "CC BY-NC-SA 4.0", "unfade", "small-prior.safetensors"),
        Model("small-restorer", "restorer", "swinir", 128, "CC BY-NC-SA 4.0", "unfade", "small-restorer.safetensors"),
    )
}


def path_of(model: Model) -> Path:
    """The file of a built-in model."""
    return Path(str(files("unfade") / "weights" / model.file))


def find_weights(spec: str | Path, kind: Kind) -> Path:
    """The file that a name of the table, a path of a .safetensors file, or a run folder stands for.

    Raises UnknownModel, which lists the names there are.
    """
    model = MODELS.get(str(spec))
    if model and model.kind == kind:
        return path_of(model)
    path = Path(spec)
    if path.is_dir():
        path = path / f"{kind}.safetensors"
    if path.is_file():
        return path
    names = ", ".join(name for name, row in MODELS.items() if row.kind == kind)
    raise UnknownModel(f"There is no {kind} named {spec}, nor such a file or run folder; there are: {names}.")
