"""The NTIRE protocol: its terms, its identity check, and that the sum never passes for the challenge's score."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from command import Run
from recorded import picture
from unfade.errors import BadInput
from unfade.evaluation import ntire
from unfade.evaluation.evaluate import LOADED, Evaluation
from unfade.evaluation.ntire import ABSENT, ALLOWED, LEAST, TERMS, Ntire, cosine, evaluate_ntire
from unfade.evaluation.pairs import Alone, Mean, Scores
from unfade.evaluation.sets import SetScores
from unfade.images.files import write_png


def found(cosines: list[float], *, niqe: float = 4.0, fid: float = 60.0) -> Ntire:
    means = {"maniqa": 0.5, "musiq": 70.0, "niqe": niqe}
    scores = Scores({"a.png": means}, {name: Mean(value, value, value, 1) for name, value in means.items()})
    sets = SetScores({"fid": fid}, 1, 1, "fid-ffhq-512", None)
    identity = Scores({f"{i}.png": {"adaface": value} for i, value in enumerate(cosines)}, {})
    return Ntire(Evaluation(scores, sets), identity, LEAST["lfw"])


def test_terms_are_those_of_the_challenge() -> None:
    good = found([0.7])
    assert good.terms == pytest.approx({"maniqa": 0.5, "musiq": 0.7, "niqe": 0.6, "fid": 0.4})
    assert good.partial_sum == pytest.approx(2.2)
    bad = found([0.7], niqe=12, fid=300).terms
    assert (bad["niqe"], bad["fid"]) == (0, 0)


def test_ten_faces_may_be_of_someone_else_and_eleven_may_not() -> None:
    enough, too_few = found([0.59] * ALLOWED + [0.6] * 5), found([0.59] * (ALLOWED + 1))
    assert (len(enough.below), enough.passed) == (10, True)
    assert (too_few.passed, too_few.partial_sum) == (False, None)
    assert "no sum, because identity fails" in too_few.lines[1]
    assert found([math.nan]).below == ["0.png"]


def test_what_is_missing_is_named_wherever_the_sum_is() -> None:
    told = found([0.7]).as_dict()["ntire"]
    assert isinstance(told, dict)
    assert told["absent"] == list(ABSENT) == ["clipiqa", "qalign"]
    assert "4 of its 6 terms" in str(told["protocol"])
    assert "score" not in told
    assert "without clipiqa, qalign" in found([0.7]).lines[-1]


def test_no_number_stays_none() -> None:
    flat = found([0.7], niqe=math.nan)
    assert math.isnan(flat.terms["niqe"])
    told = flat.as_dict()["ntire"]
    assert isinstance(told, dict)
    assert (told["terms"]["niqe"], told["partial_sum"]) == (None, None)
    json.dumps(told, allow_nan=False)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """(results, photos) of three faces, two of which resemble their photo, and metrics that cost nothing."""
    for i in range(3):
        write_png(tmp_path / "results" / f"{i}.png", picture(32, 32, seed=i)[0])
        write_png(tmp_path / "photos" / f"{i}.png", picture(32, 32, seed=i if i else 9)[0])
    loaded = {name: lambda device: Alone(lambda restored: restored.mean((1, 2, 3))) for name in TERMS if name != "fid"}
    for name, load in loaded.items():
        monkeypatch.setitem(LOADED, name, load)
    embed = lambda batch: batch.flatten(1)[:, ::2000]  # noqa: E731
    monkeypatch.setattr("unfade.evaluation.evaluate.load_embed", lambda device: embed)
    monkeypatch.setattr(ntire, "load_embedder", lambda name, device: lambda faces: (faces + 1).flatten(1)[:, ::7] ** 4)
    return tmp_path / "results", tmp_path / "photos"


def test_the_command(run: Run, folders: tuple[Path, Path]) -> None:
    results, photos = folders
    command = ("evaluate", results, "--protocol", "ntire", "--photos", photos, "--subset", "lfw", "--reference", photos)
    told = run(*command, "--json").json
    assert (told["found"], told["scored"], told["failed"]) == (3, 3, [])
    assert list(told["summary"]) == [name for name in TERMS if name != "fid"]
    identity = told["ntire"]["identity"]
    assert (identity["files"]["1.png"], identity["least"], identity["passed"]) == (pytest.approx(1), 0.6, True)
    assert identity["below"] == [name for name, value in identity["files"].items() if value < 0.6]
    assert told["ntire"]["partial_sum"] == pytest.approx(sum(told["ntire"]["terms"].values()))
    assert "identity passes" in run(*command).out
    (photos / "2.png").write_text("not a picture")
    damaged = run(*command[:-1], results, "--json")
    assert damaged.code == 1
    assert [entry["file"] for entry in damaged.json["failed"]] == ["2.png"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--protocol", "ntire"), "takes --photos FOLDER and --subset NAME"),
        (("--photos", "photos"), "takes --photos FOLDER and --subset NAME"),
        (("--protocol", "other", "--photos", "photos", "--subset", "lfw"), "--protocol ntire takes"),
        (("--protocol", "ntire", "--photos", "p", "--subset", "lfw", "--truth", "t"), "and no --truth"),
        (("--protocol", "ntire", "--photos", "p", "--subset", "mine"), "come from celeba, lfw, celebchild, wider"),
    ],
)
def test_what_does_not_belong_together_is_one_sentence(
    run: Run, folders: tuple[Path, Path], arguments: tuple[str, ...], said: str
) -> None:
    refused = run("evaluate", folders[0], *arguments)
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert said in refused.err


def test_weights_are_missing_before_anything_is_computed(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNFADE_WEIGHTS", str(tmp_path / "none"))
    write_png(tmp_path / "a" / "a.png", picture(32, 32, seed=1)[0])
    refused = run("evaluate", tmp_path / "a", "--protocol", "ntire", "--photos", tmp_path / "a", "--subset", "celeba")
    assert refused.code == 2
    assert "find adaface_ir50_ms1mv2.ckpt (see https://github.com/mk-minchul/AdaFace)" in refused.err


def test_the_subset_sets_the_threshold(folders: tuple[Path, Path]) -> None:
    strict, mild = (evaluate_ntire(*folders, subset, reference=folders[1]) for subset in ("lfw", "wider"))
    assert (strict.least, mild.least) == (0.6, 0.3)
    assert replace(strict, least=2.0).below == ["0.png", "1.png", "2.png"]
    with pytest.raises(BadInput, match="got ffhq"):
        evaluate_ntire(*folders, "ffhq")


def test_cosines_go_picture_by_picture() -> None:
    batch = torch.stack([torch.ones(3, 2, 2), torch.full((3, 2, 2), -0.5)])
    torch.testing.assert_close(
        cosine(lambda faces: faces.flatten(1))(batch, batch.flip(0)), torch.tensor([-1.0, -1.0]), check_dtype=False
    )
