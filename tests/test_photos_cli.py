"""`unfade restore` and `unfade adapt` on whole photos: every flag has an effect, or is refused in one sentence."""

import io
import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from torch import Tensor

import unfade.cli.console as console
import unfade.recipes.adapt
import unfade.recipes.sources
from command import Result
from marked import LEVEL, in_colour, load, save, scene, squares
from recorded import picture
from tiny_models import write_faces
from unfade.cli.settings import Find, Results
from unfade.faces.detectors import Face
from unfade.images.files import to_bytes
from unfade.images.finding import list_images
from unfade.jobs.runs import LOCK
from unfade.recipes.adapt_settings import SAMPLES
from unfade.zoo.load import Loaded

Models = tuple[Path, Path]
ONE, TWO = ((20, 15, 24),), ((5, 8, 20), (50, 20, 24))


def dark_squares(photo: Tensor) -> list[Face]:
    """Another detector."""
    return squares(-photo - 0.5)


@pytest.fixture
def marks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Marks are faces: bright ones by default, dark ones by `--detector dark`."""
    for name in ("yunet", "dark"):
        (tmp_path / f"{name}.onnx").write_text(name)
    detectors = {
        name: Loaded(detector, tmp_path / f"{name}.onnx", "marks", "unknown")
        for name, detector in (("yunet", squares), ("dark", dark_squares))
    }
    monkeypatch.setattr(unfade.recipes.sources, "loaded_detector", lambda name, device: detectors[name])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """In colour with two faces, grey with one, one in a folder, and one without."""
    folder = tmp_path / "photos"
    save(folder / "a.jpg", in_colour(scene(*TWO)), quality=80)
    save(folder / "grey.png", scene(*ONE, seed=1)[..., 0])
    save(folder / "sub" / "b.png", in_colour(scene(*ONE, seed=2, level=LEVEL - 20)))
    save(folder / "bare.png", scene(seed=3))
    return folder


def restored(run: Callable[..., Result], photos: Path, out: Path, models: Models, *flags: object) -> Result:
    return run("restore", photos, "--out", out, "--restorer", models[0], "--device", "cpu", "--json", *flags)


def files_of(folder: Path) -> dict[str, bytes]:
    paths = [
        path for path in folder.rglob("*") if path.is_file() and path.name not in ("run.json", "journal.jsonl", LOCK)
    ]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.usefixtures("marks")
def test_restore_says_what_it_did(run: Callable[..., Result], photos: Path, models: Models, tmp_path: Path) -> None:
    (photos / "bad.png").write_text("no")
    result = restored(run, photos, tmp_path / "out", models)
    assert (result.code, result.err) == (1, "")
    assert result.counts == {"found": 5, "done": 3, "skipped": 0, "failed": 1, "no_face": 1}
    reasons = dict(json.loads(result.out)["failures"])
    assert reasons["bad.png"].startswith(f"{photos / 'bad.png'} is not a picture that can be read")
    assert "no face found that matches the settings" in reasons["bare.png"]
    assert sorted(files_of(tmp_path / "out")) == ["a.jpg", "grey.png", "sub/b.png"]
    (photos / "bad.png").unlink()
    again = run("restore", photos, "--out", tmp_path / "out", "--restorer", models[0], "--device", "cpu")
    assert again.code == 0, "a photo without a face is no failure"
    assert "4 found = 3 done + 0 skipped + 0 failed + 1 without a face" in again.out


@pytest.mark.usefixtures("marks")
def test_one_file_is_restored(run: Callable[..., Result], photos: Path, models: Models, tmp_path: Path) -> None:
    result = restored(run, photos / "a.jpg", tmp_path / "out", models)
    assert result.code == 0
    assert result.counts == {"found": 1, "done": 1, "skipped": 0, "failed": 0, "no_face": 0}
    restored(run, photos, tmp_path / "all", models)
    assert np.array_equal(load(tmp_path / "out" / "a.jpg"), load(tmp_path / "all" / "a.jpg"))
    refused = restored(run, photos / "a.jpg", photos, models)
    assert (refused.code, "is also the input" in refused.err) == (2, True)
    assert restored(run, photos / "no.jpg", tmp_path / "out2", models).code == 2


def png_kept(files: dict[str, bytes], plain: dict[str, bytes]) -> bool:
    return files["grey.png"] == plain["grey.png"]


def opened(files: dict[str, bytes], name: str) -> Image.Image:
    return Image.open(io.BytesIO(files[name]))


Files = dict[str, bytes]
EFFECTS: dict[str, tuple[tuple[str, ...], Callable[[Files, Files], bool]]] = {  # flags; results with and without
    "faces": (("--faces", "largest"), lambda new, old: new["a.jpg"] != old["a.jpg"] and png_kept(new, old)),
    "faces by number": (("--faces", "1"), lambda new, old: set(new) == {"a.jpg"}),
    "min-face": (("--min-face", "22"), lambda new, old: new["a.jpg"] != old["a.jpg"]),
    "max-face": (("--max-face", "22"), lambda new, old: set(new) == {"a.jpg"}),
    "min-score": (("--min-score", "0.85"), lambda new, old: set(new) == {"a.jpg", "grey.png"}),
    "detector": (("--detector", "dark"), lambda new, old: not new),
    "paste": (("--paste", "face"), lambda new, old: new["grey.png"] != old["grey.png"]),
    "match-colour": (("--match-colour",), lambda new, old: new["sub/b.png"] != old["sub/b.png"]),
    "colour": (("--colour",), lambda new, old: opened(new, "grey.png").mode == "RGB" and png_kept(old, old)),
    "format": (("--format", "webp"), lambda new, old: set(new) == {"a.webp", "grey.webp", "sub/b.webp"}),
    "quality": (("--quality", "20"), lambda new, old: len(new["a.jpg"]) < len(old["a.jpg"]) and png_kept(new, old)),
    "copy": (("--copy",), lambda new, old: set(new) == {*old, "bare.png"}),
    "sidecar": (("--sidecar",), lambda new, old: set(new) == {*old, *(f"{name}.json" for name in old)}),
    "no-provenance": (
        ("--no-provenance",),
        lambda new, old: b"trainedAlgorithmicMedia".lower() in old["a.jpg"].lower() and b"xmp" not in new["a.jpg"],
    ),
    "scale": (("--scale", "2"), lambda new, old: opened(new, "a.jpg").size == (180, 120)),
    "strength": (("--strength", "0.5"), lambda new, old: new["grey.png"] != old["grey.png"]),
}
OTHERS = {  # have tests of their own
    "background": ("--background", "lanczos"),
    "identity": ("--identity", "sface"),
    "mask": ("--mask", "parsenet"),
    "size": ("--size", "restorer"),
    "report": ("--report",),
    "trust": ("--trust",),
    "precision": ("--precision", "bfloat16"),
    "output-layout": ("--output-layout", "hashed"),
}
EVERYWHERE = (
    "precision",
    "output-layout",
    "strength",
    "colour",
    "format",
    "quality",
    "sidecar",
    "no-provenance",
    "identity",
    "size",
    "report",
    "trust",
)
FLAGS = {**OTHERS, **{name: flags for name, (flags, _) in EFFECTS.items()}}
ONLY_WHOLE = {name: flags for name, flags in FLAGS.items() if name not in EVERYWHERE}


@pytest.mark.usefixtures("marks")
@pytest.mark.parametrize("name", EFFECTS)
def test_every_flag_has_an_effect(
    run: Callable[..., Result], photos: Path, models: Models, tmp_path: Path, name: str
) -> None:
    flags, differs = EFFECTS[name]
    assert restored(run, photos, tmp_path / "plain", models).code == 0
    assert restored(run, photos, tmp_path / "new", models, *flags).code == 0
    assert differs(files_of(tmp_path / "new"), files_of(tmp_path / "plain"))
    conflict = restored(run, photos, tmp_path / "plain", models, *flags)
    assert (conflict.code, "name another folder as --out" in conflict.err) == (2, True), "they are part of the run"


def test_the_tables_know_every_flag() -> None:
    flags = {field.name.replace("_", "-") for group in (Find, Results) for field in fields(group)}
    assert flags - {"which", "refine"} == {*EFFECTS, *OTHERS} - {"faces", "faces by number"}


@pytest.mark.parametrize("name", sorted(ONLY_WHOLE))
def test_flags_about_whole_photos_are_refused_for_aligned_faces(
    run: Callable[..., Result], models: Models, tmp_path: Path, name: str
) -> None:
    write_faces(tmp_path / "faces", 1)
    flags = ONLY_WHOLE[name]
    result = restored(run, tmp_path / "faces", tmp_path / "out", models, "--aligned", *flags)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"{flags[0]} is for whole photos, but --aligned says that these are faces")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--faces", "some"), "Expected faces to be all, largest, or numbers"),
        (("--min-face", "50", "--max-face", "20"), "in rising order"),
        (("--min-score", "0.1"), "The lowest score of a face must lie between"),
        (("--paste", "glue"), "A way of pasting is one of change, face, published"),
        (("--format", "gif"), "gif is not a format that is written"),
        (("--quality", "0"), "Expected --quality to lie in 1..100"),
        (("--quality", "50", "--format", "png"), "--quality has no effect on png, which loses nothing"),
        (("--min-face", "nan"), "Expected --min-face to be 0 or more, got nan"),
        (("--max-face", "inf"), "Expected --max-face to be 0 or more, got inf"),
        (("--strength", "2"), "The strength must lie in 0..1"),
        (("--scale", "3"), "Expected --scale to be 1, 2 or 4"),
        (("--scale", "2", "--background", "none"), "need a --background"),
        (("--batch", "0"), "Expected --batch to be 1 or more, got 0"),
    ],
)
@pytest.mark.usefixtures("marks")
def test_impossible_requests_are_refused_in_one_sentence(
    run: Callable[..., Result], photos: Path, models: Models, tmp_path: Path, flags: tuple[str, ...], told: str
) -> None:
    result = restored(run, photos, tmp_path / "out", models, *flags)
    assert (result.code, result.out) == (2, "")
    assert told in result.err
    assert result.err.count("\n") == 1


def test_a_missing_detector_says_what_fetches_it(
    run: Callable[..., Result], photos: Path, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNFADE_WEIGHTS", str(tmp_path / "none"))
    monkeypatch.delenv("UNFADE_OFFLINE", raising=False)
    commands = ("restore", photos), ("adapt", photos, "--prior", models[1])
    for command, *rest in commands:
        flags = ("--restorer", models[0], "--device", "cpu", "--detector", "retinaface-mobilenet")
        result = run(command, *rest, "--out", tmp_path / "out", *flags)
        assert (result.code, result.out) == (2, "")
        assert "unfade models pull retinaface-mobilenet" in result.err
        assert "set --aligned" in result.err
        assert not (tmp_path / "out").exists()
    unknown = restored(run, photos, tmp_path / "out", models, "--detector", "eyes")
    assert (unknown.code, "There is no detector named eyes" in unknown.err) == (2, True)
    named = restored(run, photos, tmp_path / "out", models, "--detector", "retinaface-resnet50")
    assert (named.code, "unfade models pull retinaface-resnet50" in named.err) == (2, True)


@pytest.mark.usefixtures("marks")
def test_flags_of_adapt_arrive(
    run: Callable[..., Result], photos: Path, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, Any]] = []

    class Enough(Exception):
        pass

    def adapting(*args: object, **options: Any) -> None:
        given.append(options)
        raise Enough

    monkeypatch.setattr(unfade.recipes.adapt, "adapt", adapting)
    flags = ("--faces", "0", "--min-face", 20, "--max-face", 200, "--min-score", 0.7, "--detector", "dark")
    for more in ((), flags, ("--aligned",)):
        with pytest.raises(Enough):
            run("adapt", photos, "--out", tmp_path / "run", "--restorer", models[0], "--prior", models[1], *more)
    plain, all_of_them, faces = (options["find"] for options in given)
    assert (plain.detector, plain.choice.which, plain.detect.min_score) == ("yunet", "all", 0.6)
    assert (faces, [options["aligned"] for options in given]) == (plain, [False, False, True])
    assert (all_of_them.detector, all_of_them.choice.which) == ("dark", "0")
    detect = all_of_them.detect
    assert (detect.min_face, detect.max_face, detect.min_score) == (20, 200, 0.7)
    refused = run("adapt", photos, "--out", tmp_path / "run", "--aligned", "--faces", "0")
    assert (refused.code, refused.err.startswith("--faces is for whole photos")) == (2, True)


@pytest.mark.usefixtures("marks")
def test_names_that_are_not_text_are_reported_too(run: Callable[..., Result], models: Models, tmp_path: Path) -> None:
    save(tmp_path / "photos" / "a\udcff.png", scene())
    (tmp_path / "photos" / "写\udcfe.png").write_text("no")
    result = restored(run, tmp_path / "photos", tmp_path / "out", models)
    assert result.code == 1
    assert [name for name, _ in json.loads(result.out)["failures"]] == ["a\udcff.png", "写\udcfe.png"]
    words = run("restore", tmp_path / "photos", "--out", tmp_path / "out", "--restorer", models[0], "--device", "cpu")
    assert words.code == 1
    assert "写\\udcfe.png" in words.out


# Progress


class Time:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_no_speed_is_shown_before_anything_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Time()
    monkeypatch.setattr(console, "time", clock)
    with console._lines("restored", 60, start=10) as advance:
        for amount, seconds in ((0, 10), (0, 5.5), (8, 5.5), (12, 5.5)):
            clock.now += seconds
            advance(amount)
    assert capsys.readouterr().err.splitlines() == [
        "restored: 10 of 60",
        "restored: 10 of 60",
        "restored: 18 of 60, 2.6 s each, 110 s left",
        "restored: 30 of 60, 1.3 s each, 40 s left",
        "restored: 30 of 60 in 26 s",
    ]


def test_a_bar_survives_a_step_of_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with console._bar("restored", 4) as advance:
        for amount in (0, 1, 3):
            advance(amount)
    assert "1000000000" not in capsys.readouterr().err


# With the detector of the package


def portrait(side: int) -> np.ndarray:
    """A generated face of the samples."""
    with Image.open(list_images(SAMPLES / "truth")[0]) as image:
        return np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.LANCZOS))


def test_whole_photos_are_restored_with_the_built_in_weights_whichever_way_up(
    run: Callable[..., Result], models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNFADE_WEIGHTS", str(tmp_path / "none"))
    monkeypatch.setenv("UNFADE_OFFLINE", "1")
    room = to_bytes(picture(500, 700, 5)[0]) // 3
    room[60:316, 80:336] = portrait(256)
    room[280:408, 500:628] = portrait(128)
    save(tmp_path / "photos" / "two.jpg", room)
    save(tmp_path / "photos" / "turned.jpg", np.rot90(room).copy(), exif=turned())
    save(tmp_path / "photos" / "grey.png", cv2.cvtColor(room, cv2.COLOR_RGB2GRAY))
    save(tmp_path / "photos" / "over.png", np.rot90(room, 2).copy())
    for number, shape in enumerate(((1, 1), (1, 700), (2000, 2), (9, 9))):
        save(tmp_path / "photos" / f"odd{number}.png", to_bytes(picture(*shape, 6)[0]))
    result = restored(run, tmp_path / "photos", tmp_path / "out", models, "--sidecar", "--format", "png")
    assert result.counts == {"found": 8, "done": 4, "skipped": 0, "failed": 0, "no_face": 4}
    points = {}
    for name in ("two", "turned", "grey", "over"):
        told = json.loads((tmp_path / "out" / f"{name}.png.json").read_text())
        assert [face["index"] for face in told["faces"]] == [0, 1]
        points[name] = np.array([face["points"] for face in told["faces"]])
        assert load(tmp_path / "out" / f"{name}.png").shape[:2] == (500, 700)
    points["over"] = (699, 499) - points["over"][::-1]  # the landmarks are those of the face: its left eye first
    for name, apart in (("turned", 8), ("grey", 20), ("over", 8)):
        assert np.allclose(points["two"], points[name], atol=apart), name


def test_an_adaptation_finds_faces_with_the_built_in_weights(
    run: Callable[..., Result], models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNFADE_WEIGHTS", str(tmp_path / "none"))
    monkeypatch.setenv("UNFADE_OFFLINE", "1")
    room = to_bytes(picture(300, 400, 5)[0]) // 3
    room[20:276, 80:336] = portrait(256)
    save(tmp_path / "photos" / "sideways.png", np.rot90(room).copy())
    flags = ("--restorer", models[0], "--prior", models[1], "--device", "cpu")
    flags += ("--start", "5", "--free-from", "3", "--factor", "2", "--steps", "2", "--batch", "1")
    result = run("adapt", tmp_path / "photos", "--out", tmp_path / "run", *flags)
    assert result.code == 0, result.err
    (line,) = (tmp_path / "run" / "faces" / "faces.jsonl").read_text().splitlines()
    (face,) = json.loads(line)["faces"]
    left, right = np.array(face["points"])[:2]
    assert left[1] - right[1] > 40, "turned counterclockwise, the left eye lies below the right one"


def turned() -> Image.Exif:
    """Rotate by 270 degrees (counter-clockwise) to be upright, as np.rot90 turned it by 90."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif
