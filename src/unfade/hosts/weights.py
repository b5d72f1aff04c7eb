"""Export a restorer's weights with the keys and shapes that spandrel and the network's original code expect."""

from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unfade.errors import BadInput
from unfade.hosts.check import random_faces
from unfade.hosts.settings import DTYPES, Checked, ExportSettings
from unfade.nets.codeformer import CodeFormerConfig
from unfade.nets.gfpgan import GFPGANConfig
from unfade.nets.swinir import SwinIR
from unfade.restorers.base import Restorer
from unfade.restorers.image_level import SwinIRRestorer
from unfade.restorers.load import RESTORERS, load_restorer, save_restorer
from unfade.restorers.spandrel import restored_by_spandrel
from unfade.store.checkpoints import load_state
from unfade.store.foreign import read_foreign

FEATURES = 64  # channels of a SwinIR's last layers, which spandrel assumes
ONLY = {"gfpgan": GFPGANConfig(), "codeformer": CodeFormerConfig()}  # the one shape of each that spandrel builds
CONTAINERS = {"codeformer": "params_ema", "gfpgan": "params_ema", "vqfr": "params_ema", "swinir": ""}  # "": bare

Run = Callable[[Tensor], Tensor]


def write_spandrel(restorer: Restorer, path: Path, settings: ExportSettings, metadata: dict[str, str]) -> Checked:
    """Write a safetensors file that both spandrel and this package can load.

    It is checked by this package and, where that can be imported, by spandrel. Raises BadInput for a family that
    spandrel does not know.
    """
    restorer = _in_spandrels_shape(restorer)
    restorer.published = True
    save_restorer(path, restorer, dtype=DTYPES[settings.dtype], about=metadata)
    again = load_restorer(path, fidelity=restorer.fidelity, device="cpu")
    own = _difference(restorer, again, settings)
    try:
        theirs = _difference(restorer, lambda face: restored_by_spandrel(path, face), settings)
    except BadInput as error:
        return Checked(own, "unfade", metadata, (f"spandrel itself was not asked: {error}",))
    return Checked(max(own, theirs), f"unfade and spandrel {version('spandrel')}", metadata)


def write_published(restorer: Restorer, path: Path, settings: ExportSettings, metadata: dict[str, str]) -> Checked:
    """Write a file for the network's original code: plain tensors, pickled as torch does it.

    Such a file has no place for metadata. Raises BadInput for a family that was not published in this form.
    """
    if restorer.architecture not in CONTAINERS:
        raise BadInput(
            f"No other program reads the weights of a {restorer.architecture} in a file of its authors: export it `to` "
            "onnx, or `to` spandrel if it came from there."
        )
    state = {key: _stored(value, settings.dtype) for key, value in restorer.net.state_dict().items()}
    container = CONTAINERS[restorer.architecture]
    with path.open("wb") as file:  # if given a path, torch would write its name into the file
        torch.save({container: state} if container else state, file)
    again = RESTORERS[restorer.architecture]({"size": restorer.size, **restorer.config()}).eval()
    load_state(again.net, read_foreign(path), path)
    if restorer.fidelity is not None:
        again.set_fidelity(restorer.fidelity)
    return Checked(_difference(restorer, again, settings), "unfade", {})


def widened(restorer: SwinIRRestorer, features: int) -> SwinIRRestorer:
    """The same restorer with more channels in its last layers, all zero, so that results do not change."""
    net = restorer.net
    wide = SwinIR(replace(net.config, upsample_features=features)).eval()
    state = net.state_dict()
    wide.load_state_dict({key: _padded(state[key], like) for key, like in wide.state_dict().items()})
    return SwinIRRestorer(wide, restorer.size).eval()


def _in_spandrels_shape(restorer: Restorer) -> Restorer:
    """Raises BadInput if spandrel does not know the network."""
    if isinstance(restorer, SwinIRRestorer) and restorer.net.config.upsample_features <= FEATURES:
        return widened(restorer, FEATURES)
    config: Any = getattr(restorer.net, "config", None)
    known = ONLY.get(restorer.architecture)
    if restorer.architecture != "spandrel" and (known is None or known != config):
        what = "a" if known is None else "this shape of a"
        raise BadInput(f"spandrel does not know {what} {restorer.architecture}: export it `to` onnx.")
    return restorer


def _padded(value: Tensor, like: Tensor) -> Tensor:
    result = torch.zeros_like(like)
    result[tuple(slice(length) for length in value.shape)] = value
    return result


def _stored(value: Tensor, dtype: str) -> Tensor:
    """A copy: a view would bring the whole tensor behind it into the file."""
    return (value.to(DTYPES[dtype]) if value.is_floating_point() else value).detach().clone()


@torch.no_grad()
def _difference(restorer: Restorer, other: Run, settings: ExportSettings) -> float:
    faces = random_faces(settings.faces, restorer.size, seed=settings.seed + 1)
    return float((other(faces).clamp(-1, 1) - restorer(faces).clamp(-1, 1)).abs().max())
