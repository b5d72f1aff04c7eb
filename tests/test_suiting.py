"""Which built-in restorer an adaptation begins with if none is named."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import unfade
from adapt_settings import small
from marked import save, scene, squares
from unfade.jobs.runs import open_run
from unfade.progress import silent
from unfade.recipes.adapt_settings import AdaptSettings, settings_for
from unfade.recipes.sources import SEARCHED, AlignedFaces, Finding, FindSettings, WholePhotos
from unfade.recipes.suiting import suited
from unfade.stages.photos import Choice
from unfade.zoo.load import Loaded

SMALL, LARGE = "small-restorer", "small-restorer-256"


def write_squares(folder: Path, *sides: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number, side in enumerate(sides):
        noise = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{len([*folder.iterdir()]):03d}-{number}.png")
    return folder


def chosen(folder: Path, out: Path) -> str:
    return suited(settings_for, AlignedFaces(folder), out).restorer


def test_most_faces_decide(tmp_path: Path) -> None:
    assert chosen(write_squares(tmp_path / "small", 100, 160, 400), tmp_path / "run") == SMALL
    assert chosen(write_squares(tmp_path / "large", 100, 161, 400), tmp_path / "run") == LARGE


def test_settings_are_those_of_the_restorer_that_was_chosen(tmp_path: Path) -> None:
    found = suited(settings_for, AlignedFaces(write_squares(tmp_path / "faces", 300)), tmp_path / "run")
    assert found == settings_for(LARGE)
    assert found.prior == "small-prior-256"
    named = AdaptSettings(restorer="mine")
    assert suited(named, AlignedFaces(tmp_path / "faces"), tmp_path / "run") is named


def test_what_cannot_be_read_has_no_size(tmp_path: Path) -> None:
    folder = write_squares(tmp_path / "faces", 300)
    for name in ("a.png", "b.png", "c.png"):
        (folder / name).write_text("no")
    assert chosen(folder, tmp_path / "run") == LARGE
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_text("no")
    assert chosen(tmp_path / "bad", tmp_path / "run") == SMALL


def test_a_run_that_goes_on_keeps_its_restorer(tmp_path: Path) -> None:
    folder = write_squares(tmp_path / "faces", 100)
    with open_run(tmp_path / "run", {"adapt": {"restorer": chosen(folder, tmp_path / "run")}}):
        pass
    write_squares(folder, *[300] * 5)
    assert chosen(folder, tmp_path / "run") == SMALL
    assert chosen(folder, tmp_path / "other") == LARGE


def test_a_foreign_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps(["no"]))
    with pytest.raises(unfade.OutputConflict, match="was not written by unfade"):
        chosen(write_squares(tmp_path / "faces", 100), tmp_path / "run")


def test_some_of_many_pictures_are_searched(tmp_path: Path) -> None:
    folder = write_squares(tmp_path / "faces", *[64] * (2 * SEARCHED + 1))
    assert len(AlignedFaces(folder).sides(tmp_path / "run", silent)) == 17  # every third of 49


def test_faces_of_whole_photos_are_measured(tmp_path: Path) -> None:
    save(tmp_path / "photos" / "a.png", scene((5, 8, 20), (50, 20, 24)))
    save(tmp_path / "photos" / "b.png", scene())
    detector = tmp_path / "detector"
    detector.write_text("finds bright squares")
    for choice, count in (("all", 2), ("largest", 1)):
        find = Finding(FindSettings(choice=Choice(choice)), Loaded(squares, detector, "marks", "unknown"))
        sides = WholePhotos(tmp_path / "photos", find).sides(tmp_path / "run", silent)
        assert len(sides) == count
        assert all(20 < side < 80 for side in sides)


def test_adapt_asks_for_the_settings_of_the_restorer_that_suits(models: tuple[Path, Path], tmp_path: Path) -> None:
    write_squares(tmp_path / "faces", 300, 300)
    asked: list[str] = []

    def settings(restorer: str) -> AdaptSettings:
        asked.append(restorer)
        return small(*models)

    done = unfade.adapt(tmp_path / "faces", tmp_path / "run", settings, aligned=True, device="cpu")
    assert asked == [LARGE]
    assert done.begun_with == str(models[0])
