"""The command that opens one restorer in five programs: what it tells, and that it fails where it has to."""

import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor

import browser_host
import comfyui_host
import five_hosts
import unfade
from five_hosts import Files, Shown
from unfade.images.files import read_image, write_png
from unfade.images.finding import list_images
from unfade.restorers.load import load_restorer

EVERYTHING = comfyui_host.HOST and browser_host.DIST and browser_host.CHROMIUM and find_spec("spandrel")


def told(
    hosts: dict[str, object], spec: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, list[str]]:
    """Exit code and lines."""
    monkeypatch.setattr(five_hosts, "HOSTS", hosts)
    monkeypatch.setattr(sys, "argv", ["five_hosts.py", str(spec), "--faces", "2"])
    with pytest.raises(SystemExit) as stop:
        five_hosts.main()
    return int(stop.value.code or 0), capsys.readouterr().out.splitlines()


@torch.no_grad()
def test_it_fails_beyond_one_level(
    models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    restorer = load_restorer(models[0], device="cpu")

    def off(levels: float, *, as_files: bool = False) -> object:
        def opened(files: Files, faces: Tensor) -> Shown:
            restored = restorer(faces).clamp(-1, 1)
            inward = torch.where(restored > 0, -levels / 127.5, levels / 127.5)  # stays in the range
            return Shown("a toy", restored + inward, as_files)

        return opened

    hosts = {"unfade": five_hosts.in_unfade, "near": off(0.6), "file": off(0.4, as_files=True)}
    code, lines = told(hosts, models[0], monkeypatch, capsys)
    assert (code, lines[-1]) == (0, "3 of 3 within 1 level")
    assert lines[0] == f"{models[0]}: swinir, 2 faces of 32 px"
    assert lines[1].split() == ["unfade", "0.0000", "levels", "(unfade", lines[1].split()[-2], "mine.safetensors)"]
    assert lines[2] == "near          0.6000 levels  (a toy)"
    assert lines[3] in [f"file          {levels}.0000 levels  (a toy)" for levels in (0, 1)]
    code, lines = told({"far": off(1.4)}, models[0], monkeypatch, capsys)
    assert (code, lines[1:]) == (1, ["far           1.4000 levels  (a toy)", "0 of 1 within 1 level"])


def test_what_is_missing_or_fails_is_named(
    models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(files: Files, faces: Tensor) -> Shown:
        raise AssertionError("what the program said")

    monkeypatch.setattr(comfyui_host, "HOST", "")
    monkeypatch.setattr(browser_host, "DIST", "")
    monkeypatch.setitem(sys.modules, "spandrel", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    code, lines = told({**five_hosts.HOSTS, "another": fails}, models[0], monkeypatch, capsys)
    assert (code, lines[-1]) == (1, "1 of 6 within 1 level")
    reasons = ["pip install unfade[archs]", "UNFADE_COMFYUI must name", "pip install unfade[onnx]", "UNFADE_ORT_WEB"]
    for line, reason in zip(lines[2:6], reasons, strict=True):
        assert "  not opened: " in line
        assert reason in line
    assert lines[6] == "another       failed: what the program said"


def test_sample_faces_are_what_a_file_can_hold(tmp_path: Path) -> None:
    faces = five_hosts.sample_faces(2, 48)
    assert faces.shape == (2, 3, 48, 48)
    write_png(tmp_path / "face.png", faces[1])
    assert torch.equal(read_image(tmp_path / "face.png"), faces[1])


@pytest.mark.host
@pytest.mark.skipif(not EVERYTHING, reason="needs spandrel, and what tools/comfyui_host.py and browser_host.py say")
def test_an_adapted_restorer_opens_in_all_five(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for path in list_images(five_hosts.SAMPLES)[:2]:
        (tmp_path / "photos" / path.name).write_bytes(path.read_bytes())
    settings = unfade.settings_for("small-swinir", "small-prior")
    finetune = replace(settings.finetune, loop=replace(settings.finetune.loop, steps=2))
    settings = replace(settings, finetune=finetune)
    unfade.adapt(tmp_path / "photos", tmp_path / "run", settings, aligned=True, device="cpu")
    command = [sys.executable, five_hosts.__file__, tmp_path / "run", "--faces", "2"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "5 of 5 within 1 level" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0
