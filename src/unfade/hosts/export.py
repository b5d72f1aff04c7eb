"""Export a restorer to one file for other programs, after checking that it agrees with the network."""

from collections.abc import Callable
from importlib.metadata import version
from os.path import lexists
from pathlib import Path

import torch

from unfade.atomic import write_through
from unfade.errors import BadInput, OutputConflict
from unfade.hosts.onnx import need_extra, write_onnx
from unfade.hosts.settings import ENDINGS, USUAL, Checked, Exported, ExportSettings
from unfade.hosts.weights import write_published, write_spandrel
from unfade.restorers.base import Restorer
from unfade.restorers.load import load_restorer
from unfade.restorers.onnx import OnnxRestorer
from unfade.store.checkpoints import sha256_of
from unfade.training.modes import mode
from unfade.zoo.models import MODELS, find_weights, licence_of

Writer = Callable[[Restorer, Path, ExportSettings, dict[str, str]], Checked]
WRITERS: dict[str, Writer] = {"onnx": write_onnx, "spandrel": write_spandrel, "published": write_published}


def export(spec: str | Path, out: Path, settings: ExportSettings = USUAL) -> Exported:
    """Export a restorer, given by its name, file or run folder, to `out` in the format `settings.to`.

    Raises BadInput for another ending than the format's, without the extra that it needs, for a network that cannot be
    written so, and for a file that differs from the network by more than is allowed (it is not kept); OutputConflict
    if `out` is there.
    """
    out = Path(out)
    if out.suffix.lower() != ENDINGS[settings.to]:
        raise BadInput(f"{out} must end in {ENDINGS[settings.to]}, the file ending for exporting `to` {settings.to}.")
    if lexists(out):
        raise OutputConflict(f"{out} is there already; name another file as `out`, or remove it.")
    if settings.to == "onnx":
        need_extra()
    restorer = load_restorer(spec, fidelity=settings.fidelity, refine=settings.refine, device="cpu")
    if isinstance(restorer, OnnxRestorer):
        raise BadInput(f"{spec} is already an exported restorer; export the one that it was made from.")
    metadata = _metadata(spec, restorer)
    checked: list[Checked] = []

    def write(temporary: Path) -> None:
        checked.append(WRITERS[settings.to](restorer, temporary, settings, metadata))
        if not checked[0].difference <= settings.allowed:
            raise BadInput(
                f"The exported file differs from the network by {checked[0].difference:.2g}, more than "
                f"{settings.allowed:.2g}, and was not kept; export it in another format, or with another `opset`."
            )

    with mode(False, restorer):
        write_through(out, write)
    return Exported(out, settings.to, restorer.size, checked[0])


def _metadata(spec: str | Path, restorer: Restorer) -> dict[str, str]:
    path = find_weights(spec, "restorer")
    model = MODELS.get(str(spec))
    return {
        "name": model.name if model else Path(spec).stem,
        "architecture": restorer.architecture,
        "size": str(restorer.size),
        "template": "ffhq",  # how faces are aligned
        "licence": licence_of(spec, path),
        "restorer_sha256": sha256_of(path),
        "made_by": f"unfade {version('unfade')}, torch {torch.__version__}",
    }
