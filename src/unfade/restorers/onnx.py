"""A restorer that was exported with `unfade models export`, run by onnxruntime. It cannot learn."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unfade.errors import BadCheckpoint, BadInput, first_line
from unfade.restorers.base import OnlyRestores
from unfade.restorers.picture_layout import PLAIN, Layout, layout_of
from unfade.store.onnx_files import refuse_external

ARCHITECTURE = "onnx"
RANGE = "RGB in [-1, 1]"  # the "range" in the metadata of older files, which have no "layout"


class OnnxRestorer(OnlyRestores):
    """A restorer in an ONNX file. If the file needs a fixed number of faces, batches are padded with the last face."""

    architecture = ARCHITECTURE

    def __init__(self, path: Path, device: torch.device | str = "cpu") -> None:
        """Raises BadInput without the extra or the device, BadCheckpoint for a file that `export` did not write."""
        super().__init__()
        self.path = path
        self.session = open_session(path, torch.device(device))
        self.metadata = metadata_of(self.session, path)
        self.size = int(self.metadata["size"])
        self.layout = _layout(self.metadata, path)
        (taken,), (given,) = self.session.get_inputs(), self.session.get_outputs()
        self.names: tuple[str, str] = taken.name, given.name
        rows = taken.shape[0]
        self.batch: int | None = rows if isinstance(rows, int) else None  # None: any number
        # an empty parameter, since callers ask the first parameter for the device
        self.place = nn.Parameter(torch.empty(0, device=device), requires_grad=False)

    @torch.no_grad()
    def forward(self, face: Tensor) -> Tensor:
        picture = self.layout.picture_of(face.float().cpu())
        parts = [self._run(part) for part in torch.split(picture, self.batch or len(face))]
        return self.layout.face_of(torch.cat(parts)).to(face.device)

    def _run(self, picture: Tensor) -> Tensor:
        missing = (self.batch or len(picture)) - len(picture)
        whole = torch.cat([picture, *[picture[-1:]] * missing])
        taken, given = self.names
        (restored,) = self.session.run([given], {taken: whole.contiguous().numpy()})
        return torch.from_numpy(restored)[: len(picture)]

    @property
    def refusal(self) -> str:
        """Its file already holds everything."""
        return f"{self.path} can restore but not learn: adapt the restorer that it was exported from, and export that."


def load_onnx(path: Path, device: torch.device | str = "cpu") -> OnnxRestorer:
    """An ONNX restorer in evaluation mode. Raises what `OnnxRestorer` raises."""
    restorer: OnnxRestorer = OnnxRestorer(path, device).eval()
    return restorer


def onnx_size(path: Path) -> int:
    """Side of the faces in px. Raises as `OnnxRestorer` does."""
    return OnnxRestorer(path).size


def open_session(path: Path, device: torch.device) -> Any:
    """An onnxruntime session on a CUDA device or on the CPU. Raises BadInput or BadCheckpoint."""
    refuse_external(path)
    runtime = _onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    provider = _provider(runtime, device)
    try:
        session = runtime.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:  # onnxruntime raises a dozen kinds of errors for a damaged file
        reason = first_line(error)
        raise BadCheckpoint(f"{path} is not a file that onnxruntime can run ({reason}); export it again.") from error
    if session.get_providers()[0] != provider[0]:  # it only warns when CUDA's libraries are not found
        raise BadInput(_no_cuda(device))
    return session


def metadata_of(session: Any, path: Path) -> dict[str, str]:
    """The metadata that `unfade models export` wrote into the file. Raises BadCheckpoint for other files."""
    found = dict(session.get_modelmeta().custom_metadata_map)
    if not ("layout" in found or found.get("range") == RANGE) or "size" not in found:
        raise BadCheckpoint(
            f"{path} has no metadata about its faces and their layout: use a file written by `unfade models export`."
        )
    return found


def _layout(metadata: Mapping[str, str], path: Path) -> Layout:
    if "layout" not in metadata:
        return PLAIN
    try:
        return layout_of(metadata["layout"].split(","))
    except BadInput as error:
        raise BadCheckpoint(f"{path} has an unknown layout ({error}); export it again.") from error


def _provider(runtime: Any, device: torch.device) -> tuple[str, dict[str, str]]:
    if device.type != "cuda":
        return "CPUExecutionProvider", {}
    if "CUDAExecutionProvider" not in runtime.get_available_providers():
        raise BadInput(_no_cuda(device))
    return "CUDAExecutionProvider", {"device_id": str(device.index or 0)}


def _no_cuda(device: torch.device) -> str:
    return (
        f"This onnxruntime cannot use {device}: install onnxruntime-gpu in place of onnxruntime, or set `device` to "
        "cpu."
    )


def _onnxruntime() -> Any:
    try:
        return import_module("onnxruntime")
    except ImportError as error:
        raise BadInput(f"Files ending in .onnx need onnxruntime ({error}): run `pip install unfade[onnx]`.") from error
