"""The nodes in a running ComfyUI, driven over HTTP: the same pictures as `unfade restore` makes, runs, cancelling.

UNFADE_COMFYUI names a checkout of ComfyUI, UNFADE_COMFYUI_PYTHON the Python that runs it (this one, if not said).
"""

import ast
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import unfade
from unfade.hosts.export import export
from unfade.hosts.settings import ExportSettings
from unfade.images.files import list_images

HOST = os.environ.get("UNFADE_COMFYUI", "")
PACK = Path(__file__).parents[1] / "integrations" / "comfyui"
SAMPLES = Path(unfade.__file__).parent / "samples"
WORKFLOW = json.loads((PACK / "example_workflows" / "restore_faces.json").read_text())
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
STARTS = 300  # seconds that it may take
Prompt = dict[str, dict[str, Any]]


@dataclass
class Comfy:
    """A running ComfyUI with the nodes, and nothing else, in it."""

    folder: Path
    address: str

    def ask(self, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"{self.address}{path}", data, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def queue(self, prompt: Prompt) -> str:
        try:
            return str(self.ask("/prompt", {"prompt": prompt})["prompt_id"])
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error

    def outcome(self, prompt_id: str) -> dict[str, Any]:
        """What the history says once the prompt has ended."""
        for _ in range(600):
            if found := self.ask(f"/history/{prompt_id}"):
                return dict(found[prompt_id])
            time.sleep(1)
        raise AssertionError("the prompt did not end")

    def pictures(self, prompt: Prompt) -> list[NDArray[np.int64]]:
        """What SaveImage wrote."""
        found = self.outcome(self.queue(prompt))
        assert found["status"]["status_str"] == "success", found["status"]
        files = [image["filename"] for output in found["outputs"].values() for image in output.get("images", [])]
        return [load(self.folder / "output" / name) for name in files]


@pytest.fixture(scope="module")
def comfy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Comfy]:
    if not HOST:
        pytest.skip("no ComfyUI is there: UNFADE_COMFYUI names a checkout")
    folder = tmp_path_factory.mktemp("comfy")
    for name in ("custom_nodes", "input", "web", "models/upscale_models"):
        (folder / name).mkdir(parents=True)
    (folder / "web" / "index.html").touch()
    (folder / "custom_nodes" / "unfade").symlink_to(PACK)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [os.environ.get("UNFADE_COMFYUI_PYTHON", sys.executable), "main.py", "--cpu", "--listen", "127.0.0.1"]
    command += ["--port", str(port), "--base-directory", str(folder), "--front-end-root", str(folder / "web")]
    environment = {**os.environ, "PYTHONPATH": str(PACK.parents[1] / "src"), "UNFADE_OFFLINE": "1"}
    log = (folder / "log.txt").open("w")
    process = subprocess.Popen(command, cwd=HOST, env=environment, stdout=log, stderr=log)
    running = Comfy(folder, f"http://127.0.0.1:{port}")
    try:
        wait_for(running, process)
        yield running
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def wait_for(comfy: Comfy, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(STARTS):
        assert process.poll() is None, (comfy.folder / "log.txt").read_text()[-3000:]
        try:
            comfy.ask("/queue")
        except OSError:
            time.sleep(1)
        else:
            return
    raise AssertionError((comfy.folder / "log.txt").read_text()[-3000:])


def load(path: Path) -> NDArray[np.int64]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(np.int64)


def photo(path: Path, number: int) -> Path:
    """A sample face in a larger, darker picture."""
    with Image.open(list_images(SAMPLES / "held_out_photos")[number]) as face:
        whole = Image.new("RGB", (320, 240), (70, 80, 90))
        whole.paste(face.convert("RGB"), (60, 50))
    whole.save(path)
    return path


def prompt_of(workflow: dict[str, Any], info: dict[str, Any]) -> Prompt:
    """A saved workflow as the page would send it: links, and widgets in the order in which the host lists them."""
    sources = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    prompt: Prompt = {}
    for node in workflow["nodes"]:
        listed = info[node["type"]]["input"]
        every = {**listed.get("required", {}), **listed.get("optional", {})}
        widgets = [name for name, (kind, *_) in every.items() if isinstance(kind, list) or kind in WIDGETS]
        inputs = dict(zip(widgets, node.get("widgets_values", []), strict=False))
        inputs |= {one["name"]: sources[one["link"]] for one in node.get("inputs", [])}
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt


def example(comfy: Comfy, picture: str, **kinds: str) -> Prompt:
    """The example's prompt for a picture of the input folder; `kinds` are other nodes by their numbers."""
    prompt = prompt_of(WORKFLOW, comfy.ask("/object_info"))
    prompt["1"]["inputs"]["image"] = picture
    for number, kind in kinds.items():
        prompt[number.removeprefix("node")]["class_type"] = kind
    return prompt


@pytest.mark.host
def test_the_example_restores_as_the_command_does(comfy: Comfy, tmp_path: Path) -> None:
    path = photo(comfy.folder / "input" / "photo.png", 3)
    (restored,) = comfy.pictures(example(comfy, "photo.png"))
    (entry,) = unfade.restore(path, tmp_path / "out", device="cpu")
    assert entry.status == "done"
    expected = load(tmp_path / "out" / "photo.png")
    assert np.abs(expected - load(path)).max() > 5, "there was something to restore"
    assert np.abs(restored - expected).max() <= 1


@pytest.mark.host
def test_aligned_faces_and_pictures_without_a_face(comfy: Comfy, tmp_path: Path) -> None:
    face = list_images(SAMPLES / "held_out_photos")[5]
    (comfy.folder / "input" / "face.png").write_bytes(face.read_bytes())
    (restored,) = comfy.pictures(example(comfy, "face.png", node3="UnfadeRestoreAlignedFaces"))
    unfade.restore(face, tmp_path / "out", aligned=True, device="cpu")
    assert np.abs(restored - load(tmp_path / "out" / face.name)).max() <= 1
    Image.new("RGB", (64, 48), (1, 2, 3)).save(comfy.folder / "input" / "plain.png")
    (plain,) = comfy.pictures(example(comfy, "plain.png"))
    assert (plain == [1, 2, 3]).all()


@pytest.mark.host
def test_a_restorer_that_is_not_there_and_a_run_outside(comfy: Comfy) -> None:
    photo(comfy.folder / "input" / "photo.png", 3)
    prompt = example(comfy, "photo.png")
    prompt["2"]["inputs"]["restorer"] = "no-such-restorer"
    status = comfy.outcome(comfy.queue(prompt))["status"]
    assert (status["status_str"], "no-such-restorer" in json.dumps(status)) == ("error", True)
    status = comfy.outcome(comfy.queue(adapting(comfy.folder / "input", "../elsewhere")))["status"]
    assert (status["status_str"], "must be a folder below" in json.dumps(status)) == ("error", True)


def adapting(photos: Path, run: str) -> Prompt:
    load: dict[str, Any] = {"restorer": "small-swinir", "fidelity": -1.0}
    inputs = {"restorer": ["1", 0], "photos": str(photos), "run": run, "steps": 2, "aligned": True}
    return {
        "1": {"class_type": "UnfadeLoadRestorer", "inputs": load},
        "2": {"class_type": "UnfadeAdaptRestorer", "inputs": inputs},
    }


@pytest.mark.host
def test_an_adaptation_is_cancelled_and_goes_on(comfy: Comfy, tmp_path: Path) -> None:
    for path in list_images(SAMPLES / "held_out_photos")[:2]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    run = comfy.folder / "output" / "mine"
    first = comfy.queue(adapting(tmp_path, "mine"))
    while not (run / "faces").exists():
        time.sleep(0.2)
    comfy.ask("/interrupt", {})
    messages = [message[0] for message in comfy.outcome(first)["status"]["messages"]]
    assert "execution_interrupted" in messages
    assert not (run / "report.html").exists()
    found = comfy.outcome(comfy.queue(adapting(tmp_path, "mine")))
    assert found["status"]["status_str"] == "success", found["status"]
    assert (run / "report.html").exists()
    assert unfade.load_restorer(run, device="cpu").size == 128


@pytest.mark.host
def test_its_own_loader_takes_an_exported_restorer(comfy: Comfy, tmp_path: Path) -> None:
    export("small-swinir", comfy.folder / "models/upscale_models/mine.safetensors", ExportSettings(to="spandrel"))
    face = list_images(SAMPLES / "held_out_photos")[5]
    (comfy.folder / "input" / "face.png").write_bytes(face.read_bytes())
    prompt = example(comfy, "face.png", node2="UpscaleModelLoader", node3="ImageUpscaleWithModel")
    prompt["2"]["inputs"] = {"model_name": "mine.safetensors"}
    prompt["3"]["inputs"] = {"upscale_model": ["2", 0], "image": ["1", 0]}
    (restored,) = comfy.pictures(prompt)
    unfade.restore(face, tmp_path / "out", "small-swinir", aligned=True, device="cpu")
    assert np.abs(restored - load(tmp_path / "out" / face.name)).max() <= 1


def test_the_pack_is_small_and_its_example_is_of_its_nodes() -> None:
    code = "".join(path.read_text() for path in sorted(PACK.glob("*.py")))
    assert code.count("\n") <= 250
    ours = [node["type"] for node in WORKFLOW["nodes"] if node["type"].startswith("Unfade")]
    assert ours
    assert all(f'node_id="{name}"' in code for name in ours)


def test_the_nodes_call_unfade_as_it_is() -> None:
    tree = ast.parse((PACK / "nodes.py").read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    ours = [call for call in calls if ast.unparse(call.func).startswith("unfade.")]
    assert len(ours) >= 4
    for call in ours:
        names = {str(word.arg): None for word in call.keywords}
        signature(getattr(unfade, ast.unparse(call.func).split(".")[1])).bind(*call.args, **names)  # raises TypeError
