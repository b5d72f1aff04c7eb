"""ComfyUI without a window, with unfade's nodes and no others in it, driven over HTTP.

UNFADE_COMFYUI names a checkout of ComfyUI, UNFADE_COMFYUI_PYTHON the Python that runs it (this one, if not said).
"""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HOST = os.environ.get("UNFADE_COMFYUI", "")
PYTHON = os.environ.get("UNFADE_COMFYUI_PYTHON", sys.executable)
PACK = Path(__file__).resolve().parents[1] / "integrations" / "comfyui"
MODELS = "models/upscale_models"  # where ComfyUI's own loader looks for networks that spandrel knows
STARTS, WORKS = 300, 1200  # seconds that it may take to start, and to do what was queued
Prompt = dict[str, dict[str, Any]]  # nodes by their numbers


@dataclass
class Comfy:
    """A running ComfyUI."""

    folder: Path  # with `input`, `output` and `models`
    address: str

    def ask(self, path: str, body: object = None) -> Any:
        """What it answers to a request; a body makes it a POST."""
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"{self.address}{path}", data, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def queue(self, prompt: Prompt) -> str:
        """The number of a prompt that it takes. Raises AssertionError with what it said otherwise."""
        try:
            return str(self.ask("/prompt", {"prompt": prompt})["prompt_id"])
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error

    def outcome(self, prompt_id: str) -> dict[str, Any]:
        """What the history says once the prompt has ended."""
        for _ in range(WORKS):
            if found := self.ask(f"/history/{prompt_id}"):
                return dict(found[prompt_id])
            time.sleep(1)
        raise AssertionError("the prompt did not end")

    def pictures(self, prompt: Prompt) -> list[NDArray[np.int64]]:
        """What SaveImage wrote: (h, w, 3) in 0..255."""
        found = self.outcome(self.queue(prompt))
        assert found["status"]["status_str"] == "success", found["status"]
        files = [image["filename"] for output in found["outputs"].values() for image in output.get("images", [])]
        return [levels_of(self.folder / "output" / name) for name in files]

    def version(self) -> str:
        """Of ComfyUI."""
        return str(self.ask("/system_stats")["system"]["comfyui_version"])


@contextmanager
def running(folder: Path) -> Iterator[Comfy]:
    """ComfyUI with an empty folder for its files, until the end. Raises AssertionError if it does not start."""
    for name in ("custom_nodes", "input", "web", MODELS):
        (folder / name).mkdir(parents=True)
    (folder / "web" / "index.html").touch()
    (folder / "custom_nodes" / "unfade").symlink_to(PACK)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [PYTHON, "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(port)]
    command += ["--base-directory", str(folder), "--front-end-root", str(folder / "web")]
    environment = {**os.environ, "PYTHONPATH": str(PACK.parents[1] / "src"), "UNFADE_OFFLINE": "1"}
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(command, cwd=HOST, env=environment, stdout=log, stderr=log)
        try:
            comfy = Comfy(folder, f"http://127.0.0.1:{port}")
            _wait_for(comfy, process)
            yield comfy
        finally:
            process.terminate()
            process.wait(30)


def _wait_for(comfy: Comfy, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(STARTS):
        assert process.poll() is None, (comfy.folder / "log.txt").read_text()[-3000:]
        try:
            comfy.ask("/queue")
        except OSError:
            time.sleep(1)
        else:
            return
    raise AssertionError((comfy.folder / "log.txt").read_text()[-3000:])


def levels_of(path: Path) -> NDArray[np.int64]:
    """(h, w, 3) in 0..255."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(np.int64)


def by_its_own_loader(picture: str, model: str) -> Prompt:
    """Load a picture of `input`, run a network of `MODELS` on it, save the result."""
    return _saved(picture, {"class_type": "UpscaleModelLoader", "inputs": {"model_name": model}}, "3") | {
        "3": {"class_type": "ImageUpscaleWithModel", "inputs": {"upscale_model": ["2", 0], "image": ["1", 0]}}
    }


def by_the_node(picture: str, restorer: str) -> Prompt:
    """Load a picture of `input` that is one face, restore it with unfade's node, save the result."""
    inputs = {"restorer": ["2", 0], "image": ["1", 0], "strength": 1.0}
    loader = {"class_type": "UnfadeLoadRestorer", "inputs": {"restorer": restorer, "fidelity": -1.0}}
    return _saved(picture, loader, "3") | {"3": {"class_type": "UnfadeRestoreAlignedFaces", "inputs": inputs}}


def _saved(picture: str, loader: dict[str, Any], last: str) -> Prompt:
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": picture}},
        "2": loader,
        "4": {"class_type": "SaveImage", "inputs": {"images": [last, 0], "filename_prefix": "unfade"}},
    }
