"""The settings and the outcome of an export for other programs."""

from dataclasses import dataclass, fields
from pathlib import Path

import torch

from unfade.errors import BadInput
from unfade.restorers.picture_layout import PLAIN, Layout

ENDINGS = {"onnx": ".onnx", "spandrel": ".safetensors", "published": ".pth"}
DTYPES = {"float32": torch.float32, "float16": torch.float16}
OPSETS = range(18, 24)  # that torch's exporter writes and onnxruntime runs
LEVEL = 2 / 255  # of 8 bits, in [-1, 1]
OF_ONNX = ("layout", "batch", "opset", "fidelity", "refine")  # settings that have no effect on files with weights only


@dataclass(frozen=True)
class ExportSettings:
    """How a restorer is exported, and how closely the file must agree with it."""

    to: str = "onnx"  # a key of ENDINGS: ONNX, weights for spandrel, or weights for the network's original code
    layout: Layout = PLAIN  # of the pictures that an ONNX file takes and returns
    dtype: str = "float32"  # of the stored weights; float16 halves the file, but it is still computed in float32
    batch: int | None = None  # faces per run; None: any number
    opset: int = 20  # version of the ONNX operators
    fidelity: float | None = None  # 0..1, built into an ONNX file; None: the restorer's default
    refine: int | None = None  # evaluations after the first; None: the file's own, and only 0 can be exported
    tolerance: float = 1e-3  # largest allowed difference of values in [-1, 1]; an eighth of an 8-bit level
    faces: int = 3  # random faces to compare, if the batch is not fixed
    seed: int = 0  # of these faces

    def __post_init__(self) -> None:
        if self.to not in ENDINGS:
            raise BadInput(f"Expected `to` to be one of {', '.join(ENDINGS)}, got {self.to}.")
        if self.dtype not in DTYPES:
            raise BadInput(f"Expected `dtype` to be {' or '.join(DTYPES)}, got {self.dtype}.")
        if self.batch is not None and self.batch < 1:
            raise BadInput(f"A batch holds 1 face or more, got {self.batch}.")
        if self.opset not in OPSETS:
            raise BadInput(f"The opset must lie in {OPSETS[0]}..{OPSETS[-1]}, got {self.opset}.")
        usual = {field.name: field.default for field in fields(self)}
        for name in OF_ONNX:
            if self.to != "onnx" and getattr(self, name) != usual[name]:
                raise BadInput(f"`{name}` is for ONNX files: leave it out, or export `to` onnx.")

    @property
    def allowed(self) -> float:
        """The largest difference that counts as rounding; one 8-bit level if values are rounded on purpose."""
        rounded = self.dtype == "float16" or self.layout.values == "bytes"
        return max(self.tolerance, 1.01 * LEVEL) if rounded else self.tolerance


@dataclass(frozen=True)
class Checked:
    """The comparison of an exported file with the network that it was made from."""

    difference: float  # largest difference, of values in [-1, 1]
    by: str  # the program that read and ran the file
    metadata: dict[str, str]  # of the file, if its format can hold any
    notes: tuple[str, ...] = ()  # what could not be checked


@dataclass(frozen=True)
class Exported:
    """The outcome of an export."""

    path: Path
    to: str
    size: int  # side of the faces, px
    checked: Checked


USUAL = ExportSettings()
