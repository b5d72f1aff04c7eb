"""Export a restorer to an ONNX file, which ONNX Runtime can run on any machine and in a browser."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from unfade.errors import BadInput, first_line
from unfade.hosts.check import random_faces
from unfade.hosts.settings import Checked, ExportSettings
from unfade.restorers.base import Restorer
from unfade.restorers.onnx import OnnxRestorer
from unfade.restorers.picture_layout import MEAN_AND_STD, InLayout

INPUT, OUTPUT = "input", "output"  # the names that programs for face restorers look for
SMALL = 1024  # values; smaller tensors stay in float32, which includes every constant that is not a weight


def write_onnx(restorer: Restorer, path: Path, settings: ExportSettings, metadata: dict[str, str]) -> Checked:
    """Write `path` and run it on random faces. Raises BadInput for a network that cannot be exported."""
    if restorer.refine:
        raise BadInput(
            f"This {restorer.architecture} refines with noise that each face seeds, which ONNX cannot: set `refine` to "
            "0."
        )
    mean, std = MEAN_AND_STD[settings.layout.values]
    # a value v in [0, 1] is (v - mean) / std in the file's own range
    metadata = {**metadata, "layout": str(settings.layout), "mean": str(mean), "std": str(std)}
    program = _program(InLayout(restorer, settings.layout).eval(), settings)
    if settings.dtype == "float16":
        _store_halves(program.model)
    program.model.metadata_props.update(metadata)
    program.save(path, external_data=False)
    return Checked(_difference(restorer, path, settings), f"onnxruntime {version('onnxruntime')}", metadata)


def need_extra() -> None:
    """Raises BadInput without the packages."""
    try:
        for name in ("onnx", "onnxscript", "onnxruntime"):
            import_module(name)
    except ImportError as error:
        raise BadInput(
            f"Exporting needs onnx, onnxscript and onnxruntime ({error}): run `pip install unfade[onnx]`."
        ) from error


def _program(network: InLayout, settings: ExportSettings) -> Any:
    """torch's recommended exporter, by torch.export.

    Any number of faces is traced with two. torch.export promises an open batch only for examples of two or more; with
    an example of one, torch 2.13 and 2.14 were seen to keep that of a convolution open.
    """
    restorer = network.restorer
    faces = random_faces(settings.batch or 2, restorer.size, seed=settings.seed)
    shapes = None if settings.batch else ({0: torch.export.Dim("batch", min=1)},)
    with _quiet(), torch.no_grad():
        try:
            return torch.onnx.export(
                network,
                (network.layout.picture_of(faces).contiguous(),),
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=settings.opset,
                dynamic_shapes=shapes,
                verbose=False,
                dynamo=True,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = first_line(error.__cause__ or error)
            raise BadInput(
                f"A {restorer.architecture} cannot be exported this way ({reason}); set `batch` to 1."
            ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter warns and logs: it is about torch's own code, and packages that no restorer needs."""
    logger = logging.getLogger("torch.onnx._internal.exporter")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _store_halves(model: Any) -> None:
    """Store the weights of a graph as float16, with a cast to float32 at its start for each."""
    ir = import_module("onnx_ir")
    graph = model.graph
    for name, value in list(graph.initializers.items()):
        if value.dtype != ir.DataType.FLOAT or value.const_value.size < SMALL:
            continue
        half = ir.Value(
            name=f"{name}.float16",
            shape=value.shape,
            type=ir.TensorType(ir.DataType.FLOAT16),
            const_value=ir.tensor(value.const_value.numpy().astype("float16"), name=f"{name}.float16"),
        )
        cast = ir.node("Cast", [half], {"to": ir.DataType.FLOAT.value}, name=f"{name}.cast")
        cast.outputs[0].name, cast.outputs[0].shape, cast.outputs[0].type = f"{name}.float32", value.shape, value.type
        graph.insert_before(graph[0], cast)
        ir.convenience.replace_all_uses_with(value, cast.outputs[0])
        del graph.initializers[name]
        graph.register_initializer(half)


@torch.no_grad()
def _difference(restorer: Restorer, file: Path, settings: ExportSettings) -> float:
    """The largest difference on random faces: on all together and, if the batch is not fixed, on one alone."""
    exported, layout = OnnxRestorer(file), settings.layout
    faces = random_faces(settings.batch or settings.faces, restorer.size, seed=settings.seed + 1)
    groups = [faces] if settings.batch else [faces, faces[:1]]

    def off(group: torch.Tensor) -> float:
        restored = layout.face_of(InLayout(restorer, layout)(layout.picture_of(group)))
        return float((exported(group) - restored).abs().max())

    return max(map(off, groups))
