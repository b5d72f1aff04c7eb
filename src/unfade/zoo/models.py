"""The table of models: their names, and where their files are."""

import json
import os
import shlex
from importlib.resources import files
from pathlib import Path
from typing import Any

from unfade.atomic import atomic_write
from unfade.errors import UnknownModel
from unfade.nets.architecture import Kind
from unfade.zoo.published import PUBLISHED, Model

BUILT_IN = (
    Model("small-prior", "prior", "unet", 128, "CC BY-NC-SA 4.0", "unfade"),
    Model("small-prior-256", "prior", "unet", 256, "CC BY-NC-SA 4.0", "unfade"),
    Model("small-restorer", "restorer", "one_step", 128, "CC BY-NC-SA 4.0", "unfade"),
    Model("small-restorer-256", "restorer", "one_step", 256, "CC BY-NC-SA 4.0", "unfade"),
    Model("small-swinir", "restorer", "swinir", 128, "CC BY-NC-SA 4.0", "unfade"),
    Model("damage", "damage", "damage", 128, "CC BY-NC-SA 4.0", "unfade"),
    Model("demosaic-bayer", "demosaic", "demosaicnet", 0, "MIT", "Gharbi et al. 2016"),
    Model("yunet", "detector", "onnx", 0, "MIT", "Wu et al. 2023"),
    Model("niqe-pristine", "quality", "niqe", 0, "LIVE", "Mittal et al. 2013"),
    Model("dlib-face", "identity", "dlib-face", 150, "CC0 1.0", "King 2017"),
)
MODELS = {model.name: model for model in (*BUILT_IN, *PUBLISHED)}


def weights_folder() -> Path:
    """The user's folder of imported models: $UNFADE_WEIGHTS, or ~/.cache/unfade."""
    return Path(os.environ.get("UNFADE_WEIGHTS") or Path.home() / ".cache" / "unfade")


def offline() -> bool:
    """Whether UNFADE_OFFLINE forbids connections."""
    return os.environ.get("UNFADE_OFFLINE", "0") not in ("", "0")


def path_of(model: Model) -> Path:
    """The path of a model's file, existing or not: in the package, or in the user's folder of imported models."""
    if model.built_in:
        return Path(str(files("unfade") / "weights" / model.file))
    return weights_folder() / model.file


def row_of(name: str) -> Model:
    """The row of that name. Raises UnknownModel, which lists the known names."""
    if name not in MODELS:
        raise UnknownModel(f"There is no model named {name}; there are: {', '.join(MODELS)}.")
    return MODELS[name]


def find_weights(spec: str | Path, kind: Kind) -> Path:
    """The file of weights for a name, the path of a .safetensors file, or a run folder.

    A name is one of the table, or one that the user gave to an imported file. Raises UnknownModel, which lists the
    known names or, for a file that is missing, gives the command that gets it.
    """
    model = MODELS.get(str(spec))
    if model and model.kind == kind:
        return present(model)
    path = Path(spec)
    if path.is_dir():
        path = path / f"{kind}.safetensors"
    if path.is_file():
        return path
    added = {name: path for name, path in imported().items() if card_of(path).get("kind") == kind}
    if str(spec) in added:
        return added[str(spec)]
    names = ", ".join([*(name for name, row in MODELS.items() if row.kind == kind), *added])
    raise UnknownModel(f"There is no {kind} named {spec}, nor such a file or run folder; there are: {names}.")


def licence_of(spec: str | Path, path: Path) -> str:
    """The licence of a model with the file `path`: the table's, or the card's beside the file, or its header's.

    It is "unknown" where none of these says anything.
    """
    from unfade.store.foreign import header_of  # as in `card_of`

    model = MODELS.get(str(spec))
    return model.licence if model else str({**header_of(path), **card_of(path)}.get("licence", "unknown"))


def find_named(name: str) -> Path:
    """The file of a model of any kind by its name. Raises UnknownModel as `find_weights` does."""
    added = imported()
    return added[name] if name in added else present(row_of(name))


def imported() -> dict[str, Path]:
    """The user's files under names that are not in the table."""
    found = sorted(path for path in weights_folder().glob("*.safetensors") if card_of(path))
    return {path.stem: path for path in found if path.stem not in MODELS}


def card_of(weights: Path) -> dict[str, Any]:
    """The card beside the weights; empty if there is none."""
    from unfade.store.checkpoints import read_card  # needs torch, which a list of models should not wait for

    return read_card(weights)


def installed(kind: Kind | None = None) -> list[str]:
    """The names of the models of a kind, or of all, whose files are here, the user's own last."""
    listed = [name for name, model in MODELS.items() if kind in (None, model.kind) and path_of(model).exists()]
    return listed + [name for name, path in imported().items() if kind in (None, card_of(path).get("kind"))]


def present(model: Model) -> Path:
    """The file of a model. Raises UnknownModel, with the command that gets it, if it is missing."""
    path = path_of(model)
    if not path.exists():
        raise UnknownModel(f"The weights of {model.name} are not at {path}; {how_to_get(model)}.")
    return path


def how_to_get(model: Model) -> str:
    """How to get a model that is missing, as the end of a sentence."""
    if model.built_in:
        return "install unfade again"
    addresses = [download.urls[0] for download in model.downloads if download.urls]
    if len(addresses) < len(model.downloads):
        names = " and ".join(download.file for download in model.downloads)
        return f"find {names} (see {model.source}) and run `{import_command(model)}`"
    if offline():
        where = " and ".join(addresses)
        return f"UNFADE_OFFLINE is set, so fetch {where} elsewhere and run `{import_command(model)}`"
    return f"fetch them with `unfade models pull {model.name}`"


def import_command(model: Model) -> str:
    """The command that imports files fetched by hand."""
    return shlex.join(["unfade", "models", "import", *(d.file for d in model.downloads), "--as", model.name])


def is_accepted(licence: str) -> bool:
    """Whether the user has accepted a licence on this machine."""
    return licence in _accepted()


def accept(licence: str) -> None:
    """Remember, in the folder of weights, that the user accepts a licence."""
    atomic_write(_licences(), json.dumps(sorted({*_accepted(), licence}), indent=2) + "\n")


def _licences() -> Path:
    return weights_folder() / "accepted_licences.json"


def _accepted() -> list[str]:
    path = _licences()
    try:
        found = json.loads(path.read_bytes()) if path.exists() else []
    except ValueError:
        return []
    return [licence for licence in found if isinstance(licence, str)] if isinstance(found, list) else []
