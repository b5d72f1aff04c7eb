"""Does one adapted restorer give the same pictures in unfade, spandrel, ComfyUI, ONNX Runtime and a browser?

    python tools/five_hosts.py RESTORER [--faces 3]

RESTORER is a run folder, a file or a name. It is exported to the files that the programs open (float32), each of them
restores the same sample faces, and what is printed is the largest difference from the restorer itself, in levels of
0..255. spandrel and what is built on it hold networks that learn from pictures, such as small-swinir; of a one-step
restorer the others open the ONNX file, ComfyUI by unfade's node. What has to be installed is said in `comfyui_host.py`
and `browser_host.py`. The exit code is 0 if all five opened it and none is more than 1 level away.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

import browser_host
import comfyui_host
import unfade
from unfade.errors import UnfadeError
from unfade.hosts.export import export
from unfade.hosts.settings import ExportSettings
from unfade.images.files import from_bytes, read_image, to_bytes, write_png
from unfade.images.filters import resize
from unfade.images.finding import list_images
from unfade.restorers.spandrel import restored_by_spandrel

SAMPLES = Path(unfade.__file__).parent / "samples" / "held_out_photos"
LIMIT = 1.0  # level


class Missing(Exception):
    """A program that is not installed."""


@dataclass(frozen=True)
class Files:
    """A restorer as exported, into a folder."""

    spec: str
    folder: Path

    def onnx(self) -> Path:
        """The network with its weights. Raises BadInput."""
        return self._written("mine.onnx", "onnx")

    def weights(self) -> Path:
        """Weights under published keys. Raises BadInput for a network that spandrel does not know."""
        return self._written("mine.safetensors", "spandrel")

    def best(self) -> Path:
        """The weights if spandrel knows the network, else the ONNX file."""
        try:
            return self.weights()
        except unfade.BadInput:
            return self.onnx()

    def _written(self, name: str, to: str) -> Path:
        path = self.folder / name
        return path if path.exists() else export(self.spec, path, ExportSettings(to=to)).path


@dataclass(frozen=True)
class Shown:
    """What a program made of the faces."""

    by: str  # which program, and of which file
    faces: Tensor  # (B, 3, size, size) in [-1, 1]
    as_files: bool = False  # they come from files of 8 bits


def in_unfade(files: Files, faces: Tensor) -> Shown:
    """The exported file, opened again."""
    path = files.best()
    with torch.no_grad():
        return Shown(f"unfade {version('unfade')}, {path.name}", unfade.load_restorer(path, device="cpu")(faces))


def in_spandrel(files: Files, faces: Tensor) -> Shown:
    """The network that spandrel builds from the weights."""
    path = files.weights()
    restored = restored_by_spandrel(path, faces)  # raises BadInput if it cannot be imported
    return Shown(f"spandrel {version('spandrel')}, {path.name}", restored)


def in_comfyui(files: Files, faces: Tensor) -> Shown:
    """Its own loader of weights; unfade's node for what spandrel does not know."""
    if not comfyui_host.HOST:
        raise Missing("UNFADE_COMFYUI must name a checkout of ComfyUI.")
    path = files.best()
    own = path.suffix == ".safetensors"
    with comfyui_host.running(files.folder / "comfyui") as comfy:
        (comfy.folder / comfyui_host.MODELS / path.name).symlink_to(path)
        shown = []
        for number, face in enumerate(faces):
            write_png(comfy.folder / "input" / f"{number}.png", face)
            made_by = comfyui_host.by_its_own_loader if own else comfyui_host.by_the_node
            (picture,) = comfy.pictures(made_by(f"{number}.png", path.name if own else str(path)))
            shown.append(from_bytes(picture.astype(np.uint8)))
        what = "its own loader" if own else "unfade's node"
        return Shown(f"ComfyUI {comfy.version()}, {path.name} by {what}", torch.stack(shown), as_files=True)


def in_onnxruntime(files: Files, faces: Tensor) -> Shown:
    """A session as any program opens it."""
    path = files.onnx()  # raises BadInput without the extra
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (restored,) = session.run(["output"], {"input": faces.numpy()})
    return Shown(f"onnxruntime {onnxruntime.__version__}, {path.name}", torch.from_numpy(restored))


def in_browser(files: Files, faces: Tensor) -> Shown:
    """A page that nothing else is on."""
    if not (browser_host.DIST and browser_host.CHROMIUM):
        raise Missing("UNFADE_ORT_WEB must name `dist` of the npm package onnxruntime-web, and chromium be installed.")
    path = files.onnx()
    restored = browser_host.restored_in_a_browser(path, faces.numpy())
    return Shown(f"{browser_host.version()}, {path.name}", torch.from_numpy(restored))


HOSTS: dict[str, Callable[[Files, Tensor], Shown]] = {
    "unfade": in_unfade,
    "spandrel": in_spandrel,
    "ComfyUI": in_comfyui,
    "ONNX Runtime": in_onnxruntime,
    "browser": in_browser,
}


def main() -> None:
    """Print a line for each program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("restorer", help="run folder, file or name of a restorer")
    parser.add_argument("--faces", type=int, default=3, help="how many sample faces are restored")
    args = parser.parse_args()
    restorer = unfade.load_restorer(args.restorer, device="cpu")
    faces = sample_faces(args.faces, restorer.size)
    with torch.no_grad():
        expected = restorer(faces).clamp(-1, 1)
    print(f"{args.restorer}: {restorer.architecture}, {len(faces)} faces of {restorer.size} px")
    within = 0
    with TemporaryDirectory() as folder:
        files = Files(args.restorer, Path(folder))
        for host, opened in HOSTS.items():
            try:
                shown = opened(files, faces)
            except (UnfadeError, Missing) as error:
                print(f"{host:12}  not opened: {error}")
                continue
            except AssertionError as error:  # what the program itself said
                print(f"{host:12}  failed: {error}")
                continue
            off = levels_between(shown, expected)
            within += off <= LIMIT
            print(f"{host:12}  {off:.4f} levels  ({shown.by})")
    print(f"{within} of {len(HOSTS)} within {LIMIT:g} level")
    sys.exit(within < len(HOSTS))


def sample_faces(count: int, size: int) -> Tensor:
    """Faces that came with unfade, as a file of 8 bits holds them: (count, 3, size, size)."""
    return rounded(torch.cat([resize(read_image(path)[None], size, size) for path in list_images(SAMPLES)[:count]]))


def levels_between(shown: Shown, expected: Tensor) -> float:
    """The largest difference. Files are compared with those that unfade would write: it rounds, ComfyUI cuts off."""
    if shown.as_files:
        pairs = zip(shown.faces, expected, strict=True)
        return float(max(np.abs(to_bytes(a).astype(int) - to_bytes(b)).max() for a, b in pairs))
    return float((shown.faces.clamp(-1, 1) - expected).abs().max() * 127.5)


def rounded(faces: Tensor) -> Tensor:
    """As a file of 8 bits holds them."""
    return torch.stack([from_bytes(to_bytes(face)) for face in faces])


if __name__ == "__main__":
    main()
