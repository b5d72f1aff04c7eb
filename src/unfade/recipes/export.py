"""A restorer -> one .onnx file, checked against the network before it is there."""

import warnings
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unfade.atomic import write_through
from unfade.errors import BadInput, OutputConflict
from unfade.images.filters import resize
from unfade.restorers.base import Restorer
from unfade.restorers.load import load_restorer
from unfade.restorers.onnx import INPUT, OUTPUT, RANGE, OnnxRestorer
from unfade.store.checkpoints import sha256_of
from unfade.store.seeds import seed_for
from unfade.training.modes import mode
from unfade.zoo.models import MODELS, find_weights, licence_of

OPSETS = range(18, 24)  # that torch's exporter writes and onnxruntime runs


@dataclass(frozen=True)
class ExportSettings:
    """How a restorer is written, and how closely the file must agree with it."""

    batch: int | None = None  # faces per run; None: any number
    opset: int = 20  # version of the ONNX operators
    tolerance: float = 1e-3  # largest difference of a value in [-1, 1]; an eighth of an 8-bit level
    faces: int = 3  # random faces that are compared, where the batch is not fixed
    seed: int = 0  # of these faces

    def __post_init__(self) -> None:
        if self.batch is not None and self.batch < 1:
            raise BadInput(f"A batch holds 1 face or more, got {self.batch}.")
        if self.opset not in OPSETS:
            raise BadInput(f"The opset must lie in {OPSETS[0]}..{OPSETS[-1]}, got {self.opset}.")


@dataclass(frozen=True)
class Exported:
    """What an export came to."""

    path: Path
    size: int  # side of the faces, px
    difference: float  # largest, of values in [-1, 1], between the file and the network
    metadata: dict[str, str]  # in the file


def export(spec: str | Path, out: Path, settings: ExportSettings = ExportSettings()) -> Exported:
    """Write a restorer, by its name, file or run folder, to `out`: (B, 3, size, size) float32 in [-1, 1] to the same.

    Raises BadInput for another ending than .onnx, without the extra, for a network that cannot be exported, and for a
    file that differs from the network by more than the tolerance (it is not kept); OutputConflict if `out` is there.
    """
    out = Path(out)
    if out.suffix.lower() != ".onnx":
        raise BadInput(f"{out} must end in .onnx, the format that is exported.")
    if out.exists():
        raise OutputConflict(f"{out} is there already; name another file as `out`, or remove it.")
    _need_extra()
    restorer = load_restorer(spec, device="cpu")
    if isinstance(restorer, OnnxRestorer):
        raise BadInput(f"{spec} is an exported restorer already; export the one that it was made from.")
    if restorer.refine:
        raise BadInput(f"{spec} refines with noise that each face seeds, which ONNX cannot: export it with refine 0.")
    metadata = _metadata(spec, restorer)
    differences = []

    def write(temporary: Path) -> None:
        program = _program(restorer, settings)
        program.model.metadata_props.update(metadata)
        program.save(temporary, external_data=False)
        differences.append(_agree(restorer, temporary, settings))

    with mode(False, restorer):
        write_through(out, write)
    return Exported(out, restorer.size, differences[0], metadata)


def random_faces(count: int, size: int, *, seed: int) -> Tensor:
    """(count, 3, size, size) in [-1, 1]: smooth colours and a little noise, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed_for("random faces", seed))
    smooth = resize(torch.rand(count, 3, 8, 8, generator=generator) * 2 - 1, size, size)
    return (smooth + 0.1 * torch.randn(smooth.shape, generator=generator)).clamp(-1, 1)


def _program(restorer: Restorer, settings: ExportSettings) -> Any:
    """torch's recommended exporter, by torch.export. An example of 1 would fix the batch to 1."""
    example = random_faces(settings.batch or 2, restorer.size, seed=settings.seed)
    shapes = None if settings.batch else ({0: torch.export.Dim("batch", min=1)},)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # they are about torch's own code: no user could act on them
        try:
            return torch.onnx.export(
                restorer,
                (example,),
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=settings.opset,
                dynamic_shapes=shapes,
                verbose=False,
                dynamo=True,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = (str(error.__cause__ or error).strip().splitlines() or [type(error).__name__])[0]
            raise BadInput(
                f"A {restorer.architecture} cannot be exported this way ({reason}); set `batch` to 1."
            ) from error


@torch.no_grad()
def _agree(restorer: Restorer, file: Path, settings: ExportSettings) -> float:
    """The largest difference on random faces: all together, and if the batch is not fixed also one alone."""
    exported = OnnxRestorer(file)
    faces = random_faces(settings.batch or settings.faces, restorer.size, seed=settings.seed + 1)
    groups = [faces] if settings.batch else [faces, faces[:1]]
    difference = max(float((exported(group) - restorer(group)).abs().max()) for group in groups)
    if not difference <= settings.tolerance:
        raise BadInput(
            f"The exported file differs from the network by {difference:.2g}, more than {settings.tolerance:.2g}, and "
            "was not kept; try another `opset`."
        )
    return difference


def _metadata(spec: str | Path, restorer: Restorer) -> dict[str, str]:
    path = find_weights(spec, "restorer")
    model = MODELS.get(str(spec))
    return {
        "name": model.name if model else Path(spec).stem,
        "architecture": restorer.architecture,
        "size": str(restorer.size),
        "range": RANGE,
        "licence": licence_of(spec, path),
        "source_sha256": sha256_of(path),
        "made_by": f"unfade {version('unfade')}, torch {torch.__version__}",
    }


def _need_extra() -> None:
    try:
        for name in ("onnx", "onnxscript", "onnxruntime"):
            import_module(name)
    except ImportError as error:
        raise BadInput(
            f"Exporting needs onnx, onnxscript and onnxruntime ({error}): run `pip install unfade[onnx]`."
        ) from error
