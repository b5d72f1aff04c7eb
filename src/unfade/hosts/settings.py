"""How a restorer is written for other programs, and what came of it."""

from dataclasses import dataclass, fields
from pathlib import Path

import torch

from unfade.errors import BadInput
from unfade.restorers.layout import PLAIN, Layout

ENDINGS = {"onnx": ".onnx", "spandrel": ".safetensors", "published": ".pth"}
DTYPES = {"float32": torch.float32, "float16": torch.float16}
OPSETS = range(18, 24)  # that torch's exporter writes and onnxruntime runs
LEVEL = 2 / 255  # of 8 bits, in [-1, 1]
OF_ONNX = ("layout", "batch", "opset", "fidelity", "refine")  # settings that weights alone know nothing of


@dataclass(frozen=True)
class ExportSettings:
    """How a restorer is written, and how closely the file must agree with it."""

    to: str = "onnx"  # a key of ENDINGS: a whole program, weights for spandrel, or the file the network's authors read
    layout: Layout = PLAIN  # of the pictures that an ONNX file takes and gives
    dtype: str = "float32"  # of the stored weights; float16 halves the file and computes in float32 all the same
    batch: int | None = None  # faces per run; None: any number
    opset: int = 20  # version of the ONNX operators
    fidelity: float | None = None  # in 0..1, built into an ONNX file; None: the family's own
    refine: int | None = None  # evaluations after the first; None: the file's own, and only 0 can be exported
    tolerance: float = 1e-3  # largest difference of a value in [-1, 1]; an eighth of an 8-bit level
    faces: int = 3  # random faces that are compared, where the batch is not fixed
    seed: int = 0  # of these faces

    def __post_init__(self) -> None:
        if self.to not in ENDINGS:
            raise BadInput(f"A restorer is exported `to` {', '.join(ENDINGS)}, not {self.to}.")
        if self.dtype not in DTYPES:
            raise BadInput(f"The `dtype` of stored weights is {' or '.join(DTYPES)}, not {self.dtype}.")
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
        """The largest difference that is taken for rounding: one level of 8 bits where it is done on purpose."""
        rounded = self.dtype == "float16" or self.layout.values == "bytes"
        return max(self.tolerance, 1.01 * LEVEL) if rounded else self.tolerance


@dataclass(frozen=True)
class Checked:
    """How a written file was compared with the network that it was made from."""

    difference: float  # largest, of values in [-1, 1]
    by: str  # who read the file and ran it
    metadata: dict[str, str]  # in the file, where it has a place for it
    notes: tuple[str, ...] = ()  # what could not be asked


@dataclass(frozen=True)
class Exported:
    """What an export came to."""

    path: Path
    to: str
    size: int  # side of the faces, px
    checked: Checked


USUAL = ExportSettings()
