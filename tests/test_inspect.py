"""`unfade inspect`: what damaged the photos of a run, in words, numbers and a picture."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import unfade
from command import Run
from test_degrade_fitted import SIZE, write_degradation
from unfade.degradations.fitted_file import DEGRADATION, load_degradation, save_degradation
from unfade.degradations.measured import SHARPEST, Blur, Damage, Noise, damage_of
from unfade.errors import BadInput, OutputConflict
from unfade.images.files import read_image
from unfade.images.plot import Axis, plot
from unfade.recipes.damage_sheet import damage_sheet
from unfade.recipes.inspect import PICTURE, in_words

EVEN = Blur(2.4, 2.5, 2.3, 12.0, 2.3, (2.2, 2.4, 2.7), (2.5, 2.4, 2.6))
NOISE = Noise((9.0,) * 8, 8.6, 10.0, 12.4, 1.1, 1.1, 1.1, 0.1, (7.4, 10.0, 14.0))
DAMAGE = Damage(12, 0, 128, EVEN, NOISE, (1.0, 1.02, 0.98), 1.0)


def test_words() -> None:
    assert in_words(DAMAGE) == {
        "fitted to": "12 faces of 128 px; lengths are in pixels of such a face",
        "blur": "a point is 2.4 px wide (at half maximum); reducing a face 2.3 times and enlarging it again loses as "
        "much",
        "blur, photo by photo": "2.2 to 2.7 px in 8 out of 10 photos",
        "noise": "standard deviation, in grey levels of 0 to 255: 9 in dark parts, 10 at middle brightness, "
        "12 in bright parts",
        "noise, photo by photo": "7 to 14 at middle brightness in 8 out of 10 photos",
        "grain": "fine, 1.1 px; in colour (correlation of the channels 0.10)",
        "contrast": "kept",
        "JPEG": "no blocks of 8 x 8 pixels found",
    }


SAID = {
    "3 of them without colour": replace(DAMAGE, grey=3),
    "none that can be measured": replace(
        DAMAGE, blur=Blur(SHARPEST, SHARPEST, SHARPEST, 0.0, 1.0, (SHARPEST,) * 3, (SHARPEST,) * 3)
    ),
    "a point is 6.0 px wide at 135 degrees from horizontal, 1.5 px across": replace(
        DAMAGE, blur=replace(EVEN, widest=6.0, across=1.5, angle=135.0)
    ),
    "3.0 (red), 2.0 (green), 3.5 (blue) px": replace(DAMAGE, blur=replace(EVEN, channels=(3.0, 2.0, 3.5))),
    "about 2.4 px in 8 out of 10": replace(DAMAGE, blur=replace(EVEN, photos=(2.42, 2.43, 2.44))),
    "hardly any; in grey levels of 0 to 255: 1 in dark": replace(
        DAMAGE, noise=replace(NOISE, dark=1.0, middle=1.5, bright=1.0)
    ),
    "coarse, 3.0 px": replace(DAMAGE, noise=replace(NOISE, grain=3.0)),
    "uneven, 4.0 px along rows and 1.0 px along columns": replace(DAMAGE, noise=replace(NOISE, rows=4.0, columns=1.0)),
    "partly grey (correlation of the channels 0.60)": replace(DAMAGE, noise=replace(NOISE, correlation=0.6)),
    "; grey (correlation of the channels 0.95)": replace(DAMAGE, noise=replace(NOISE, correlation=0.95)),
    "multiplied by 0.80 (red), 1.00 (green), 1.10 (blue)": replace(DAMAGE, contrast=(0.8, 1.0, 1.1)),
    "steps at their borders are 1.6 times as high": replace(DAMAGE, blocks=1.6),
}


@pytest.mark.parametrize("words", SAID)
def test_other_words_for_other_damage(words: str) -> None:
    assert words in " / ".join(in_words(SAID[words]).values())
    assert words not in " / ".join(in_words(DAMAGE).values())


def test_no_word_of_blocks_where_nothing_is_known() -> None:
    assert "JPEG" not in in_words(replace(DAMAGE, blocks=None))


def test_the_command_says_it_and_draws_a_picture(run: Run, tmp_path: Path) -> None:
    file = write_degradation(tmp_path / "run")
    said = run("inspect", tmp_path / "run")
    picture = tmp_path / "run" / PICTURE
    assert (said.code, said.err) == (0, "")
    lines = [f"{kind}: {text}" for kind, text in in_words(damage_of(load_degradation(file))).items()]
    assert said.out.splitlines() == [*lines, f"picture: {picture}"]
    assert read_image(picture).shape[0] == 3
    silent = run("inspect", file, "--quiet")
    assert (silent.code, silent.out) == (0, "")


def test_numbers_and_another_folder(run: Run, tmp_path: Path) -> None:
    file = write_degradation(tmp_path / "run")
    told = run("inspect", file, "--out", tmp_path / "out", "--json").json
    assert (told["photos"], told["size"], told["grey"]) == (6, SIZE, 0)
    assert told["noise"]["middle"] == pytest.approx(0.2 * 127.5, rel=0.2)
    assert told["blur"]["width"] >= SHARPEST
    assert (told["degradation"], told["picture"]) == (str(file), str(tmp_path / "out" / PICTURE))
    assert (tmp_path / "out" / PICTURE).exists()
    assert not (tmp_path / "run" / PICTURE).exists()
    found = unfade.inspect(file, tmp_path / "out")
    assert found.as_dict()["noise"] == {**told["noise"], "levels": tuple(told["noise"]["levels"])} | {
        "photos": tuple(told["noise"]["photos"])
    }


def test_a_picture_of_something_else_is_kept(run: Run, tmp_path: Path) -> None:
    write_degradation(tmp_path / "run")
    (tmp_path / "run" / PICTURE).write_text("mine")
    said = run("inspect", tmp_path / "run")
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert f"{tmp_path / 'run' / PICTURE} is there already and was not drawn by this command" in said.err
    assert "name another folder as --out" in said.err
    assert (tmp_path / "run" / PICTURE).read_text() == "mine"
    with pytest.raises(OutputConflict, match="`out`"):
        unfade.inspect(tmp_path / "run")


def test_an_older_picture_is_replaced_when_the_run_has_gone_on(tmp_path: Path) -> None:
    write_degradation(tmp_path / "run")
    older = unfade.inspect(tmp_path / "run").picture.read_bytes()
    fitted = load_degradation(tmp_path / "run")
    (tmp_path / "run" / DEGRADATION).unlink()
    save_degradation(tmp_path / "run" / DEGRADATION, replace(fitted, strengths=2 * fitted.strengths), made_of="more")
    newer = unfade.inspect(tmp_path / "run").picture.read_bytes()
    assert newer != older
    assert unfade.inspect(tmp_path / "run").picture.read_bytes() == newer


def test_links_and_folders_in_the_place_of_the_picture_are_kept(tmp_path: Path) -> None:
    write_degradation(tmp_path / "run")
    picture = tmp_path / "run" / PICTURE
    picture.symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputConflict, match="is there already"):
        unfade.inspect(tmp_path / "run")
    assert picture.is_symlink()
    picture.unlink()
    picture.mkdir()
    with pytest.raises(OutputConflict, match="is there already"):
        unfade.inspect(tmp_path / "run")


def test_a_degradation_named_like_a_picture_is_not_in_its_own_way(tmp_path: Path) -> None:
    file = write_degradation(tmp_path).rename(tmp_path / "mine.png")
    before = file.read_bytes()
    assert unfade.inspect(file).picture == tmp_path / "mine.png.png"
    assert file.read_bytes() == before


def test_a_folder_without_a_degradation(run: Run, tmp_path: Path) -> None:
    said = run("inspect", tmp_path)
    assert (said.code, said.err.count("\n"), DEGRADATION in said.err) == (2, 1, True)
    with pytest.raises(BadInput, match="There is no file or folder"):
        unfade.inspect(tmp_path / "nothing")


# The picture


def test_the_picture_follows_from_the_degradation(tmp_path: Path) -> None:
    one, other = (load_degradation(write_degradation(tmp_path / str(seed), seed)) for seed in (0, 1))
    pictures = [damage_sheet(fitted, damage_of(fitted)) for fitted in (one, one, other)]
    assert pictures[0].shape[-1] > pictures[0].shape[-2] > 500
    assert torch.equal(pictures[0], pictures[1])
    assert not torch.equal(pictures[0], pictures[2])


def test_a_curve_is_where_its_points_are() -> None:
    x, y = Axis("px", 0, 10, (0, 5, 10)), Axis("gain", 0, 1, (0, 1))
    red = plot([("#ff0000", [(0, 0.5), (10, 0.5)])], x, y, side=200)
    where = np.argwhere(((red[0] > 0.9) & (red[1] < -0.9)).numpy())
    assert where[:, 0].min() == pytest.approx(10 + 0.5 * (200 - 54), abs=2)
    assert where[:, 0].max() - where[:, 0].min() <= 2
    assert where[:, 1].min() == pytest.approx(44, abs=2)
    assert where[:, 1].max() == pytest.approx(190, abs=2)
    beyond = plot([("#ff0000", [(0, 5.0), (10, -5.0)])], x, y, side=200)
    assert beyond.shape == (3, 200, 200), "values outside are drawn at the edge"
