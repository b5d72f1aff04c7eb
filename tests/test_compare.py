"""The same faces through many methods."""

import json
import math
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from command import Run
from networks import fake_prior
from recorded import fill_module
from test_targets import toy_restorer
from tiny_diffbir import tiny_diffbir
from tiny_models import write_faces
from unfade.diffusion.sampler import ImageNoise
from unfade.errors import BadInput, UnknownModel
from unfade.images.files import read_image, write_png
from unfade.images.finding import list_images
from unfade.nets.musiq import MUSIQ, MUSIQConfig
from unfade.nets.pgdiff_restorer import PGDiffRestorer, PGDiffRestorerConfig
from unfade.recipes.compare import FIRST, CompareSettings, Comparison, Cost, compare
from unfade.stages.methods import METHODS, Inputs, MethodSettings, walk
from unfade.store.checkpoints import save_weights

Models = tuple[Path, Path]
Done = tuple[Path, CompareSettings, Comparison]
FAST = ("restorer", "ours-short", "dr2")


@pytest.fixture(scope="module")
def done(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("compare")
    write_faces(folder / "faces", 3)
    write_faces(folder / "elsewhere", 3)
    settings = CompareSettings(FAST, str(models[0]), str(models[1]))
    truth, others = folder / "faces", {"theirs": folder / "elsewhere"}
    return folder, settings, compare(folder / "faces", folder / "out", settings, truth=truth, results=others)


def test_every_method_has_a_row_with_scores_and_costs(done: Done) -> None:
    folder, _, comparison = done
    rows = {row["method"]: row for row in comparison.rows()}
    assert list(rows) == [*FAST, "theirs"]
    assert rows["theirs"]["psnr"] == float("inf"), "the same faces"
    assert rows["theirs"]["identity_distance"] == 0 < rows[FIRST]["identity_distance"]
    assert all(rows[name]["psnr"] > 0 and rows[name]["s per face"] > 0 for name in FAST)
    assert rows["theirs"]["s per face"] is None
    assert comparison.counts.found == comparison.counts.done == 9
    assert json.loads((folder / "out" / "table.json").read_text(), parse_constant=pytest.fail)[0]["method"] == FIRST
    assert "theirs" in comparison.report.read_text()
    assert read_image(comparison.sheet).shape[-1] > 4 * 192


def test_more_metrics_are_more_columns(done: Done, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder, settings, before = done
    monkeypatch.setenv("UNFADE_WEIGHTS", str(tmp_path))
    net = fill_module(MUSIQ(MUSIQConfig(24, 32, 2, 1, 8, 4, (16, 24), 32)))
    path = tmp_path / "musiq-koniq.safetensors"
    save_weights(path, net, architecture="musiq", config=asdict(net.config), dtype=torch.float32)
    command = ("compare", folder / "faces", "--out", folder / "out", "--methods", "restorer, ours-short", "--metrics",
               " musiq,", "--restorer", settings.restorer, "--prior", settings.prior, "--json")  # fmt: skip
    alone = run(*command).json["rows"]
    assert [list(row) for row in alone] == [["method", "musiq", "s per face", "peak MB"]] * 2
    both = run(*command, "--truth", folder / "faces").json["rows"]
    assert [row["musiq"] for row in both] == [row["musiq"] for row in alone]
    assert both[0]["psnr"] == before.rows()[0]["psnr"]
    assert "MUSIQ" in before.report.read_text()


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("fid", "fid scores a set"),
        ("deg", "deg compares each result with its truth: give `truth`, or leave deg out"),
        ("cat", "no metric cat"),
        ("maniqa", "unfade models pull maniqa-koniq"),
        ("niqe", r"face00\.png cannot be scored: NIQE looks at blocks of 96 x 96"),
    ],
)
def test_metrics_that_cannot_be_had_are_refused(
    done: Done, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, metric: str, said: str
) -> None:
    folder, settings, _ = done
    monkeypatch.setenv("UNFADE_WEIGHTS", str(tmp_path))
    with pytest.raises((BadInput, UnknownModel), match=said):
        compare(folder / "faces", tmp_path / "out", replace(settings, methods=(FIRST,)), metrics=[metric])


def test_a_second_call_keeps_what_is_there_and_takes_more_methods(done: Done) -> None:
    folder, settings, _ = done
    before = {path: path.stat().st_mtime_ns for path in (folder / "out" / "results").rglob("*.png")}
    more = compare(folder / "faces", folder / "out", replace(settings, methods=(*FAST, "difface")))
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert len(list_images(folder / "out" / "results" / "difface")) == 3
    assert more.scores == {}
    assert more.costs["difface"].seconds is not None
    assert all(more.costs[name] == Cost() for name in FAST), "nothing was left to do, so nothing was measured"


def test_a_face_that_one_method_fails_on_is_left_out_of_all_scores(
    done: Done, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder, settings, before = done
    bad = read_image(folder / "out" / "faces" / "face01.png")

    def failing(method: Any, face: Tensor, *rest: Any) -> Tensor:
        made = walk(method, face, *rest)
        made[[torch.equal(one.cpu(), bad) for one in face]] = math.nan
        return made

    monkeypatch.setattr("unfade.stages.methods.walk", failing)
    made = compare(folder / "faces", tmp_path / "out", replace(settings, methods=FAST[:2]), truth=folder / "faces")
    assert (made.counts.done, made.counts.failed) == (5, 1)
    assert all(set(scores.files) == {"face00.png", "face02.png"} for scores in made.scores.values())
    assert made.scores[FIRST].files["face00.png"] == before.scores[FIRST].files["face00.png"]


def test_every_method_gives_other_pictures(models: Models) -> None:
    """Of the same face with the same noise, and all are pictures."""
    face = torch.rand(1, 3, 32, 32) * 2 - 1
    results = {}
    for name, method in METHODS.items():
        if method.spacing == "1000":
            method = replace(method, spacing="50")
        prior = fake_prior(lambda x, t: 0.3 * x**2, spacing=method.spacing)
        own = tiny_diffbir() if name == "diffbir" else tiny_guide()
        results[name] = walk(method, face, toy_restorer(), prior, ImageNoise([1]), own)
        assert results[name].shape == face.shape
        assert results[name].abs().max() <= 1
    names = list(results)
    assert all(not torch.equal(results[a], results[b]) for i, a in enumerate(names) for b in names[:i])


def tiny_guide() -> PGDiffRestorer:
    return fill_module(PGDiffRestorer(PGDiffRestorerConfig(16, 8, 2)))


def test_a_method_without_the_network_it_was_published_with_is_refused(
    done: Done, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    prior, face = fake_prior(lambda x, t: 0 * x, spacing="50"), torch.zeros(1, 3, 32, 32)
    with pytest.raises(BadInput, match="needs the network that it was published with"):
        walk(METHODS["pgdiff"], face, toy_restorer(), prior, ImageNoise([1]))
    folder, settings, _ = done
    monkeypatch.setenv("UNFADE_WEIGHTS", str(tmp_path / "weights"))
    with pytest.raises(UnknownModel, match="pgdiff-restorer"):
        compare(folder / "faces", tmp_path / "out", replace(settings, methods=("pgdiff",)))


def test_pgdiff_runs_with_its_own_restorer_once_it_is_imported(
    done: Done, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder, settings, _ = done
    monkeypatch.setenv("UNFADE_WEIGHTS", str(tmp_path / "weights"))
    guide = tiny_guide()
    weights = tmp_path / "weights" / "pgdiff-restorer.safetensors"
    weights.parent.mkdir()
    save_weights(weights, guide, architecture="pgdiff-restorer", config=asdict(guide.config), dtype=torch.float32)
    monkeypatch.setitem(METHODS, "pgdiff", replace(METHODS["pgdiff"], spacing="20"))
    monkeypatch.setitem(METHODS, "pgdiff-restored", replace(METHODS["pgdiff-restored"], spacing="20"))
    both = ("pgdiff", "pgdiff-restored")
    done_again = compare(folder / "faces", tmp_path / "out", replace(settings, methods=both))
    assert done_again.counts.done == 6
    own, restored = (read_image(tmp_path / "out" / "results" / name / "face00.png") for name in both)
    assert not torch.equal(own, restored)


def test_filters_keep_their_share_of_a_face() -> None:
    given = {side: Inputs(torch.zeros(1, 3, side, side), torch.zeros(1, 3, side, side)) for side in (32, 128, 512)}
    assert [given[side].factor(16, 512) for side in given] == [2, 4, 16]
    assert given[128].factor(32, 256) == 16


@pytest.mark.usefixtures("computes_in_bf16")
@pytest.mark.parametrize("change", [{"seed": 1}, {"bf16": True}])
def test_settings_of_methods_have_an_effect(change: dict[str, int], done: Done, tmp_path: Path) -> None:
    folder, settings, _ = done
    assert {field.name for field in fields(MethodSettings)} == {"seed", "bf16", "batch"}
    one = replace(settings, methods=("ours-short",), run=replace(settings.run, **change))
    compare(folder / "faces", tmp_path / "out", one)
    name = list_images(folder / "faces")[0].stem
    ours, changed = (root / "results" / "ours-short" / f"{name}.png" for root in (folder / "out", tmp_path / "out"))
    assert not torch.equal(read_image(ours), read_image(changed))


def test_a_face_is_restored_the_same_in_any_batch(done: Done, tmp_path: Path) -> None:
    folder, settings, _ = done
    compare(folder / "faces", tmp_path / "out", replace(settings, run=replace(settings.run, batch=1)))
    for path in (folder / "out" / "results" / "ours-short").glob("*.png"):
        same = read_image(tmp_path / "out" / "results" / "ours-short" / path.name)
        assert (read_image(path) - same).abs().max() <= 2 / 255 * 1.01


def test_bad_input_is_one_sentence(done: Done, tmp_path: Path) -> None:
    folder, settings, _ = done
    (tmp_path / "truth").mkdir()
    some = list_images(folder / "faces")[0]
    write_png(tmp_path / "truth" / some.name, read_image(some))
    with pytest.raises(BadInput, match=r"2 faces have no truth in .*truth: face01\.png, face02\.png"):
        compare(folder / "faces", tmp_path / "a", replace(settings, methods=(FIRST,)), truth=tmp_path / "truth")
    write_png(tmp_path / "other" / some.name, read_image(some))
    with pytest.raises(BadInput, match=r"Every result needs a truth of the same name"):
        compare(
            folder / "faces", tmp_path / "b", replace(settings, methods=(FIRST,)), truth=folder / "faces",
            results={"theirs": tmp_path / "other"},
        )  # fmt: skip
    for methods in ((), (FIRST, FIRST)):
        with pytest.raises(BadInput, match="Name one or more methods, each once"):
            replace(settings, methods=methods)


def test_the_command(run: Run, models: Models, done: Done, tmp_path: Path) -> None:
    folder, _, _ = done
    base = ("compare", folder / "faces", "--restorer", models[0], "--prior", models[1], "--device", "cpu", "--quiet")
    args = ("--methods", "restorer,ours-short", "--truth", folder / "faces", "--results", f"x={folder / 'elsewhere'}")
    result = run(*base, "--out", tmp_path / "out", *args, "--json").json
    assert [row["method"] for row in result["rows"]] == ["restorer", "ours-short", "x"]
    assert (result["found"], result["done"]) == (6, 6)
    for wrong, message in ((("--methods", "x"), "no restorer named x"), (("--results", "x"), "not NAME=FOLDER")):
        failed = run(*base, "--out", tmp_path / "no", *wrong)
        assert failed.code == 2
        assert message in failed.err
