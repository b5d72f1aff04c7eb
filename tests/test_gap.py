"""The share of a gap: closed forms, intervals, and what it must not depend on."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from toys import Alive, save_pictures
from unfade.evaluation.gap import METRICS, Row, estimates, features_of, gains, shares
from unfade.images.files import read_image

FACES = 30


def row(level: float, *, shift: float | None = None, seed: int = 0) -> Row:
    """Faces whose metrics lie `level` above a base of their own, and whose features lie `shift` off the truth's."""
    base = np.random.default_rng(seed).standard_normal(FACES) * 5
    files = {f"{i:02d}.png": dict.fromkeys(METRICS, float(base[i] + level)) for i in range(FACES)}
    features = np.random.default_rng(1).standard_normal((FACES, 4, 3)) + (shift or 0)
    return Row(files, {} if shift is None else {"toy": features})


def rows(before: float, after: float, upper: float) -> dict[str, Row]:
    return {"pre-trained": row(before), "adapted": row(after), "supervised": row(upper), "truth": row(0)}


@settings(max_examples=10, deadline=None)
@given(st.floats(-3, 3), st.floats(-1, 2))
def test_the_share_of_a_known_gap(before: float, part: float) -> None:
    found = shares(rows(before, before + part * 2, before + 2), seed=0)
    assert found.keys() == set(METRICS)
    for share in found.values():  # every face gains the same, so there is no doubt about it
        assert (share.value, share.low, share.high) == pytest.approx((part, part, part), abs=1e-9)


def test_the_interval_grows_with_the_doubt() -> None:
    sure, unsure = rows(0, 1, 2), rows(0, 1, 2)
    unsure["adapted"] = row(1, seed=7)
    assert shares(sure, seed=0)["psnr"].high - shares(sure, seed=0)["psnr"].low < 1e-9
    share = shares(unsure, seed=0)["psnr"]
    assert share.low < share.value < share.high
    assert share == shares(unsure, seed=0)["psnr"]


def test_the_frechet_distance_of_shifted_features() -> None:
    truth = row(0, shift=0)
    moved = {name: row(0, shift=by) for name, by in {"pre-trained": 2.0, "adapted": 1.0, "supervised": 0.0}.items()}
    for name, distance in {"pre-trained": 3 * 4.0, "adapted": 3 * 1.0, "supervised": 0.0}.items():
        assert estimates(moved[name], truth, seed=0)["frechet_toy"].value == pytest.approx(distance, abs=1e-6)
    assert shares({**moved, "truth": truth}, seed=0)["frechet_toy"].value == pytest.approx(0.75, abs=1e-6)


def test_where_there_is_no_gap_there_is_no_share() -> None:
    assert all(math.isnan(share.value) for share in shares(rows(1, 2, 1), seed=0).values())


def test_faces_are_put_in_order() -> None:
    found = row(1.0)
    backwards = Row(dict(reversed(found.files.items())), {})
    np.testing.assert_array_equal(found.values("psnr"), backwards.values("psnr"))


@settings(max_examples=5, deadline=None)
@given(st.floats(-3, 3))
def test_the_gain_of_the_same_faces_is_certain_however_much_they_differ(gain: float) -> None:
    for found in gains(rows(1.0, 1.0 + gain, 2.0), seed=0).values():
        assert (found.value, found.low, found.high) == pytest.approx((gain, gain, gain), abs=1e-9)


def test_features_are_taken_picture_by_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names, counts = [f"{i}.png" for i in range(5)], list[int]()
    save_pictures(tmp_path, names)
    alive = Alive(read_image)
    monkeypatch.setattr("unfade.evaluation.gap.read_image", alive)

    def extract(picture: Tensor) -> np.ndarray:
        counts.append(len(alive.made))
        return picture.flatten(2).mT.numpy()[..., :2]

    found = features_of(tmp_path, names, {"one": extract, "two": extract})
    assert [*found] == ["one", "two"]
    assert found["one"].shape == (5, 256, 2)
    assert max(counts) <= 2
