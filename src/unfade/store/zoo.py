"""The table of models: what there is by name, and where its file lies."""

import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from unfade.errors import UnknownModel

Kind = Literal["prior", "restorer", "perceptual", "demosaic"]


@dataclass(frozen=True)
class Model:
    """One row of the table."""

    name: str
    kind: Kind
    architecture: str
    size: int  # side of its images in pixels; 0: any
    licence: str
    author: str
    built_in: bool  # comes with the package; otherwise its files are fetched by the user and imported once

    @property
    def file(self) -> str:
        """Name of its file."""
        return f"{self.name}.safetensors"


MODELS = {
    model.name: model
    for model in (
        Model("small-prior", "prior", "unet", 128, "CC BY-NC-SA 4.0", "unfade", True),
        Model("small-restorer", "restorer", "swinir", 128, "CC BY-NC-SA 4.0", "unfade", True),
        Model("lpips-vgg", "perceptual", "lpips", 0, "BSD-2-Clause and BSD-3-Clause", "Zhang et al. 2018", False),
        Model("demosaic-bayer", "demosaic", "demosaicnet", 0, "MIT", "Gharbi et al. 2016", True),
    )
}


def path_of(model: Model) -> Path:
    """Where the file of a model lies, or would lie: in the package, or in the user's folder of imported models.

    That folder is $UNFADE_WEIGHTS, or ~/.cache/unfade.
    """
    if model.built_in:
        return Path(str(files("unfade") / "weights" / model.file))
    return Path(os.environ.get("UNFADE_WEIGHTS") or Path.home() / ".cache" / "unfade") / model.file


def find_weights(spec: str | Path, kind: Kind) -> Path:
    """The file that a name of the table, a path of a .safetensors file, or a run folder stands for.

    Raises UnknownModel, which lists the names there are.
    """
    model = MODELS.get(str(spec))
    if model and model.kind == kind:
        return _present(model)
    path = Path(spec)
    if path.is_dir():
        path = path / f"{kind}.safetensors"
    if path.is_file():
        return path
    names = ", ".join(name for name, row in MODELS.items() if row.kind == kind)
    raise UnknownModel(f"There is no {kind} named {spec}, nor such a file or run folder; there are: {names}.")


def _present(model: Model) -> Path:
    path = path_of(model)
    if not path.exists():
        how = "install unfade again" if model.built_in else f"import its files with `unfade models import {model.name}`"
        raise UnknownModel(f"The weights of {model.name} are not at {path}; {how}.")
    return path
