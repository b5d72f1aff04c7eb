"""The nodes in a running ComfyUI, driven over HTTP: the same pictures as `unfade restore` makes, runs, cancelling.

`tools/comfyui_host.py` says what has to be installed.
"""

import ast
import asyncio
import json
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from runpy import run_path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from PIL import Image

import unfade
from comfyui_host import HOST, MODELS, PACK, Comfy, Prompt, by_its_own_loader, by_the_node, levels_of, running
from unfade.hosts.export import export
from unfade.hosts.settings import ExportSettings
from unfade.images.finding import list_images

SAMPLES = Path(unfade.__file__).parent / "samples"
WORKFLOW = json.loads((PACK / "example_workflows" / "restore_faces.json").read_text())
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")


@pytest.fixture(scope="module")
def comfy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Comfy]:
    if not HOST:
        pytest.skip("no ComfyUI is there: UNFADE_COMFYUI names a checkout")
    with running(tmp_path_factory.mktemp("comfy") / "here") as comfy:
        yield comfy


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
    expected = levels_of(tmp_path / "out" / "photo.png")
    assert np.abs(expected - levels_of(path)).max() > 5, "there was something to restore"
    assert np.abs(restored - expected).max() <= 1


@pytest.mark.host
def test_aligned_faces_and_pictures_without_a_face(comfy: Comfy, tmp_path: Path) -> None:
    face = list_images(SAMPLES / "held_out_photos")[5]
    (comfy.folder / "input" / "face.png").write_bytes(face.read_bytes())
    (restored,) = comfy.pictures(example(comfy, "face.png", node3="UnfadeRestoreAlignedFaces"))
    unfade.restore(face, tmp_path / "out", aligned=True, device="cpu")
    assert np.abs(restored - levels_of(tmp_path / "out" / face.name)).max() <= 1
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


def adapting(photos: Path, run: str, *, first: int = 1) -> Prompt:
    """Two nodes, with numbers from `first` on."""
    load: dict[str, Any] = {"restorer": "small-swinir", "fidelity": -1.0}
    inputs = {"restorer": [str(first), 0], "photos": str(photos), "run": run, "steps": 2, "aligned": True}
    return {
        str(first): {"class_type": "UnfadeLoadRestorer", "inputs": load},
        str(first + 1): {"class_type": "UnfadeAdaptRestorer", "inputs": inputs},
    }


@pytest.mark.host
def test_an_adaptation_is_cancelled_and_goes_on_to_its_end(comfy: Comfy, tmp_path: Path) -> None:
    faces = list_images(SAMPLES / "held_out_photos")[:3]
    (tmp_path / "photos").mkdir()
    for path in faces[:2]:
        (tmp_path / "photos" / path.name).write_bytes(path.read_bytes())
    run = comfy.folder / "output" / "mine"
    first = comfy.queue(adapting(tmp_path / "photos", "mine"))
    while not (run / "faces").exists():
        time.sleep(0.2)
    comfy.ask("/interrupt", {})
    messages = [message[0] for message in comfy.outcome(first)["status"]["messages"]]
    assert "execution_interrupted" in messages
    assert not (run / "report.html").exists()
    (comfy.folder / "input" / "face.png").write_bytes(faces[2].read_bytes())
    prompt = by_the_node("face.png", "small-swinir") | adapting(tmp_path / "photos", "mine", first=5)
    prompt["3"]["inputs"]["restorer"] = ["6", 0]  # what the adaptation gives
    (restored,) = comfy.pictures(prompt)
    assert (run / "report.html").exists()
    card = json.loads((run / "restorer.json").read_text())
    assert (card["pairs"], card["settings"]["finetune"]["loop"]["steps"]) == (2, 2)
    off = []
    for name, spec in (("as adapted", run), ("before", "small-swinir")):
        unfade.restore(faces[2], tmp_path / name, spec, aligned=True, device="cpu")
        off.append(np.abs(restored - levels_of(tmp_path / name / faces[2].name)))
    assert off[0].max() <= 1
    assert off[0].mean() < off[1].mean(), "it is not the one that it began with, which two steps change little"


def bar_of(comfy: Comfy, prompt: Prompt) -> tuple[str, list[tuple[str, float, float]]]:
    """How a prompt ends, and what the bars under its nodes show meanwhile: node, value and total."""
    aiohttp = pytest.importorskip("aiohttp", reason="needs aiohttp to listen to ComfyUI")
    shown: list[tuple[str, float, float]] = []

    async def listened() -> str:
        place = f"{comfy.address}/ws?clientId=bar"
        async with aiohttp.ClientSession() as session, session.ws_connect(place) as socket:
            comfy.ask("/prompt", {"prompt": prompt, "client_id": "bar"})
            async for message in socket:
                told = json.loads(message.data) if message.type == aiohttp.WSMsgType.TEXT else {"type": ""}
                if told["type"] == "progress":
                    shown.append(tuple(told["data"][name] for name in ("node", "value", "max")))
                if told["type"].removeprefix("execution_") in ("success", "error", "interrupted"):
                    return str(told["type"])
        return "closed"

    return asyncio.run(listened()), shown


@pytest.mark.host
def test_an_adaptation_shows_each_stage_in_the_bar(comfy: Comfy, tmp_path: Path) -> None:
    for path in list_images(SAMPLES / "held_out_photos")[:2]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    ended, shown = bar_of(comfy, adapting(tmp_path, "watched"))
    assert ended == "execution_success"
    assert {node for node, _, _ in shown} == {"2"}
    assert shown[0][1] == 0
    full = [(value, total) for _, value, total in shown if value == total]
    assert len(full) >= 3, "taking faces, targets and fine-tuning, at least, come to their ends"


@pytest.mark.host
def test_its_own_loader_takes_an_exported_restorer(comfy: Comfy, tmp_path: Path) -> None:
    export("small-swinir", comfy.folder / MODELS / "mine.safetensors", ExportSettings(to="spandrel"))
    face = list_images(SAMPLES / "held_out_photos")[5]
    (comfy.folder / "input" / "face.png").write_bytes(face.read_bytes())
    (restored,) = comfy.pictures(by_its_own_loader("face.png", "mine.safetensors"))
    unfade.restore(face, tmp_path / "out", "small-swinir", aligned=True, device="cpu")
    assert np.abs(restored - levels_of(tmp_path / "out" / face.name)).max() <= 1


@pytest.mark.host
@pytest.mark.skipif(not find_spec("onnxruntime"), reason="the extra `onnx` is not installed")
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_node_takes_an_onnx_file(comfy: Comfy, dtype: str, tmp_path: Path) -> None:
    path = export("small-restorer", tmp_path / "mine.onnx", ExportSettings(dtype=dtype)).path
    face = list_images(SAMPLES / "held_out_photos")[5]
    (comfy.folder / "input" / "face.png").write_bytes(face.read_bytes())
    (restored,) = comfy.pictures(by_the_node("face.png", str(path)))
    unfade.restore(face, tmp_path / "out", "small-restorer", aligned=True, device="cpu")
    assert np.abs(restored - levels_of(tmp_path / "out" / face.name)).max() <= 1


def nodes_without_a_host(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `nodes.py` defines, with nothing behind it that shows progress."""
    host = MagicMock()
    host.io.ComfyNode = object
    host.model_management.get_torch_device.return_value = "cpu"
    host.model_management.processing_interrupted.return_value = False
    for name in ("folder_paths", "comfy", "comfy.utils", "comfy_api", "comfy_api.latest"):
        monkeypatch.setitem(sys.modules, name, host)
    return run_path(str(PACK / "nodes.py"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_alpha_stays_as_it_is(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    nodes = nodes_without_a_host(monkeypatch)
    with Image.open(list_images(SAMPLES / "held_out_photos")[5]) as face:
        colours = torch.from_numpy(np.array(face.convert("RGB"))) / 255
    with_alpha = torch.cat([colours, torch.zeros_like(colours[..., :1])], -1)[None].to(dtype)
    chosen = nodes["Chosen"]("small-restorer", None)
    restored = nodes["_restored"](with_alpha, chosen, 1.0, aligned=True)
    assert restored.dtype == dtype
    assert torch.equal(restored[..., 3], with_alpha[..., 3])
    assert torch.equal(restored[..., :3], nodes["_restored"](with_alpha[..., :3], chosen, 1.0, aligned=True))
    assert (restored - with_alpha).abs().max() > 5 / 255


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
