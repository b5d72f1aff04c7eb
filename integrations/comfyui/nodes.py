"""The nodes. They hand pictures to unfade as files, so that a picture comes out as `unfade restore` makes it."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import folder_paths
import numpy as np
import torch
from comfy import model_management
from comfy.utils import ProgressBar
from comfy_api.latest import io
from PIL import Image
from torch import Tensor

import unfade

CATEGORY = "image/unfade"
FIDELITY = "0: the cleanest face, 1: the closest to the input; -1: as the restorer was made"


@dataclass(frozen=True)
class Chosen:
    """A restorer and how it is run."""

    spec: str  # name of a restorer, file of weights, or folder of an adaptation
    fidelity: float | None  # None: the restorer's own


RestorerType = io.Custom("UNFADE_RESTORER")


class LoadRestorer(io.ComfyNode):
    """Choose a restorer, and complain at once about one that is not there."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        spec = io.String.Input(
            "restorer", default="small-restorer", tooltip="A name, a file of weights, or the folder of an adaptation"
        )
        fidelity = io.Float.Input("fidelity", default=-1.0, min=-1.0, max=1.0, step=0.05, tooltip=FIDELITY)
        return io.Schema(
            node_id="UnfadeLoadRestorer",
            display_name="Load Face Restorer (unfade)",
            category=CATEGORY,
            inputs=[spec, fidelity],
            outputs=[RestorerType.Output(display_name="restorer")],
        )

    @classmethod
    def fingerprint_inputs(cls, restorer: str, fidelity: float) -> object:
        return restorer, fidelity, _changed(restorer)

    @classmethod
    def execute(cls, restorer: str, fidelity: float) -> io.NodeOutput:
        chosen = Chosen(restorer, None if fidelity < 0 else fidelity)
        unfade.load_restorer(chosen.spec, fidelity=chosen.fidelity, device="cpu")
        return io.NodeOutput(chosen)


class RestoreFaces(io.ComfyNode):
    """Find the faces of pictures, restore them and put them back."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UnfadeRestoreFaces",
            display_name="Restore Faces (unfade)",
            category=CATEGORY,
            description="Faces are found, aligned, restored and put back; all else stays as it is.",
            inputs=_restoring(),
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, restorer: Chosen, image: Tensor, strength: float) -> io.NodeOutput:
        return io.NodeOutput(_restored(image, restorer, strength, aligned=False))


class RestoreAlignedFaces(io.ComfyNode):
    """Restore pictures that are one face each."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UnfadeRestoreAlignedFaces",
            display_name="Restore Aligned Faces (unfade)",
            category=CATEGORY,
            description="For square pictures that are one face each, framed as in FFHQ.",
            inputs=_restoring(),
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, restorer: Chosen, image: Tensor, strength: float) -> io.NodeOutput:
        return io.NodeOutput(_restored(image, restorer, strength, aligned=True))


class AdaptRestorer(io.ComfyNode):
    """Adapt a restorer to a folder of photos. A run that was cancelled goes on where it stopped."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        photos = io.String.Input("photos", tooltip="Folder of degraded photos on the machine that runs ComfyUI")
        run = io.String.Input("run", default="unfade/run", tooltip="Folder to fill, below ComfyUI's output folder")
        steps = io.Int.Input("steps", default=80, min=1, max=100_000, tooltip="Of fine-tuning")
        aligned = io.Boolean.Input("aligned", default=False, tooltip="The pictures are square face crops already")
        return io.Schema(
            node_id="UnfadeAdaptRestorer",
            display_name="Adapt Face Restorer (unfade)",
            category=CATEGORY,
            inputs=[RestorerType.Input("restorer"), photos, run, steps, aligned],
            outputs=[RestorerType.Output(display_name="adapted"), io.String.Output(display_name="report")],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, photos: str, **others: object) -> object:
        return [(str(path), _changed(path)) for path in sorted(Path(photos).rglob("*"))]

    @classmethod
    def execute(cls, restorer: Chosen, photos: str, run: str, steps: int, aligned: bool) -> io.NodeOutput:
        settings = unfade.settings_for(restorer.spec)
        loop = replace(settings.finetune.loop, steps=steps)
        fidelity = settings.fidelity if restorer.fidelity is None else restorer.fidelity
        settings = replace(settings, finetune=replace(settings.finetune, loop=loop), fidelity=fidelity)
        with _in_host() as (device, progress):
            done = unfade.adapt(photos, _below_output(run), settings, aligned=aligned, device=device, progress=progress)
        for name, reason in done.failures:
            logging.warning("unfade: %s: %s", name, reason)
        return io.NodeOutput(Chosen(str(done.restorer), restorer.fidelity), str(done.report))


class Cancelled(BaseException):
    """The user has stopped the run. No Exception: a stage would take it for one bad photo, and go on."""


def _restoring() -> list[io.Input]:
    strength = io.Float.Input("strength", default=1.0, min=0.0, max=1.0, step=0.05, tooltip="0: faces as they are")
    return [RestorerType.Input("restorer"), io.Image.Input("image"), strength]


def _restored(image: Tensor, restorer: Chosen, strength: float, *, aligned: bool) -> Tensor:
    """(B, H, W, 3 or 4) in [0, 1] to the same; pixels that no face covers, and alpha, keep their very values."""
    colours = image[..., :3].float()
    levels = (colours.cpu().numpy() * 255).round().clip(0, 255).astype(np.uint8)
    with TemporaryDirectory() as folder:
        photos, out = Path(folder, "photos"), Path(folder, "restored")
        photos.mkdir()
        for i, picture in enumerate(levels):
            Image.fromarray(picture).save(photos / f"{i:06d}.png", compress_level=1)
        with _in_host() as (device, progress):
            settings = unfade.RestoreSettings(fidelity=restorer.fidelity, strength=strength, provenance=False)
            entries = unfade.restore(
                photos, out, restorer.spec, settings, aligned=aligned, device=device, progress=progress
            )
        result = image.clone()
        for entry in entries:
            if entry.status == "failed":
                raise RuntimeError(f"Picture {int(Path(entry.item).stem)} of the batch: {entry.reason}")
            if entry.status == "done":
                number = int(Path(entry.item).stem)
                result[number, ..., :3] = _changed_pixels(colours[number], levels[number], out / entry.output)
    return result


def _changed_pixels(picture: Tensor, before: np.ndarray, restored: Path) -> Tensor:
    with Image.open(restored) as file:
        after = np.array(file.convert("RGB"))
    where = torch.from_numpy(after != before).to(picture.device)
    return torch.where(where, torch.from_numpy(after).to(picture) / 255, picture)


@contextmanager
def _in_host() -> Iterator[tuple[str, unfade.Progress]]:
    """The host's device and its bar; a run that the user stops ends as the host wants it.

    The host runs nodes in inference mode, whose tensors cannot learn.
    """
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield str(model_management.get_torch_device()), _bar
    except Cancelled:
        model_management.throw_exception_if_processing_interrupted()


@contextmanager
def _bar(label: str, total: int, *, start: int = 0) -> Iterator[Callable[[float], None]]:
    """The host's bar under the node, from the beginning for each stage."""
    bar = ProgressBar(total)
    done = float(start)

    def advance(amount: float) -> None:
        nonlocal done
        if model_management.processing_interrupted():
            raise Cancelled(label)
        done += amount
        bar.update_absolute(done)

    advance(0)
    yield advance


def _below_output(run: str) -> Path:
    """Raises ValueError for a folder outside of the host's: whoever reaches the page may name one."""
    root = Path(folder_paths.get_output_directory()).resolve()
    folder = (root / run).resolve()
    if folder == root or not folder.is_relative_to(root):
        raise ValueError(f"The run {run} must be a folder below {root}.")
    return folder


def _changed(spec: str | Path) -> float:
    """When what a spec stands for was changed last; 0 for a name."""
    path = Path(spec)
    path = path / "restorer.safetensors" if (path / "restorer.safetensors").exists() else path
    return path.stat().st_mtime if path.exists() else 0.0
