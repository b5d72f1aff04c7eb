"""Folders of results and truth: pairing by name, scores, and what is said about input that does not fit."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from recorded import picture
from unfade.errors import BadInput
from unfade.images.files import read_image, write_png
from unfade.metrics.bootstrap import bootstrap_interval
from unfade.metrics.reference import matched, psnr, ssim
from unfade.recipes.evaluate import METRICS, pair_by_stem, score_folder


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
    scores = score_folder(*folders, extra={"l1": lambda a, b: (a - b).abs().mean((1, 2, 3))})
    assert list(scores.summary) == [*METRICS, "l1"]
    assert scores.summary["l1"].mean == pytest.approx(np.mean([f["l1"] for f in scores.files.values()]))


def test_a_network_as_metric_is_not_differentiated(folders: tuple[Path, Path]) -> None:
    weight = torch.ones(1, requires_grad=True)
    seen = []
    score_folder(
        *folders, extra={"net": lambda a, b: seen.append((a.mean((1, 2, 3)) * weight).requires_grad) or a[0, 0, 0, 0]}
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
    scores = score_folder(folders[1], folders[1], extra={"odd": lambda a, b: a.mean((1, 2, 3)) * math.nan})
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
