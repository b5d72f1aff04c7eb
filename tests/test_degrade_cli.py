"""`unfade degrade`: every flag has an effect or is refused, and what is wrong is said in one sentence."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from command import Result
from toy_degradations import contents
from toys import levels, save_pictures
from unfade.cli import degrade as command
from unfade.degradations.sensor import PHONE, load_sensor
from unfade.errors import BadInput
from unfade.images.files import read_image
from unfade.jobs import workers
from unfade.jobs.journal import Entry
from unfade.stages import degrade

Run = Callable[..., Result]
CAMERA = ("--kind", "camera")
EFFECTS = {
    "blind": (),
    "preset": ("--preset", "gfpgan"),
    "scale": ("--scale", "4"),
    "size": ("--size", "32"),
    "seed": ("--seed", "3"),
    "camera": CAMERA,
    "camera preset": (*CAMERA, "--preset", "mild"),
    "text": (*CAMERA, "--preset", "moderate-text"),
    "camera scale": (*CAMERA, "--scale", "8"),
    "camera size": (*CAMERA, "--size", "32"),
    "camera seed": (*CAMERA, "--seed", "3"),
    "iso": (*CAMERA, "--iso", "1550.5"),
    "demosaic": (*CAMERA, "--demosaic", "bilinear"),
    "sensor": (*CAMERA, "--sensor", "other.json"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a truth of one picture and another sensor."""
    monkeypatch.chdir(tmp_path)
    save_pictures(Path("truth"), ["a.png"], size=64)
    write_sensor("other.json", asdict(replace(PHONE, name="other", white=4095)))
    return Path()


def write_sensor(name: str, numbers: object) -> Path:
    Path(name).write_text(json.dumps(numbers))
    return Path(name)


def test_every_flag_has_an_effect(run: Run, folder: Path) -> None:
    results = {}
    for name, flags in EFFECTS.items():
        result = run("degrade", "truth", "--out", name, *flags, "--json")
        assert (result.code, result.json["done"]) == (0, 1)
        results[name] = (folder / name / "a.png").read_bytes()
    assert len(set(results.values())) == len(results)


def test_the_presets_of_the_text_are_its_isos(run: Run, folder: Path) -> None:
    for preset, iso in (("moderate-text", 1600), ("severe-text", 3200), ("moderate", 1500), ("mild", 800)):
        run("degrade", "truth", "--out", preset, *CAMERA, "--preset", preset)
        run("degrade", "truth", "--out", str(iso), *CAMERA, "--iso", str(iso))
        assert contents(folder / preset) == contents(folder / str(iso))
        run("degrade", "truth", "--out", preset, *CAMERA, "--iso", str(iso))  # the same settings, said otherwise


def test_workers_arrive_and_are_as_many_as_the_work_needs(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def record(*args: object, workers: int, **options: object) -> list[Entry]:
        seen.append(workers)
        return []

    monkeypatch.setattr(degrade, "degrade_faces", record)
    monkeypatch.setattr(workers, "cores", lambda: 4)
    run("degrade", "truth", "--out", "out", "--workers", "3")
    run("degrade", "truth", "--out", "out")
    save_pictures(Path("truth"), [f"{number}.png" for number in range(2 * command.PER_WORKER)])
    run("degrade", "truth", "--out", "out")
    save_pictures(Path("truth"), [f"{number}.png" for number in range(9 * command.PER_WORKER)])
    run("degrade", "truth", "--out", "out")
    assert seen == [3, 1, 3, 4]


def test_workers_change_nothing_but_the_time(run: Run, folder: Path) -> None:
    save_pictures(Path("truth"), [f"{number}.png" for number in range(5)], size=48)
    (folder / "truth" / "bad.jpg").write_text("no picture")
    for number in ("1", "3"):
        result = run("degrade", "truth", "--out", number, "--workers", number, "--size", "32", "--json")
        counts = {key: result.json[key] for key in ("found", "done", "skipped", "failed", "no_face")}
        assert (result.code, counts) == (1, {"found": 7, "done": 6, "skipped": 0, "failed": 1, "no_face": 0})
    assert contents(folder / "1") == contents(folder / "3")
    assert run("degrade", "truth", "--out", "1", "--workers", "2", "--size", "32").code == 1


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_killed_with_its_workers_and_run_again(run: Run, folder: Path) -> None:
    save_pictures(Path("truth"), [f"{number:02}.png" for number in range(30)], size=128)
    script = "import sys; from unfade.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", script, "degrade", "truth", "--out", "out", "--workers", "2", "--size", "128"],
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None and len(list(folder.glob("out/*.png"))) < 3:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for out in ("out", "undisturbed"):
        assert run("degrade", "truth", "--out", out, "--workers", "1", "--size", "128").code == 0
    assert len(contents(folder / "out")) == 32
    assert contents(folder / "out") == contents(folder / "undisturbed")


# Flags that are refused


REFUSED = {
    ("--kind", "rain"): "no degradation named rain; there are: blind, camera",
    ("--preset", "severe"): "no preset named severe; there are: swinir",
    (*CAMERA, "--preset", "swinir"): "no preset named swinir; there are: .*severe-text",
    ("--iso", "800"): "--iso has no effect with --kind blind; leave it out, or choose --kind camera",
    ("--demosaic", "bilinear"): "--demosaic has no effect with --kind blind",
    ("--sensor", "other.json"): "--sensor has no effect with --kind blind",
    (*CAMERA, "--iso", "50"): "ISO of 100 to 3200, where the noise of phone is known, got 50",
    (*CAMERA, "--iso", "3200.5"): "ISO of 100 to 3200",
    (*CAMERA, "--iso", "nan"): "ISO of 100 to 3200",
    (*CAMERA, "--demosaic", "magic"): "demosaicing out of edge-aware, bilinear.*got magic",
    (*CAMERA, "--sensor", "nowhere.json"): "nowhere.json cannot be opened",
    (*CAMERA, "--scale", "0"): "at least 1, got 0",
    ("--scale", "-4"): "at least 1, got -4",
    ("--size", "15"): "--size to be at least 16, got 15",
    ("--workers", "0"): "--workers to be at least 1, got 0",
}


@pytest.mark.parametrize("flags", REFUSED, ids=" ".join)
def test_what_cannot_be_done_is_refused_and_leaves_nothing(run: Run, folder: Path, flags: tuple[str, ...]) -> None:
    result = run("degrade", "truth", "--out", "out", *flags)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert re.search(REFUSED[flags], result.err), result.err
    assert not (folder / "out").exists()


@pytest.mark.parametrize("name", [name for name in EFFECTS if name not in ("camera", "text")])
def test_a_folder_made_otherwise_is_refused(run: Run, folder: Path, name: str) -> None:
    first = () if name in ("preset", "scale", "size", "seed") else CAMERA
    assert run("degrade", "truth", "--out", "out", *first).code == 0
    before = contents(folder / "out")
    refused = run("degrade", "truth", "--out", "out", *EFFECTS[name])
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert refused.err.startswith("out holds a run made with ")
    assert "name another folder as --out" in refused.err
    assert contents(folder / "out") == before
    assert run("degrade", "truth", "--out", "out", *first, "--workers", "2").code == 0


def test_a_sensor_that_was_changed_in_its_file_is_another(run: Run, folder: Path) -> None:
    args = ("degrade", "truth", "--out", "out", *CAMERA, "--sensor", "other.json")
    assert run(*args).code == 0
    write_sensor("other.json", asdict(replace(PHONE, name="other", white=4095, black=65)))
    refused = run(*args)
    assert refused.code == 2
    assert "made with black = 64, now it is 65" in refused.err


def test_the_truth_is_not_overwritten(run: Run, folder: Path) -> None:
    assert "truth is also the input" in run("degrade", "truth", "--out", "truth").err


# Pictures of all sorts


def test_odd_pictures_are_handled_or_refused_by_name(run: Run, folder: Path) -> None:
    rgb = levels(1, 64)
    grey, alpha, deep = rgb[..., 0], np.dstack([rgb, rgb[..., :1]]), rgb.astype(np.uint16) * 257
    Image.fromarray(grey).save("truth/grey.png")
    Image.fromarray(alpha).save("truth/alpha.png")
    Image.fromarray(deep[..., 0]).save("truth/deep grey.png")
    cv2.imwrite("truth/deep.png", deep)
    cv2.imwrite("truth/deep alpha.png", np.dstack([deep, deep[..., :1]]))
    Image.fromarray(np.dstack([grey, grey])).save("truth/grey alpha.png")
    Image.fromarray(rgb[:, :40]).save("truth/oblong.png")
    Image.fromarray(rgb[:15]).save("truth/low.png")
    Image.fromarray(rgb[:20, :20]).save("truth/small.png")
    Path("truth/cut.png").write_bytes(Path("truth/grey.png").read_bytes()[:200])
    failed = {"low.png", "small.png", "cut.png"}
    for kind in ("blind", "camera"):
        result = run("degrade", "truth", "--out", kind, "--kind", kind, "--scale", "16", "--json")
        assert result.code == 1
        assert (result.json["found"], result.json["done"], result.json["failed"]) == (11, 8, 3)
        assert {name for name, _ in result.json["failures"]} == failed
        assert all(name in reason and reason.endswith(".") for name, reason in result.json["failures"])
        lines = [json.loads(line) for line in (folder / kind / degrade.RECORDS).read_text().splitlines()]
        assert len(lines) == 8
        assert {Path(line["name"]).name for line in lines} == {path.name for path in (folder / kind).glob("*.png")}
        assert read_image(folder / kind / "oblong.png").shape == (3, 64, 40)
    squared = run("degrade", "truth", "--out", "squared", "--size", "32", "--json")
    assert {name for name, _ in squared.json["failures"]} == {"oblong.png", "low.png", "cut.png"}


# Files of sensors


def test_a_sensor_comes_back_from_its_file(folder: Path) -> None:
    assert load_sensor(write_sensor("phone.json", asdict(PHONE))) == PHONE


def changed(**numbers: object) -> str:
    return json.dumps({**asdict(PHONE), "name": "mine", **numbers})


def without(name: str) -> str:
    return json.dumps({key: value for key, value in asdict(PHONE).items() if key != name})


SENSORS = {
    "not JSON": ("{black: 64}", "bad.json is not JSON"),
    "not text": (b"\xff\xfe\x00", "bad.json is not JSON"),
    "empty": ("", "bad.json is not JSON"),
    "a list": ("[1, 2]", r"bad.json holds \[1, 2\] and not one JSON object"),
    "missing": (without("white"), "bad.json lacks white; a sensor has exactly name, black"),
    "unknown": (changed(colour=1), "bad.json has colour too"),
    "singular": (changed(matrix=[[1, 0, 0], [1, 0, 0], [0, 0, 1]]), "colour matrix of mine that can be inverted"),
    "no white": (changed(matrix=[[1, -1, 0], [0, 1, 0], [0, 0, 1]]), "rows not summing to 0"),
    "a row": (changed(matrix=[[1, 0, 0], [0, 1, 0]]), "matrix of mine to be 3 rows of 3 finite numbers"),
    "a column": (changed(shot=[row[:3] for row in PHONE.shot]), "shot of mine to be rows of 4 finite numbers"),
    "a table": (changed(read=PHONE.read[:4]), "one row of shot and read noise per ISO for mine"),
    "ISOs": (changed(isos=3), "isos of mine to be finite numbers, got 3"),
    "no ISO": (changed(isos=[], shot=[], read=[]), r"isos of mine to be finite numbers, got \[\]"),
    "NaN": (changed(black=float("nan")), "black of mine to be one finite number, got NaN"),
    "infinite": (changed(illuminant_mean=[0.6, float("inf")]), "illuminant_mean of mine to be 2 finite numbers"),
    "beyond": (changed(white=10**400), "white of mine to be one finite number, got 1000"),
    "words": (changed(white="bright"), 'white of mine to be one finite number, got "bright"'),
    "true": (changed(white=True), "white of mine to be one finite number, got true"),
    "levels": (changed(black=2000), "black below white for mine"),
    "order": (changed(isos=PHONE.isos[::-1]), "rising ISOs for mine"),
    "covariance": (changed(illuminant_covariance=[[0.1, 0.2], [0.2, 0.1]]), "symmetric and positive definite"),
    "lopsided": (changed(illuminant_covariance=[[0.1, 0.0], [0.01, 0.1]]), "symmetric and positive definite"),
    "bounds": (changed(illuminant_low=[2.0, 0.3]), "illuminant_low of mine from 0 to below illuminant_high"),
}


@pytest.mark.parametrize("case", SENSORS, ids=lambda case: case.replace(" ", "-"))
def test_a_sensor_that_is_none_is_refused_by_name(run: Run, folder: Path, case: str) -> None:
    content, message = SENSORS[case]
    Path("bad.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BadInput, match=message) as caught:
        load_sensor(Path("bad.json"))
    assert str(caught.value).startswith("bad.json")
    result = run("degrade", "truth", "--out", "out", *CAMERA, "--sensor", "bad.json")
    assert (result.code, result.err) == (2, f"{caught.value}\n")
    assert not (folder / "out").exists()


def test_a_sensor_that_is_not_calibrated_for_the_presets_iso(run: Run, folder: Path) -> None:
    write_sensor(
        "dim.json", asdict(replace(PHONE, name="dim", isos=PHONE.isos[:3], shot=PHONE.shot[:3], read=PHONE.read[:3]))
    )
    args = ("degrade", "truth", "--out", "out", *CAMERA, "--sensor", "dim.json")
    assert "ISO of 100 to 400, where the noise of dim is known, got 1500" in run(*args).err
    assert run(*args, "--iso", "200").code == 0
