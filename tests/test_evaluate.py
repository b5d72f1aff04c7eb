"""Folders of results and truth: pairing by name, scores, and what is said about input that does not fit."""

import csv
import json
import math
import re
import warnings
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from command import Run
from recorded import fill_module, picture
from tiny_models import write_faces
from unfade.errors import BadInput
from unfade.evaluation.evaluate import ALONE, LOADED, NAMES, evaluate, with_published_mean
from unfade.evaluation.pairs import METRICS, PROTOCOL, pair_by_stem, score_folder
from unfade.evaluation.sets import PictureSet, SetScores, compare_sets
from unfade.images.files import read_image, write_png
from unfade.metrics.bootstrap import bootstrap_interval
from unfade.metrics.distribution import Moments, StoredStatistics, frechet_distance, kernel_distance, statistics
from unfade.metrics.reference import matched, psnr, ssim
from unfade.nets.arcface import ArcFace, ArcFaceConfig
from unfade.nets.inception import Inception, InceptionConfig
from unfade.nets.maniqa import MANIQA, MANIQAConfig
from unfade.nets.musiq import MUSIQ, MUSIQConfig
from unfade.store.checkpoints import save_weights
from unfade.zoo.load import load_network


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Three pictures, noisier from the first to the third, under names whose order differs from their making."""
    results, truth = tmp_path / "results", tmp_path / "truth"
    for i, name in enumerate(["m", "a", "z"]):
        clean = picture(24, 20, seed=i)[0]
        write_png(truth / f"{name}.png", clean)
        write_png(results / f"{name}.png", clean * (0.95 - 0.1 * i) + 0.02)
    return results, truth


def test_pairs_go_by_name_whatever_the_ending(folders: tuple[Path, Path]) -> None:
    results, truth = folders
    (truth / "a.png").rename(truth / "a.webp")
    assert pair_by_stem(results, truth) == [
        (results / "a.png", truth / "a.webp"),
        (results / "m.png", truth / "m.png"),
        (results / "z.png", truth / "z.png"),
    ]


@pytest.mark.parametrize("side", [0, 1])
def test_a_missing_file_is_named_and_shifts_nothing(folders: tuple[Path, Path], side: int) -> None:
    (folders[side] / "a.png").unlink()
    with pytest.raises(BadInput, match=rf"a\.png only in .*{folders[1 - side].name}"):
        score_folder(*folders)


def test_only_the_first_few_missing_files_are_named(folders: tuple[Path, Path]) -> None:
    for i in range(9):
        write_png(folders[0] / f"only{i}.png", picture(24, 20, seed=i)[0])
    with pytest.raises(BadInput, match=r"only0\.png .* and 6 more") as caught:
        pair_by_stem(*folders)
    assert "only3" not in str(caught.value)


def test_two_files_of_one_name_are_refused(folders: tuple[Path, Path]) -> None:
    write_png(folders[1] / "a.jpg", picture(24, 20, seed=0)[0])
    with pytest.raises(BadInput, match=r"a\.jpg and a\.png"):
        pair_by_stem(*folders)


def test_scores_are_those_of_the_metrics(folders: tuple[Path, Path]) -> None:
    scores = score_folder(*folders)
    assert list(scores.files) == ["a.png", "m.png", "z.png"]
    assert list(scores.summary) == ["psnr", "ssim", "psnr_matched", "ssim_matched"]
    for name, values in scores.files.items():
        restored, truth = (read_image(folder / name)[None] for folder in folders)
        assert values["psnr"] == psnr(restored, truth).item()
        assert values["ssim"] == ssim(restored, truth).item()
        assert values["psnr_matched"] == psnr(matched(restored, truth), truth).item() > values["psnr"]
        assert values["ssim_matched"] == ssim(matched(restored, truth), truth).item()
    assert scores.files["m.png"]["psnr"] > scores.files["a.png"]["psnr"] > scores.files["z.png"]["psnr"]


def test_summary_is_the_mean_with_its_interval(folders: tuple[Path, Path]) -> None:
    values = [f["psnr"] for f in score_folder(*folders).files.values()]
    mean = score_folder(*folders).summary["psnr"]
    assert (mean.mean, mean.count) == (pytest.approx(sum(values) / 3), 3)
    assert (mean.low, mean.high) == bootstrap_interval(values, rng=np.random.default_rng(0))
    assert min(values) <= mean.low < mean.mean < mean.high <= max(values)


def test_the_generator_decides_the_interval_and_nothing_else(folders: tuple[Path, Path]) -> None:
    for i in range(12):
        write_png(folders[0] / f"{i}.png", picture(24, 20, seed=20 + i)[0] * (0.4 + 0.05 * i))
        write_png(folders[1] / f"{i}.png", picture(24, 20, seed=20 + i)[0])
    one, other = score_folder(*folders), score_folder(*folders, rng=lambda: np.random.default_rng(1))
    assert one.files == other.files
    assert one.summary["ssim"].mean == other.summary["ssim"].mean
    assert (one.summary["ssim"].low, one.summary["ssim"].high) != (
        other.summary["ssim"].low,
        other.summary["ssim"].high,
    )


def test_extra_metrics_are_scored_too(folders: tuple[Path, Path]) -> None:
    scores = score_folder(*folders, metrics={**METRICS, "l1": lambda a, b: (a - b).abs().mean((1, 2, 3))})
    assert list(scores.summary) == [*METRICS, "l1"]
    assert scores.summary["l1"].mean == pytest.approx(np.mean([f["l1"] for f in scores.files.values()]))


def test_a_network_as_metric_is_not_differentiated(folders: tuple[Path, Path]) -> None:
    weight = torch.ones(1, requires_grad=True)
    seen = []
    score_folder(
        *folders, metrics={"net": lambda a, b: seen.append((a.mean((1, 2, 3)) * weight).requires_grad) or a[0, 0, 0, 0]}
    )
    assert seen == [False] * 3


def test_progress_sees_every_pair(folders: tuple[Path, Path]) -> None:
    seen = []
    score_folder(*folders, track=lambda pairs: (seen.append(pair) or pair for pair in pairs))
    assert seen == pair_by_stem(*folders)


def test_other_sizes_are_refused_with_the_name(folders: tuple[Path, Path]) -> None:
    write_png(folders[0] / "m.png", picture(24, 21, seed=0)[0])
    with pytest.raises(BadInput, match=r"results/m\.png has 21 x 24 pixels and .*truth/m\.png has 20 x 24"):
        score_folder(*folders)


def test_pictures_below_the_window_are_refused_with_the_name(folders: tuple[Path, Path]) -> None:
    for folder in folders:
        write_png(folder / "a.png", picture(24, 8, seed=0)[0])
    with pytest.raises(BadInput, match=r"a\.png has 8 x 24 pixels; scoring needs at least 11 x 11"):
        score_folder(*folders)


def test_an_unreadable_file_is_listed_and_the_rest_goes_on(folders: tuple[Path, Path]) -> None:
    (folders[0] / "a.png").write_text("not a picture")
    found = score_folder(*folders).as_dict()
    assert (found["found"], found["scored"]) == (3, 2)
    assert [entry["file"] for entry in found["failed"]] == ["a.png"]
    assert found["summary"]["psnr"]["count"] == 2


def test_nothing_readable_is_an_error(folders: tuple[Path, Path]) -> None:
    for path in folders[0].iterdir():
        path.write_text("not a picture")
    with pytest.raises(BadInput, match="None of the 3 pairs"):
        score_folder(*folders)


def test_json_is_standard_even_for_perfect_results(folders: tuple[Path, Path]) -> None:
    scores = score_folder(folders[1], folders[1], metrics={**METRICS, "odd": lambda a, b: a.mean((1, 2, 3)) * math.nan})
    assert scores.summary["psnr"].mean == math.inf
    read = json.loads(json.dumps(scores.as_dict(), allow_nan=False))
    assert read["summary"]["psnr"] == {"mean": None, "low": None, "high": None, "count": 3}
    assert read["summary"]["odd"]["mean"] is None
    assert read["files"]["a.png"]["ssim"] == pytest.approx(1)
    assert set(read["protocol"]) == set(METRICS)


def test_csv_has_one_line_per_file(folders: tuple[Path, Path], tmp_path: Path) -> None:
    scores = score_folder(*folders)
    scores.write_csv(tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == list(scores.files)
    assert [float(row["ssim"]) for row in rows] == [values["ssim"] for values in scores.files.values()]


# Oracles


def test_psnr_and_ssim_equal_torchmetrics() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = pytest.importorskip("torchmetrics.functional.image")
    restored, truth = picture(64, 48, 1).double() * 0.8, picture(64, 48, 1).double()
    a, b = (restored + 1) * 127.5, (truth + 1) * 127.5
    ours = psnr(restored, truth).item()
    assert ours == pytest.approx(image.peak_signal_noise_ratio(a, b, data_range=255.0).item(), rel=1e-5)
    _, each = image.structural_similarity_index_measure(a, b, sigma=1.5, data_range=255.0, return_full_image=True)
    inside = each[..., 5:-5, 5:-5].mean().item()  # its own mean takes in the border too, where the window is mirrored
    assert ssim(restored, truth).item() == pytest.approx(inside, rel=1e-5)


# Metrics by name

TINY = InceptionConfig(width=1 / 16)
ARCFACE = ArcFaceConfig(size=32, width=4, blocks=(1, 1, 1, 1), embedding=8)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of imported models."""
    monkeypatch.setenv("UNFADE_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.delenv("UNFADE_OFFLINE", raising=False)
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


@pytest.fixture
def here(weights: Path) -> Path:
    """Small networks of every metric, under the names of the published ones, and statistics of three pictures."""
    kinds = {"inception-fid": ("inception", Inception, TINY), "arcface-18": ("arcface", ArcFace, ARCFACE)}
    for name, (kind, build, config) in kinds.items():
        network, path = fill_module(build(config)), weights / f"{name}.safetensors"
        save_weights(path, network, architecture=kind, config=asdict(config), dtype=torch.float32)
    return weights


def tiny_features(folder: Path) -> np.ndarray:
    net = load_network("inception-fid", "features").network
    with torch.no_grad():
        return np.concatenate([net(read_image(path)[None]).numpy() for path in sorted(folder.iterdir())])


def test_fid_and_kid_carry_their_protocol(run: Run, folders: tuple[Path, Path], here: Path) -> None:
    results, clean = folders
    write_png(results / "more.png", picture(40, 30, seed=9)[0])  # a reference is not paired
    found = run("evaluate", results, "--reference", clean, "--metrics", "fid,kid", "--json").json
    ours, theirs = tiny_features(results), tiny_features(clean)
    assert found["sets"]["fid"] == pytest.approx(frechet_distance(statistics(ours), statistics(theirs)), rel=1e-3)
    assert found["sets"]["kid"] == pytest.approx(kernel_distance(ours, theirs), rel=1e-3, abs=1e-9)
    assert (found["found"], found["scored"], found["failed"]) == (4, 4, [])
    assert (found["sets"]["pictures"], found["sets"]["reference_pictures"]) == (4, 3)
    assert found["sets"]["reference"] == str(clean)
    assert found["sets"]["network"].startswith("inception-fid")
    shown = run("evaluate", results, "--reference", clean)
    assert re.search(r"^fid .*: 4 pictures against .*truth of 3 pictures; inception-fid", shown.out, re.M)
    assert "FID of 3 pictures is far too large" in shown.out
    assert "\nkid" not in shown.out


def test_a_set_against_itself_has_no_distance(folders: tuple[Path, Path], here: Path) -> None:
    sets = evaluate(folders[0], truth=folders[0], metrics=["fid"]).sets
    assert sets is not None
    assert sets.values["fid"] == pytest.approx(0, abs=1e-6)
    assert sets.reference == str(folders[0]), "without a reference it is the truth"


def test_published_statistics_are_a_reference(run: Run, folders: tuple[Path, Path], here: Path) -> None:
    moments, known = statistics(tiny_features(folders[1])), StoredStatistics(TINY.features)
    known.mean.copy_(torch.from_numpy(moments.mean))
    known.cov.copy_(torch.from_numpy(moments.covariance))
    path = here / "fid-ffhq-512.safetensors"
    save_weights(path, known, architecture="statistics", config={"features": TINY.features}, dtype=torch.float64)
    by_name = run("evaluate", folders[0], "--reference", "fid-ffhq-512", "--json").json["sets"]
    by_folder = run("evaluate", folders[0], "--reference", folders[1], "--json").json["sets"]
    assert by_name["fid"] == pytest.approx(by_folder["fid"], rel=1e-6)
    assert (by_name["reference"], by_name["reference_pictures"]) == ("fid-ffhq-512", None)
    refused = run("evaluate", folders[0], "--reference", "fid-ffhq-512", "--metrics", "kid")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "kid needs the pictures of the reference" in refused.err


def test_statistics_of_other_features_are_refused() -> None:
    one = PictureSet("a", statistics(np.ones((2, 3))), 2)
    with pytest.raises(BadInput, match="b has 4 features a picture, but a has 3"):
        compare_sets(["fid"], one, PictureSet("b", Moments(np.zeros(4), np.eye(4))))
    with pytest.raises(BadInput, match="b has only moments"):
        compare_sets(["kid"], replace(one, features=np.ones((2, 3))), PictureSet("b", Moments(np.zeros(3), np.eye(3))))


def test_enough_pictures_are_not_warned_of() -> None:
    many = SetScores({"fid": 1.0}, 3000, 3000, "somewhere", None)
    assert many.warnings == []
    assert replace(many, count=2047).warnings
    assert replace(many, reference_count=100).warnings
    assert replace(many, count=10, values={"kid": 1.0}).warnings == [], "KID is not biased"


def test_metrics_are_chosen(run: Run, folders: tuple[Path, Path], here: Path, tmp_path: Path) -> None:
    results, truth = folders
    command = ("evaluate", results, "--truth", truth, "--metrics", "deg,ssim,fid,feature_distance")
    found = run(*command, "--json", "--csv", tmp_path / "s.csv").json
    assert list(found["files"]["a.png"]) == ["deg", "ssim", "feature_distance"]
    assert set(found["protocol"]) == {"deg", "deg_published", "ssim", "feature_distance"}
    assert found["sets"]["reference"] == str(truth)
    assert (tmp_path / "s.csv").read_text().splitlines()[0] == "file,deg,ssim,feature_distance"
    default = run("evaluate", results, "--truth", truth, "--json").json
    assert list(default["files"]["a.png"]) == list(METRICS)
    assert "sets" not in default


def test_persons_are_compared_where_pictures_are_square(run: Run, folders: tuple[Path, Path], tmp_path: Path) -> None:
    for number, folder in enumerate(("results", "truth")):
        (tmp_path / "square" / folder).mkdir(parents=True)
        write_png(tmp_path / "square" / folder / "a.png", picture(32, 32, 3 + number)[0])
    square = tmp_path / "square"
    found = run("evaluate", square / "results", "--truth", square / "truth", "--json").json
    assert list(found["summary"]) == [*METRICS, "identity_distance"]
    assert found["summary"]["identity_distance"]["mean"] > 0
    assert "one person's is at most 0.6" in found["protocol"]["identity_distance"]
    same = run("evaluate", square / "truth", "--truth", square / "truth", "--json").json
    assert same["summary"]["identity_distance"]["mean"] == 0
    with pytest.raises(BadInput, match=r"a\.png cannot be scored: .* square, .*; leave identity_distance out"):
        evaluate(folders[0], truth=folders[1], metrics=["identity_distance"])


def test_small_angles_are_left_out_of_the_published_mean_only(folders: tuple[Path, Path]) -> None:
    angles = iter([0.0, 4.0, 8.0])
    scores = score_folder(*folders, metrics={"deg": lambda a, b: torch.tensor([next(angles)])})
    summary = with_published_mean(scores).summary
    assert (summary["deg"].mean, summary["deg"].count) == (4, 3)
    assert (summary["deg_published"].mean, summary["deg_published"].count) == (6, 2)
    still = score_folder(*folders, metrics={"deg": lambda a, b: torch.zeros(1)})
    assert with_published_mean(still).summary["deg_published"].count == 0
    json.dumps(with_published_mean(still).as_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("metric", "model"),
    [
        ("lpips", "lpips-vgg"),
        ("lpips_alex", "lpips-alex"),
        ("deg", "arcface-18"),
        ("deg_sface", "sface"),
        ("lmd", "awing-fan"),
        ("musiq", "musiq-koniq"),
        ("maniqa", "maniqa-koniq"),
        ("maniqa_pipal", "maniqa-pipal"),
        ("fid", "inception-fid"),
        ("kid", "inception-fid"),
    ],
)
def test_weights_that_are_absent_are_named_with_their_command(
    run: Run, folders: tuple[Path, Path], weights: Path, metric: str, model: str
) -> None:
    refused = run("evaluate", folders[0], "--truth", folders[1], "--metrics", metric)
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert str(weights / f"{model}.") in refused.err
    assert f"`unfade models pull {model}`" in refused.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "a.png cannot be scored: NIQE looks at blocks of 96 x 96 pixels"),
        (("--reference", "truth", "--metrics", "psnr"), "psnr compares each result with its truth"),
        (("--truth", "truth", "--metrics", "cat"), "There is no metric cat; there are: psnr, "),
        (("--reference", "nobody"), "there are: fid-ffhq-512, fid-celeba-test"),
        (("--reference", "fid-ffhq-512"), "unfade models pull fid-ffhq-512"),
        (("--reference", "truth", "--csv", "s.csv"), "--csv is for the scores of single pictures"),
        (("--metrics", "niqe,psnr"), "give --truth"),
        (
            ("--metrics", "niqe"),
            "a.png cannot be scored: NIQE looks at blocks of 96 x 96 pixels, but this picture has "
            "20 x 24; leave niqe out.",
        ),
    ],
)
def test_what_cannot_be_scored_is_one_sentence(
    run: Run,
    folders: tuple[Path, Path],
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.chdir(folders[0].parent)
    refused = run("evaluate", "results", *arguments)
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert said in refused.err


# Without a truth

QUALITY = {
    "musiq-koniq": ("musiq", MUSIQ, MUSIQConfig(24, 32, 2, 2, 8, 4, (16, 24), 32)),
    "maniqa-koniq": ("maniqa", MANIQA, MANIQAConfig(size=64, width=24, heads=3, hidden=32)),
    "maniqa-pipal": ("maniqa", MANIQA, MANIQAConfig(size=64, width=24, heads=3, hidden=32)),
}


@pytest.fixture
def quality(weights: Path, tmp_path: Path) -> Path:
    """Small networks of the metrics that need no truth, and a folder of two pictures that are large enough for all."""
    for name, (kind, build, config) in QUALITY.items():
        network, path = fill_module(build(config)), weights / f"{name}.safetensors"
        save_weights(path, network, architecture=kind, config=asdict(config), dtype=torch.float32)
    for i, name in enumerate(["b", "a"]):
        write_png(tmp_path / "large" / f"{name}.png", picture(100, 130, seed=i)[0])
    return tmp_path / "large"


def test_pictures_are_scored_by_themselves(run: Run, quality: Path, tmp_path: Path) -> None:
    command = ("evaluate", quality, "--metrics", ",".join(ALONE))
    found = run(*command, "--csv", tmp_path / "s.csv", "--json").json
    assert (found["found"], found["scored"], found["failed"]) == (2, 2, [])
    assert list(found["summary"]) == list(found["protocol"]) == list(ALONE)
    image = read_image(quality / "a.png")[None]
    score = {name: LOADED[name]("cpu")(image, image).item() for name in ALONE}
    assert found["files"]["a.png"] == pytest.approx(score, rel=1e-5)
    assert score["maniqa"] != pytest.approx(score["maniqa_pipal"]), "equal weights, weighed otherwise"
    niqe = found["summary"]["niqe"]
    assert niqe["mean"] == pytest.approx(np.mean([values["niqe"] for values in found["files"].values()]))
    assert (niqe["low"] <= niqe["mean"] <= niqe["high"], niqe["count"]) == (True, 2)
    with (tmp_path / "s.csv").open() as file:
        assert [row["file"] for row in csv.DictReader(file)] == ["a.png", "b.png"]
    assert re.search(r"niqe +", run(*command).out)


def test_with_a_truth_they_are_more_columns(run: Run, quality: Path) -> None:
    found = run("evaluate", quality, "--truth", quality, "--metrics", "musiq,ssim,niqe", "--json").json
    assert list(found["files"]["b.png"]) == ["musiq", "ssim", "niqe"], "in the order that they were named in"
    assert found["files"]["b.png"]["ssim"] == 1
    alone = run("evaluate", quality, "--metrics", "niqe", "--json").json
    assert alone["files"]["b.png"]["niqe"] == found["files"]["b.png"]["niqe"]


def test_they_go_on_without_what_cannot_be_read(run: Run, quality: Path) -> None:
    (quality / "c.png").write_text("not a picture")
    result = run("evaluate", quality, "--metrics", "niqe", "--json")
    assert (result.code, result.json["found"], result.json["scored"]) == (1, 3, 2)
    assert [entry["file"] for entry in result.json["failed"]] == ["c.png"]


def test_a_paired_metric_needs_a_truth(folders: tuple[Path, Path]) -> None:
    with pytest.raises(ValueError, match="psnr compares with a truth"):
        score_folder(folders[0], None)


def test_every_metric_says_how_it_is_taken() -> None:
    assert {*METRICS, *LOADED} <= set(PROTOCOL)
    assert set(ALONE) <= set(LOADED) <= set(NAMES)


def test_sets_go_on_without_what_cannot_be_read(run: Run, folders: tuple[Path, Path], here: Path) -> None:
    (folders[0] / "a.png").write_text("not a picture")
    (folders[1] / "z.png").write_text("not a picture")
    result = run("evaluate", folders[0], "--reference", folders[1], "--json")
    found = result.json
    assert result.code == 1
    assert (found["found"], found["scored"], found["sets"]["reference_pictures"]) == (3, 2, 2)
    assert [entry["file"] for entry in found["failed"]] == ["a.png", f"{folders[1]}/z.png"]
    (folders[0] / "m.png").write_text("not a picture")
    refused = run("evaluate", folders[0], "--reference", folders[1])
    assert refused.code == 2
    assert "need two pictures or more" in refused.err


def test_results_alone_are_scored_by_niqe(tmp_path: Path) -> None:
    for i in range(2):
        write_png(tmp_path / f"{i}.png", picture(192, 192, seed=i)[0])
    alone = evaluate(tmp_path).scores
    named = evaluate(tmp_path, metrics=["niqe"]).scores
    assert alone
    assert named
    assert [*alone.summary] == ["niqe"]
    assert alone.files == named.files


def test_pictures_to_score_that_are_not_there_are_said_to_be_missing(tmp_path: Path) -> None:
    write_faces(tmp_path, 1)
    with pytest.raises(BadInput, match="None of the pictures to score is in"):
        score_folder(tmp_path, tmp_path, stems=["other"])
