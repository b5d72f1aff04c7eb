"""Flags of one family of restorers: they arrive, have an effect, and are refused for another family."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import unfade.recipes.adapt
from tiny_codeformer import codeformer
from tiny_models import write_faces
from unfade.cli import app
from unfade.errors import BadInput
from unfade.recipes.adapt_settings import AdaptSettings
from unfade.restorers.code_level import CODE_LOSSES

__all__ = ["codeformer"]

Models = tuple[Path, Path]
QUICK = ("--spacing", "20", "--start", "4", "--free-from", "2", "--factor", "4")

FLAGS: dict[tuple[str, ...], Callable[[AdaptSettings], bool]] = {
    ("--code-losses", "fusion"): lambda s: s.losses == CODE_LOSSES["fusion"],
    ("--fidelity", "0.2"): lambda s: s.fidelity == 0.2,
    ("--code-losses", "fusion", "--gan-weight", "0.7"): lambda s: s.losses.image.gan_weight == 0.7,
    ("--code-losses", "fusion", "--perceptual-weight", "0.3"): lambda s: s.losses.image.perceptual_weight == 0.3,
    ("--code-losses", "fusion", "--perceptual", "none"): lambda s: s.perceptual == "none",
    ("--steps", "7"): lambda s: s.finetune.loop.steps == 7,
    ("--factor", "2"): lambda s: s.targets.factor == 2,
}


def run(*args: object) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.mark.parametrize("flags", FLAGS, ids=lambda flags: " ".join(flags))
def test_flags_of_a_codeformer_arrive(
    flags: tuple[str, ...], codeformer: Path, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[AdaptSettings] = []

    def record(photos: Path, out: Path, settings: AdaptSettings, **rest: object) -> None:
        seen.append(settings)
        raise KeyboardInterrupt

    monkeypatch.setattr(unfade.recipes.adapt, "adapt", record)
    base = ("adapt", tmp_path, "--aligned", "--out", tmp_path, "--restorer", codeformer, "--prior", models[1])
    run(*base)
    run(*base, *flags)
    run(*base, "--code-losses", "codes", "--fidelity", "0.5")
    assert not FLAGS[flags](seen[0])
    assert FLAGS[flags](seen[1])
    assert seen[2] == seen[0] == replace(seen[0], losses=CODE_LOSSES["codes"], fidelity=0.5)


REFUSED = {
    "--gan-weight 0.1": r"--gan-weight is for losses on pictures, but .* learns from codes: leave it out",
    "--perceptual-weight 0.1": "--perceptual-weight is for losses on pictures",
    "--perceptual none": "--perceptual is for losses on pictures",
    "--code-losses all": "no code losses named all; there are: codes, fusion",
    "--fidelity 1.5": r"fidelity must lie in 0\.\.1, got 1\.5",
    "--strength 1.5": r"strength must lie in 0\.\.1 .*got 1\.5",
    "--real faces": "leave `real` out",
}


@pytest.mark.parametrize("flag", REFUSED)
def test_flags_that_make_no_sense_for_codes_are_refused(
    flag: str, codeformer: Path, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_faces(tmp_path / "faces", 1)
    common = ("--restorer", codeformer, "--prior", models[1], "--device", "cpu", *flag.split())
    refused(run("adapt", "faces", "--aligned", "--out", "out", *common), REFUSED[flag])
    if "strength" not in flag:
        refused(run("finetune", "faces", "faces", "--out", "out.safetensors", *common), REFUSED[flag])
    assert [path.name for path in tmp_path.iterdir()] == ["faces"]


def test_flags_of_a_codeformer_are_refused_for_others(models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", 1)
    common = ("--out", tmp_path / "out", "--restorer", models[0], "--device", "cpu")
    with_prior = (*common, "--prior", models[1])
    for command in (("adapt", "--aligned", *with_prior), ("restore", "--aligned", *common), ("targets", *with_prior)):
        refused(
            run(*command, tmp_path / "faces", "--fidelity", "0.5"), "The fidelity of a swinir cannot be set, got 0.5"
        )
    for command in (("adapt", tmp_path / "faces", "--aligned"), ("finetune", tmp_path / "faces", tmp_path / "faces")):
        refused(run(*command, *with_prior, "--code-losses", "codes"), "--code-losses is for CodeFormer")
    assert not (tmp_path / "out").exists()


def refused(result: Result, message: str) -> None:
    assert isinstance(result.exception, BadInput), result.output
    assert re.search(message, str(result.exception))
    assert "\n" not in str(result.exception)


def test_fidelity_and_strength_have_an_effect(codeformer: Path, models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", 1)
    common = ("--restorer", codeformer, "--device", "cpu", "--quiet")
    results = {}
    for name, flags in {
        "usual": (), "half": ("--fidelity", "0.5", "--strength", "1"), "w": ("--fidelity", "1"),
        "s": ("--strength", "0.5"),
    }.items():  # fmt: skip
        done = run("restore", tmp_path / "faces", "--aligned", "--out", tmp_path / name, *common, *flags)
        assert done.exit_code == 0, done.output
        results[name] = (tmp_path / name / "face00.png").read_bytes()
    assert results.pop("half") == results["usual"]
    assert len(set(results.values())) == 3
    settings = json.loads((tmp_path / "w" / "run.json").read_text())["settings"]["restore"]
    assert settings["fidelity"] == 1.0

    targets = []
    for name, flags in {"t": (), "t half": ("--fidelity", "0.5"), "t w": ("--fidelity", "1")}.items():
        where = ("--out", tmp_path / name, "--prior", models[1], *QUICK)
        assert run("targets", tmp_path / "faces", *where, *common, *flags).exit_code == 0
        targets.append((tmp_path / name / "face00.png").read_bytes())
    assert targets[0] == targets[1] != targets[2]
    again = run("targets", tmp_path / "faces", "--out", tmp_path / "t", "--prior", models[1], *QUICK, *common,
                "--fidelity", "0.1")  # fmt: skip
    assert "fidelity = 0.5, now it is 0.1" in str(again.exception)


def test_fine_tuning_is_watched_at_its_fidelity(codeformer: Path, models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", 10)
    scores = []
    for fidelity in ("0.5", "1"):
        out = ("--out", tmp_path / f"{fidelity}.safetensors", "--steps", "1", "--batch", "2", "--precision", "float32")
        done = run("finetune", tmp_path / "faces", tmp_path / "faces", *out, "--restorer", codeformer, "--prior",
                   models[1], "--device", "cpu", "--json", "--fidelity", fidelity)  # fmt: skip
        assert done.exit_code == 0, done.output
        scores.append(json.loads(done.stdout)["held_out"][0]["held_out_l1"])
    assert scores[0] != scores[1]
