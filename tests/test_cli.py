"""The command line: what it prints, its exit codes, and that every flag arrives."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import unfade.recipes.adapt
import unfade.recipes.pretrain
from command import Run
from tiny_models import write_faces
from unfade.cli.flags import BASIC, FACES, OUTPUT, PRIOR, TRAINING, USUAL
from unfade.recipes.adapt_settings import AdaptSettings, settings_for
from unfade.training.loop import History

Models = tuple[Path, Path]
QUICK = ("--spacing", "20", "--start", "6", "--free-from", "3", "--factor", "4")


def test_help_and_import_are_light() -> None:
    """No heavy package is loaded before a command needs it."""
    script = (
        "import sys, unfade, unfade.cli; print(sorted({'torch', 'numpy', 'PIL', 'cv2', 'jinja2'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "[]\n"


def test_every_command_has_help(run: Run) -> None:
    for command in (
        "demo",
        "adapt",
        "restore",
        "targets",
        "finetune",
        "degrade",
        "inspect",
        "rehearse",
        "data",
        "evaluate",
        "doctor",
        "train",
        "models",
    ):
        result = run(command, "--help")
        assert (result.code, result.err) == (0, "")
        assert command in result.out


def test_defaults_in_the_help_are_those_of_the_built_in_models() -> None:
    settings = settings_for("small-restorer", "small-prior")
    used = vars(settings.losses) | vars(settings.finetune.loop) | vars(settings.finetune) | vars(settings.targets)
    used |= vars(settings) | {"batch": settings.finetune.loop.batch}
    precision = "bfloat16" if settings.finetune.loop.bf16 and settings.targets.bf16 else "float32"
    assert {name: {**used, "precision": precision}[name] for name in USUAL} == USUAL


def test_the_flags_of_adapt_are_in_panels(run: Run) -> None:
    said = run("adapt", "--help").out
    places = [said.index(f"─ {panel} ─") for panel in (BASIC, FACES, PRIOR, TRAINING, OUTPUT)]
    assert places == sorted(places)
    assert places[2] < said.index("--start") < places[3] < said.index("--learning-rate") < places[4]
    assert "Default: 0.0001." in " ".join(said.replace("│", " ").split())


def test_files_that_are_not_read_are_counted(run: Run, models: Models, tmp_path: Path) -> None:
    faces = write_faces(tmp_path / "faces", 2)
    (tmp_path / "faces" / "a.CR2").touch()
    args = ("--restorer", models[0], "--device", "cpu")
    made = ("restore", tmp_path / "faces", "--aligned", "--out", tmp_path / "out", *args)
    assert "not read: 1 .cr2\n" in run(*made).out
    assert run(*made, "--json").json["passed_over"] == {".cr2": 1}
    adapted = ("adapt", tmp_path / "faces", "--aligned", "--out", tmp_path / "run", *args, "--prior", models[1], *QUICK)
    assert run(*adapted, "--steps", "1", "--batch", "1", "--json").json["passed_over"] == {".cr2": 1}
    clear = Image.open(faces[0]).convert("RGBA")
    clear.paste((0, 0, 0, 0), (0, 0, 9, 9))
    clear.save(tmp_path / "out" / faces[0].name)
    scored = ("evaluate", tmp_path / "out", "--truth", tmp_path / "faces", "--metrics", "psnr")
    told = run(*scored, "--json").json
    assert told["passed_over"] == {str(tmp_path / "faces"): {".cr2": 1}}
    assert told["notes"] == [["face00.png", "transparency laid over white"]]
    said = run(*scored).out
    assert f"not read in {tmp_path / 'faces'}: 1 .cr2\n" in said
    assert "  face00.png: transparency laid over white\n" in said


def test_a_folder_that_is_its_own_output_says_so(run: Run, models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "w", 2)
    for flags in ((), ("--aligned",)):
        result = run("restore", tmp_path / "w", "--out", tmp_path / "w", "--restorer", models[0], *flags)
        assert (result.code, "w is also the input" in result.err) == (2, True)


def test_adapt_says_what_it_did(run: Run, models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "photos", 2)
    (tmp_path / "photos" / "bad.jpg").write_text("no picture")
    args = ("adapt", tmp_path / "photos", "--aligned", "--out", tmp_path / "run", "--restorer", models[0], "--prior")
    options = (models[1], *QUICK, "--steps", "2", "--batch", "2", "--device", "cpu")
    result = run(*args, *options, "--json", "--quiet")
    assert result.code == 1
    assert {k: result.json[k] for k in ("found", "done", "failed", "skipped", "no_face")} == {
        "found": 3, "done": 2, "failed": 1, "skipped": 0, "no_face": 0
    }  # fmt: skip
    assert result.json["failures"][0][0] == "bad.jpg"
    assert Path(result.json["report"]).exists()
    again = run(*args, *options)
    assert again.code == 1
    assert "3 found = 2 done + 0 skipped + 1 failed + 0 without a face" in again.out
    assert "bad.jpg is not a picture" in again.out
    silent = run(*args, *options, "--quiet")
    assert (silent.out, silent.err) == ("", "")


def test_targets_finetune_restore_evaluate(run: Run, models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", 3)
    common = ("--restorer", models[0], "--device", "cpu", "--json")
    made = run("targets", tmp_path / "faces", "--out", tmp_path / "targets", "--prior", models[1], *QUICK, *common)
    assert (made.code, made.json["done"]) == (0, 3)
    tuned = run(
        "finetune", tmp_path / "faces", tmp_path / "targets", "--out", tmp_path / "r.safetensors",
        "--prior", models[1], "--steps", "2", "--batch", "2", *common,
    )  # fmt: skip
    assert (tuned.code, tuned.json["pairs"]) == (0, 3)
    restored = run(
        "restore", tmp_path / "faces", "--aligned", "--out", tmp_path / "restored",
        "--restorer", tmp_path / "r.safetensors", "--json",
    )  # fmt: skip
    assert (restored.code, restored.json["done"]) == (0, 3)
    scores = run(
        "evaluate", tmp_path / "restored", "--truth", tmp_path / "faces", "--csv", tmp_path / "s.csv", "--json"
    )
    assert scores.code == 0
    assert scores.json["scored"] == 3
    assert (tmp_path / "s.csv").read_text().count("\n") == 4
    assert "psnr" in run("evaluate", tmp_path / "restored", "--truth", tmp_path / "faces").out


@pytest.mark.usefixtures("computes_in_bf16")
@pytest.mark.parametrize("change", [
    ("--start", "7"), ("--free-from", "2"), ("--factor", "8"), ("--spacing", "25"), ("--update", "ddim"),
    ("--begin-with", "face"),
    ("--precision", "bfloat16"), ("--seed", "1"),
], ids=lambda change: change[0])  # fmt: skip
def test_flags_of_targets_have_an_effect(run: Run, change: tuple[str, str], models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", 1)
    common = ("--restorer", models[0], "--prior", models[1], "--device", "cpu", "--quiet")
    run("targets", tmp_path / "faces", "--out", tmp_path / "a", *QUICK, *common)
    run("targets", tmp_path / "faces", "--out", tmp_path / "b", *QUICK, *common, *change)
    assert (tmp_path / "a" / "face00.png").read_bytes() != (tmp_path / "b" / "face00.png").read_bytes()


ADAPT_FLAGS = {
    ("--start", "99"): lambda s: s.targets.start == 99,
    ("--free-from", "31"): lambda s: s.targets.free_from == 31,
    ("--factor", "8"): lambda s: s.targets.factor == 8,
    ("--spacing", "100"): lambda s: s.targets.spacing == "100",
    ("--begin-with", "face"): lambda s: s.targets.begin_with == "face",
    ("--update", "ddim"): lambda s: s.targets.update == "ddim",
    ("--rounds", "3"): lambda s: s.rounds == 3,
    ("--steps", "7"): lambda s: s.finetune.loop.steps == 7,
    ("--batch", "5"): lambda s: s.finetune.loop.batch == 5,
    ("--micro-batch", "3"): lambda s: s.finetune.loop.micro_batch == 3,
    ("--learning-rate", "0.5"): lambda s: s.finetune.loop.learning_rate == 0.5,
    ("--no-flip",): lambda s: s.finetune.flip is False,
    ("--hold-out", "0.3"): lambda s: s.finetune.hold_out == 0.3,
    ("--perceptual", "none"): lambda s: s.perceptual == "none",
    ("--perceptual-weight", "0.2"): lambda s: s.losses.perceptual_weight == 0.2,
    ("--texture-weight", "0.3"): lambda s: s.losses.texture_weight == 0.3,
    ("--gan-weight", "0.7"): lambda s: s.losses.gan_weight == 0.7,
    ("--strength", "0.5"): lambda s: s.strength == 0.5,
    ("--precision", "float32"): lambda s: not s.targets.bf16 and not s.finetune.loop.bf16,
    ("--seed", "4"): lambda s: (s.targets.seed, s.finetune.loop.seed) == (4, 4),
}


@pytest.mark.parametrize("flag", ADAPT_FLAGS, ids=lambda flag: flag[0])
def test_flags_of_adapt_arrive(run: Run, flag, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[AdaptSettings] = []

    def record(photos: Path, out: Path, settings: AdaptSettings, **rest: object) -> None:
        seen.append(settings)
        raise KeyboardInterrupt

    monkeypatch.setattr(unfade.recipes.adapt, "adapt", record)
    base = ("adapt", tmp_path, "--aligned", "--out", tmp_path, "--restorer", models[0], "--prior", models[1])
    assert run(*base).code == 130
    run(*base, *flag)
    assert not ADAPT_FLAGS[flag](seen[0])
    assert ADAPT_FLAGS[flag](seen[1])


@pytest.mark.parametrize("what", ["prior", "restorer"])
def test_flags_of_train_arrive(run: Run, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def record(faces: Path, out: Path, recipe: Any, **rest: object) -> History:
        seen.append(recipe)
        return History()

    monkeypatch.setattr(unfade.recipes.pretrain, f"pretrain_{what}", record)
    flags = ("--steps", "7", "--batch", "5", "--micro-batch", "3", "--learning-rate", "0.5", "--seed", "4")
    run(
        "train",
        what,
        tmp_path,
        "--out",
        tmp_path / "x.safetensors",
        *flags,
        "--weight",
        "old=0.5",
        "--precision",
        "float32",
        "--from",
        f"small-{what}",
        "--compile",
    )
    loop = seen[0].loop
    assert (loop.steps, loop.batch, loop.micro_batch, loop.learning_rate, loop.seed) == (7, 5, 3, 0.5, 4)
    assert not loop.bf16
    assert loop.compile
    assert seen[0].weights == {"old": 0.5}
    assert seen[0].start == f"small-{what}"
    assert run("train", what, tmp_path, "--out", "x.safetensors", "--weight", "old").code == 2


def test_the_steps_of_a_prior_are_weighed_as_asked(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(
        unfade.recipes.pretrain, "pretrain_prior", lambda faces, out, recipe, **rest: seen.append(recipe) or History()
    )
    command = ("train", "prior", tmp_path, "--out", tmp_path / "x.safetensors")
    for flags in ((), ("--loss-weighting", "eps")):
        run(*command, *flags)
    assert [recipe.denoising.weighting for recipe in seen] == ["min-snr", "eps"]
    refused = run(*command, "--loss-weighting", "snr")
    assert refused.code == 2
    assert "there are: eps, v, min-snr" in refused.err


def test_flags_of_degrade_have_an_effect(run: Run, tmp_path: Path) -> None:
    write_faces(tmp_path / "truth", 1, size=64)
    results = {}
    for name, flags in {
        "plain": (), "kind": ("--kind", "camera"), "preset": ("--preset", "gfpgan"), "scale": ("--scale", "4"),
        "size": ("--size", "32"), "seed": ("--seed", "3"),
    }.items():  # fmt: skip
        result = run("degrade", tmp_path / "truth", "--out", tmp_path / name, *flags, "--json")
        assert (result.code, result.json["done"]) == (0, 1)
        results[name] = (tmp_path / name / "face00.png").read_bytes()
    assert len(set(results.values())) == len(results)


BAD = {
    "an empty folder": (("restore", "empty", "--aligned", "--out", "out"), "empty holds no pictures"),
    "no folder": (("restore", "nowhere", "--aligned", "--out", "out"), "nowhere is not there"),
    "unknown restorer": (
        ("restore", "faces", "--aligned", "--out", "out", "--restorer", "x"), "no restorer named x, .*small-restorer"
    ),
    "output is input": (("restore", "faces", "--aligned", "--out", "faces"), "faces is also the input"),
    "unknown device": (("doctor", "--device", "gpu9"), "device gpu9 cannot be used"),
    "unknown kind": (("degrade", "faces", "--out", "out", "--kind", "rain"), "named rain.*blind, camera"),
    "unknown preset": (("degrade", "faces", "--out", "out", "--preset", "rain"), "no preset named rain.*swinir"),
    "unknown precision": (("targets", "faces", "--out", "out", "--precision", "int4"), "no precision int4"),
    "no truth": (("evaluate", "faces", "--truth", "empty"), "empty holds no pictures"),
    "unknown model": (("models", "show", "x"), "no model named x.*small-prior"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.replace(" ", "-"))
def test_bad_input_is_one_sentence(run: Run, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args, message = BAD[case]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    write_faces(tmp_path / "faces", 1)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    result = run(*args)
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert re.search(message, result.err), result.err
    assert sorted(path.name for path in tmp_path.rglob("*")) == before, "nothing is left behind"


def test_a_checkpoint_of_another_kind(run: Run, models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", 1)
    result = run("restore", tmp_path / "faces", "--aligned", "--out", tmp_path / "out", "--restorer", models[1])
    assert result.code == 2
    assert "holds a prior (unet), not a restorer" in result.err


def test_models_and_doctor(run: Run) -> None:
    listed = run("models", "list", "--json")
    assert {"small-prior", "small-restorer"} <= {row["name"] for row in listed.json["models"]}
    assert "small-prior" in run("models", "list").out
    shown = run("models", "show", "small-restorer", "--json")
    assert shown.json["licence"] == shown.json["card"]["licence"] == "CC BY-NC-SA 4.0"
    assert len(shown.json["sha256"]) == 64
    checked = run("doctor", "--json", "--device", "cpu")
    assert checked.code == 0
    assert checked.json["seconds_per_face"].keys() == {"restore", "target"}
    assert checked.json["seconds_per_face"]["target"] > checked.json["seconds_per_face"]["restore"] > 0
    assert "retinaface-resnet50" in checked.json["not_pulled"]["detector"]
    assert checked.json["extras"].keys() == {"video", "archs", "vqfr", "onnx", "fleet", "app"}
    assert not re.search(r"[{}\[\]]", run("doctor", "--device", "cpu").out), "words, no dictionaries"


def test_weights_that_are_there_are_not_overwritten(run: Run, models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", 2)
    kept = tmp_path / "kept.safetensors"
    kept.write_bytes(b"somebody's work")
    pair = ("finetune", tmp_path / "faces", tmp_path / "faces", "--restorer", models[0], "--prior", models[1])
    for command in (pair, ("train", "prior", tmp_path / "faces"), ("train", "restorer", tmp_path / "faces")):
        refused = run(*command, "--out", kept, "--steps", "2", "--device", "cpu")
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert "kept.safetensors is there already" in refused.err
        assert "must end in .safetensors" in run(*command, "--out", tmp_path / "x.json", "--steps", "2").err
    assert kept.read_bytes() == b"somebody's work"
    mine = (*pair, "--out", tmp_path / "mine.safetensors", "--batch", "2", "--device", "cpu", "--json")
    assert run(*mine, "--steps", "2").code == 0
    written = (tmp_path / "mine.safetensors").stat().st_mtime_ns
    assert run(*mine, "--steps", "2").code == 0
    assert run(*mine, "--steps", "3").code == 2
    assert (tmp_path / "mine.safetensors").stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("restore", "", "--out", "x"), "The value after restore is empty"),
        (("restore", "x", "--out", ""), "The value after --out is empty"),
        (("restore", "x", "--out="), "The value of --out is empty"),
    ],
)
def test_an_empty_value_is_not_the_present_folder(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_faces(tmp_path, 1)
    refused = run(*words)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.startswith(said)
    assert refused.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["face00.png"]
