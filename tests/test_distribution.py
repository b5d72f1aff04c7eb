"""Frechet and kernel distance: golden numbers, closed forms, and parts that add up."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorded import arrays
from unfade.metrics.distribution import FeatureStatistics, Moments, frechet_distance, kernel_distance, statistics

GOLDEN = arrays("metrics_fid")


def normal(count: int, dimensions: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, dimensions))


def test_equals_the_published_numbers() -> None:
    a, b, c = (statistics(GOLDEN[f"feat_{name}"]) for name in "abc")
    assert frechet_distance(a, b) == pytest.approx(float(GOLDEN["fid_ab"]), rel=1e-8)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-8)
    assert frechet_distance(c, b) == pytest.approx(float(GOLDEN["fid_cb_singular"]), rel=1e-6)
    assert frechet_distance(b, c) == pytest.approx(frechet_distance(c, b), rel=1e-6)


def test_a_shift_and_a_stretch_in_closed_form() -> None:
    features = normal(200, 5)
    stretched = (features - features.mean(0)) * 3 + features.mean(0) + 2
    variance = np.trace(statistics(features).covariance)
    assert frechet_distance(statistics(features), statistics(stretched)) == pytest.approx(
        5 * 4 + variance * (3 - 1) ** 2
    )


@given(st.lists(st.integers(0, 7), min_size=1, max_size=6))
def test_parts_add_up(lengths: list[int]) -> None:
    features = normal(2 + sum(lengths), 4) * 10 + 1000  # far from 0, where naive sums of squares lose digits
    parts = FeatureStatistics(4)
    for part in np.split(features, np.cumsum([2, *lengths])[:-1]):
        parts.add(part)
    assert parts.count == len(features)
    np.testing.assert_allclose(parts.mean, features.mean(0), rtol=1e-12)
    np.testing.assert_allclose(parts.covariance, np.cov(features.T), rtol=1e-9, atol=1e-9)


def test_the_kernel_distance_does_not_grow_with_few_images() -> None:
    draws = [kernel_distance(normal(10, 8, seed), normal(10, 8, 1000 + seed)) for seed in range(200)]
    spread = np.std(draws) / np.sqrt(len(draws))
    assert abs(np.mean(draws)) < 4 * spread
    assert kernel_distance(normal(50, 8), normal(50, 8, 1) + 1) > 10 * np.std(draws)


def test_the_kernel_distance_by_hand() -> None:
    x, y = np.array([[1.0], [2.0]]), np.array([[0.0], [1.0]])
    across = np.mean([1, 2**3, 1, 3**3])  # (x y + 1)^3 of (1, 0), (1, 1), (2, 0), (2, 1)
    assert kernel_distance(x, y) == pytest.approx(3**3 + 1 - 2 * across)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: statistics(normal(3, 2)).add(normal(3, 4)),
        lambda: statistics(np.array([[np.nan], [1.0]])),
        lambda: statistics(normal(1, 2)).covariance,
        lambda: frechet_distance(statistics(normal(3, 2)), statistics(normal(3, 4))),
        lambda: Moments(np.full(2, np.nan), np.eye(2)),
        lambda: Moments(np.zeros(2), np.full((2, 2), np.inf)),
        lambda: Moments(np.zeros(2), np.eye(3)),
        lambda: kernel_distance(normal(1, 2), normal(3, 2)),
    ],
)
def test_what_cannot_be_compared_is_refused(wrong) -> None:
    with pytest.raises(ValueError, match="features"):
        wrong()
