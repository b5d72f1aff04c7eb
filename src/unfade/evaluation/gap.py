"""The share of the gap: how much of the gain of fine-tuning on the truth adaptation achieves without it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from unfade.images.files import read_image
from unfade.metrics.bootstrap import Indices, Statistic, bootstrap, mean_of
from unfade.metrics.distribution import Moments, frechet_distance

Features = NDArray[np.float32]  # (faces, places, dimensions)
Space = Callable[[Tensor], Features]  # (B, 3, H, W) in [-1, 1] to (B, places, dimensions)

METRICS = ("psnr", "ssim", "feature_distance", "identity_distance")
FRECHET_DRAWS = 200  # of the bootstrap; a mean takes 2000


@dataclass(frozen=True)
class Row:
    """Scores and features of one way of restoring, face by face."""

    files: Mapping[str, Mapping[str, float]]  # file name -> metric -> value
    features: Mapping[str, Features]  # space -> features, the faces in the order of their names

    @property
    def count(self) -> int:
        """The number of faces."""
        return len(self.files)

    def values(self, metric: str) -> NDArray[np.float64]:
        """The values of a metric, (faces,), in the order of their names."""
        return np.array([self.files[name][metric] for name in sorted(self.files)])


@dataclass(frozen=True)
class Estimate:
    """A value over a set of faces."""

    value: float
    low: float  # bootstrap interval, 95 %
    high: float


def features_of(folder: Path, names: Sequence[str], spaces: Mapping[str, Space]) -> dict[str, Features]:
    """The features of the named pictures of a folder, in every space."""
    found: dict[str, list[Features]] = {space: [] for space in spaces}
    for name in names if spaces else ():
        picture = read_image(folder / name)[None]
        for space, extract in spaces.items():
            found[space].append(extract(picture))
    return {space: np.concatenate(parts) for space, parts in found.items()}


def estimates(row: Row, truth: Row, *, seed: int) -> dict[str, Estimate]:
    """Every metric of one row with its interval: means, and the Fréchet distance to the truth in every space."""
    values = _values(row, truth)
    return {name: estimate(value, row.count, _draws(name), seed) for name, value in values.items()}


def gains(rows: Mapping[str, Row], *, seed: int) -> dict[str, Estimate]:
    """adapted - pre-trained of every metric; both are drawn together, so the interval is that of the difference."""
    truth = rows["truth"]
    before, after = (_values(rows[name], truth) for name in ("pre-trained", "adapted"))
    found = {name: gain_of(before[name], after[name]) for name in before}
    return {name: estimate(gain, truth.count, _draws(name), seed) for name, gain in found.items()}


def shares(rows: Mapping[str, Row], *, seed: int) -> dict[str, Estimate]:
    """(adapted - pre-trained) / (supervised - pre-trained) of every metric; NaN if there is no gap.

    `rows` must hold these three rows and the truth.
    """
    truth = rows["truth"]
    before, after, upper = (_values(rows[name], truth) for name in ("pre-trained", "adapted", "supervised"))
    found = {name: gap_closed(before[name], after[name], upper[name]) for name in before}
    return {name: estimate(share, truth.count, _draws(name), seed) for name, share in found.items()}


def gain_of(before: Statistic, after: Statistic) -> Statistic:
    """after - before."""

    def gain(drawn: Indices) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore"):  # of two infinite values
            return after(drawn) - before(drawn)

    return gain


def gap_closed(before: Statistic, after: Statistic, upper: Statistic) -> Statistic:
    """(after - before) / (upper - before); NaN where there is no gap."""

    def share(drawn: Indices) -> NDArray[np.float64]:
        start = before(drawn)
        with np.errstate(all="ignore"):  # no gap, and infinite values
            gap = upper(drawn) - start
            return np.where(gap == 0, math.nan, (after(drawn) - start) / gap)

    return share


def estimate(value: Statistic, count: int, draws: int = 2000, seed: int = 0) -> Estimate:
    """A statistic of `count` images with its interval."""
    low, high = bootstrap(value, count, rng=np.random.default_rng(seed), draws=draws)
    return Estimate(float(value(np.arange(count)[None])[0]), low, high)


def _values(row: Row, truth: Row) -> dict[str, Statistic]:
    means = {name: mean_of(row.values(name)) for name in METRICS}
    return means | {f"frechet_{name}": _frechet(row.features[name], truth.features[name]) for name in row.features}


def _frechet(features: Features, truth: Features) -> Statistic:
    """The Fréchet distance of the features at all places together: places times faces are the samples."""
    first, second = _moments_of(features), _moments_of(truth)
    return lambda drawn: np.array([frechet_distance(first(faces), second(faces)) for faces in drawn])


def _moments_of(features: Features) -> Callable[[Indices], Moments]:
    """Mean and covariance of drawn faces. Each face's sums are computed only once, for hundreds of bootstrap draws."""
    centre = features.mean((0, 1), dtype=np.float64)  # sums of squares around it avoid cancellation
    shifted = features.astype(np.float64) - centre
    sums, squares = shifted.sum(1), np.einsum("fpi,fpj->fij", shifted, shifted, optimize=True)

    def moments(drawn: Indices) -> Moments:
        count = len(drawn) * features.shape[1]
        mean = sums[drawn].sum(0) / count
        scatter = squares[drawn].sum(0) - count * np.outer(mean, mean)
        return Moments(centre + mean, scatter / (count - 1))

    return moments


def _draws(metric: str) -> int:
    return FRECHET_DRAWS if metric.startswith("frechet_") else 2000
