"""`unfade rehearse`: every flag arrives, and what it prints."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import unfade.recipes.rehearse
from tiny_models import write_faces
from unfade.cli import app
from unfade.recipes.rehearse import RehearseSettings
from unfade.stages.degrade import Degradation

Models = tuple[Path, Path]
Seen = tuple[Degradation, RehearseSettings]

FLAGS: dict[tuple[str, ...], Callable[[Any, RehearseSettings], bool]] = {
    ("--kind", "blind"): lambda d, s: d.kind == "blind",
    ("--preset", "severe"): lambda d, s: d.settings.iso == 3000,
    ("--scale", "8"): lambda d, s: d.settings.scale == 8,
    ("--iso", "2000"): lambda d, s: d.settings.iso == 2000,
    ("--demosaic", "bilinear"): lambda d, s: d.settings.demosaic == "bilinear",
    ("--learn", "0.4"): lambda d, s: s.learn == 0.4,
    ("--most", "20"): lambda d, s: s.most == 20,
    ("--start", "50"): lambda d, s: s.adapt.targets.start == 50,
    ("--free-from", "20"): lambda d, s: s.adapt.targets.free_from == 20,
    ("--factor", "2"): lambda d, s: s.adapt.targets.factor == 2,
    ("--spacing", "100"): lambda d, s: s.adapt.targets.spacing == "100",
    ("--rounds", "2"): lambda d, s: s.adapt.rounds == 2,
    ("--steps", "9"): lambda d, s: s.adapt.finetune.loop.steps == 9,
    ("--learning-rate", "0.5"): lambda d, s: s.adapt.finetune.loop.learning_rate == 0.5,
    ("--seed", "4"): lambda d, s: (s.seed, s.adapt.targets.seed, s.adapt.finetune.loop.seed) == (4, 4, 4),
}


def test_the_folder_of_more_faces_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    def record(*args: object, more: Path | None, **rest: object) -> None:
        seen.append(more)
        raise KeyboardInterrupt

    monkeypatch.setattr(unfade.recipes.rehearse, "rehearse", record)
    base = ["rehearse", str(tmp_path), "--out", str(tmp_path / "out")]
    CliRunner().invoke(app, base)
    CliRunner().invoke(app, [*base, "--more", str(tmp_path / "others")])
    assert seen == [None, tmp_path / "others"]


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag[0])
def test_flags_arrive(flag: tuple[str, ...], models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Seen] = []

    def record(faces: Path, out: Path, degradation: Degradation, settings: RehearseSettings, **rest: object) -> None:
        seen.append((degradation, settings))
        raise KeyboardInterrupt

    monkeypatch.setattr(unfade.recipes.rehearse, "rehearse", record)
    base = ["rehearse", str(tmp_path), "--out", str(tmp_path / "out"), "--restorer", str(models[0]), "--prior"]
    CliRunner().invoke(app, [*base, str(models[1])])
    CliRunner().invoke(app, [*base, str(models[1]), *flag])
    assert not FLAGS[flag](*seen[0])
    assert FLAGS[flag](*seen[1])


def test_a_fidelity_is_refused_before_anything_is_written(models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", 4)
    args = ["rehearse", str(tmp_path / "faces"), "--out", str(tmp_path / "out"), "--restorer", str(models[0])]
    result = CliRunner().invoke(app, [*args, "--prior", str(models[1]), "--fidelity", "0.3"])
    assert "The fidelity of a swinir cannot be set" in str(result.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["rehearse", "targets"])
def test_settings_of_targets_are_refused_before_anything_is_written(
    command: str, models: Models, tmp_path: Path
) -> None:
    write_faces(tmp_path / "faces", 4)
    args = [command, str(tmp_path / "faces"), "--out", str(tmp_path / "out"), "--restorer", str(models[0])]
    result = CliRunner().invoke(app, [*args, "--prior", str(models[1]), "--start", "999"])
    assert "Expected `start` to lie in" in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_it_says_what_came_of_it(models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", 6)
    args = ["rehearse", str(tmp_path / "faces"), "--out", str(tmp_path / "out"), "--restorer", str(models[0])]
    args += ["--prior", str(models[1]), "--learn", "0.5", "--steps", "2", "--spacing", "20", "--start", "4"]
    args += ["--free-from", "2", "--device", "cpu"]
    words = CliRunner().invoke(app, args)
    assert words.exit_code == 0, words.output
    assert "adapted to 3 photos, scored on 3 others" in words.output
    assert "share of the gap, psnr" in words.output
    assert "3 faces to adapt to and 3 to score are few: " in words.output
    result = json.loads(CliRunner().invoke(app, [*args, "--json"]).stdout)
    assert result["share"].keys() == {"psnr", "ssim", "feature_distance", "identity_distance"}
    assert result["degradation"]["settings"]["iso"] == 1500
    assert CliRunner().invoke(app, [*args, "--quiet"]).output == ""
