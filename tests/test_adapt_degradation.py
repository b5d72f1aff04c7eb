"""An adaptation keeps the degradation that it fitted: beside the restorer, the same after a kill, never a stale one."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import unfade.recipes.tuning
from adapt_settings import small
from command import Result, Run
from tiny_models import write_faces
from toys import save_pictures
from unfade.degradations.fitted import FittedDegradation
from unfade.degradations.fitted_file import DEGRADATION, load_degradation
from unfade.recipes.adapt import adapt
from unfade.recipes.adapt_settings import AdaptSettings, as_published

Models = tuple[Path, Path]
ENOUGH = 9  # faces, of which 2 are held out


def settings(models: Models) -> AdaptSettings:
    usual = small(*models)
    return replace(usual, finetune=replace(usual.finetune, loop=replace(usual.finetune.loop, steps=2)), agreement=0.0)


def test_it_lies_beside_the_restorer_and_in_the_report(models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "photos", ENOUGH)
    done = adapt(tmp_path / "photos", tmp_path / "run", settings(models), aligned=True)
    assert done.degradation == tmp_path / "run" / DEGRADATION
    fitted = load_degradation(tmp_path / "run")
    assert (len(fitted.noise), fitted.size) == (ENOUGH - 2, 32)
    page = (tmp_path / "run" / "report.html").read_text()
    assert DEGRADATION in page
    assert "What damaged these photos" in page
    assert f"{ENOUGH - 2} faces of 32 px" in page


def test_every_round_has_its_own(models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "photos", ENOUGH)
    adapt(tmp_path / "photos", tmp_path / "run", replace(settings(models), rounds=2), aligned=True)
    assert (tmp_path / "run" / "round-1" / DEGRADATION).exists()
    assert (tmp_path / "run" / DEGRADATION).exists()


@pytest.mark.parametrize("how", ["few", "published"])
def test_where_none_is_fitted_there_is_no_file(models: Models, tmp_path: Path, how: str) -> None:
    write_faces(tmp_path / "photos", 4 if how == "few" else ENOUGH)
    chosen = settings(models) if how == "few" else as_published(settings(models))
    done = adapt(tmp_path / "photos", tmp_path / "run", chosen, aligned=True)
    assert done.degradation is None
    assert not (tmp_path / "run" / DEGRADATION).exists()
    assert DEGRADATION not in (tmp_path / "run" / "report.html").read_text()


def test_photos_that_are_gone_leave_no_stale_one(models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "photos", ENOUGH)
    adapt(tmp_path / "photos", tmp_path / "run", settings(models), aligned=True)
    for number in range(4, ENOUGH):
        (tmp_path / "photos" / f"face{number:02}.png").unlink()
    assert adapt(tmp_path / "photos", tmp_path / "run", settings(models), aligned=True).degradation is None


def test_the_command_names_it(run: Run, models: Models, tmp_path: Path) -> None:
    write_faces(tmp_path / "photos", ENOUGH)
    words = ("adapt", tmp_path / "photos", "--aligned", "--restorer", models[0], "--prior", models[1], "--start", "2",
             "--free-from", "1", "--spacing", "20", "--steps", "1", "--batch", "1", "--agreement", "0")  # fmt: skip
    out = tmp_path / "run"
    assert run(*words, "--out", out, "--json").json["degradation"] is None, "tiny restorers do not learn re-degraded"
    fitted = run(*words, "--out", tmp_path / "other", "--redegraded", "1", "--json").json["degradation"]
    assert fitted == str(tmp_path / "other" / DEGRADATION)
    assert f"degradation: {fitted}\n" in run(*words, "--out", tmp_path / "other", "--redegraded", "1").out
    assert "degradation:" not in run(*words, "--out", out).out
    assert run("inspect", tmp_path / "other").code == 0


class Killed(Exception):
    """As a kill would end a run."""


def finetuned(run: Run, models: Models, folder: Path, *flags: str) -> Result:
    places = (folder / "faces", folder / "targets", "--out", folder / "w.safetensors")
    words = ("--restorer", models[0], "--prior", models[1], "--steps", "1", "--batch", "1", "--redegraded", "1")
    return run("finetune", *places, *words, *flags)


def test_finetune_resumes_and_overwrites_nothing(
    run: Run, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{number}.png" for number in range(ENOUGH)]
    for folder, first in (("faces", 0), ("targets", 50)):
        save_pictures(tmp_path / folder, names, size=32, first_seed=first)
    beside, save = tmp_path / f"w.{DEGRADATION}", unfade.recipes.tuning.save_degradation

    def saved_and_killed(path: Path, fitted: FittedDegradation, **how: str) -> None:
        save(path, fitted, **how)
        raise Killed

    monkeypatch.setattr(unfade.recipes.tuning, "save_degradation", saved_and_killed)
    with pytest.raises(Killed):
        finetuned(run, models, tmp_path)
    monkeypatch.undo()
    begun = beside.read_bytes()
    assert not (tmp_path / "w.safetensors").exists()
    done = finetuned(run, models, tmp_path, "--json")
    assert done.code == 0
    assert json.loads(done.out)["degradation"] == str(beside)
    assert beside.read_bytes() == begun
    assert f"degradation: {beside}" in finetuned(run, models, tmp_path).out
    for name in ("w.safetensors", "w.json"):
        (tmp_path / name).unlink()
    refused = finetuned(run, models, tmp_path, "--seed", "1")
    assert refused.code == 2
    assert f"{beside} is there already and was made in another way" in refused.err
    assert beside.read_bytes() == begun
