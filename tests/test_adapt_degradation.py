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
from unfade.jobs.journal import Entry
from unfade.recipes.adapt import adapt
from unfade.recipes.adapt_report import Ran
from unfade.recipes.adapt_settings import AdaptSettings, as_published
from unfade.recipes.tuning import warnings_of
from unfade.training.loop import History

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


def test_what_to_know_of_the_restorer_is_said_everywhere(run: Run, models: Models, tmp_path: Path) -> None:
    """On the console, in JSON and in the report; not among what is said of a single photo."""
    few = "Only 3 faces: with fewer than about 20, an adapted restorer may be worse than the pre-trained one."
    unfitted = "How the photos are degraded could not be learned from 3 faces (at least 8 are needed)"
    write_faces(tmp_path / "photos", 3)
    words = ("adapt", tmp_path / "photos", "--out", tmp_path / "run", "--aligned", "--restorer", models[0],
             "--prior", models[1], "--steps", "1", "--batch", "1", "--redegraded", "1")  # fmt: skip
    lines = run(*words).out.splitlines()
    assert few in lines
    assert any(line.startswith(unfitted) for line in lines)
    told = run(*words, "--json").json["warnings"]
    assert told[0] == few
    assert told[1].startswith(unfitted)
    assert len(told) == 2
    page = (tmp_path / "run" / "report.html").read_text()
    assert all(warning in page for warning in told)


def test_what_is_said_of_a_fine_tuning(models: Models) -> None:
    better, worse = (
        History(validations=[{"step": 0, "held_out_l1": 0.2}, {"step": 1, "held_out_l1": after}])
        for after in (0.1, 0.3)
    )
    chosen, published = settings(models), as_published(settings(models))
    assert chosen.finetune.redegraded
    assert warnings_of(better, chosen, 9, fitted=True) == warnings_of(better, published, 3, fitted=False) == []
    kept, few = warnings_of(worse, chosen, 5, fitted=False)
    assert kept == "Adapting made held-out faces worse, so the pre-trained weights were kept."
    assert "from 5 faces (at least 8 are needed)" in few
    alone = replace(chosen, finetune=replace(chosen.finetune, hold_out=0.0))
    assert "(at least 6 are needed)" in warnings_of(better, alone, 5, fitted=False)[0]


def test_one_is_not_said_as_many() -> None:
    def told(faces: int, left_out: list[str]) -> list[str]:
        done = [Entry("restored", f"{i}.png", "done") for i in range(faces)]
        return Ran([], done, [], left_out, History(), {}).warnings

    assert told(1, ["a.png"]) == [
        "Only 1 face: with fewer than about 20, an adapted restorer may be worse than the pre-trained one.",
        "1 target disagreed with its photo and was not used: a.png.",
    ]
    names = [f"{i}.png" for i in range(12)]
    many = "12 targets disagreed with their photos and were not used: "
    assert told(20, names) == [f"{many}{', '.join(names[:10])} and 2 more."]
    assert told(20, []) == []


def test_finetune_says_it_too(run: Run, models: Models, tmp_path: Path) -> None:
    for folder, first in (("faces", 0), ("targets", 50)):
        save_pictures(tmp_path / folder, ["0.png", "1.png"], size=32, first_seed=first)
    (few,) = finetuned(run, models, tmp_path, "--json").json["warnings"]
    assert few.startswith("How the photos are degraded could not be learned from 2 faces")
    assert few in finetuned(run, models, tmp_path).out.splitlines()


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
