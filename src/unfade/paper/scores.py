"""Scores of rows: means with intervals, shares of a gap, and whether one row is better than another."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unfade.evaluation.gap import Estimate, estimate, gap_closed
from unfade.metrics.bootstrap import mean_of
from unfade.paper.printed import Claim
from unfade.paper.tables import Scale
from unfade.report.document import METRICS

SEEN, REVERSED, NOT_SEEN, UNTRIED = "seen", "reversed", "not seen", "not tried"
Column = NDArray[np.float64]  # (faces,) in the order of their names


@dataclass(frozen=True)
class Values:
    """The scores of the pictures made in one way."""

    files: Mapping[str, Mapping[str, float]]  # file name -> metric -> value
    sets: Mapping[str, float]  # metric of the set -> value

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics of single pictures."""
        return tuple(next(iter(self.files.values()), {}))

    def column(self, metric: str) -> Column:
        """The values of all faces."""
        return np.array([self.files[name][metric] for name in sorted(self.files)], dtype=np.float64)


@dataclass(frozen=True)
class Verdict:
    """Whether a claim of the paper is seen: the interval of the difference, face by face, lies on its side of 0."""

    claim: Claim
    metric: str  # the metric with which it was tested
    verdict: str
    difference: Estimate | None = None  # of the better from the worse; positive is what is claimed


def mean_of_sets(values: Sequence[Values]) -> Values:
    """The mean over sets of photos, face by face; all sets show the same faces."""
    values = on_shared_faces(*values)
    first = values[0]
    files = {n: {m: float(np.mean([v.files[n][m] for v in values])) for m in first.metrics} for n in first.files}
    return Values(files, {m: float(np.mean([v.sets[m] for v in values])) for m in first.sets})


def on_shared_faces(*rows: Values) -> list[Values]:
    """The rows with the faces that all of them have: some ways may have failed on some faces."""
    names = sorted(set.intersection(*(set(row.files) for row in rows)))
    return [Values({name: row.files[name] for name in names}, row.sets) for row in rows]


def estimates_of(values: Values) -> dict[str, Estimate]:
    """The mean of each metric with its interval; scores of sets have none."""
    means = {metric: _estimate(values.column(metric)) for metric in values.metrics}
    return {**means, **{metric: exactly(value) for metric, value in values.sets.items()}}


def share_of(before: Values | None, after: Values | None, upper: Values | None) -> dict[str, Estimate]:
    """(after - before) / (upper - before) of each metric; empty if a row is missing."""
    if before is None or after is None or upper is None:
        return {}
    rows = on_shared_faces(before, after, upper)
    means = {metric: [mean_of(row.column(metric)) for row in rows] for metric in rows[0].metrics}
    return {metric: estimate(gap_closed(*found), len(rows[0].files)) for metric, found in means.items()}


def verdict_on(claim: Claim, found: Mapping[tuple[str, str], Values], scale: Scale) -> Verdict:
    """Test claims with the paper's metric, or its counterpart at this scale, if both rows are in `found`."""
    metric = scale.counterparts.get(claim.metric, claim.metric)
    better, worse = (found.get((label, claim.photos)) for label in (claim.better, claim.worse))
    if better is None or worse is None or metric not in better.metrics:
        return Verdict(claim, metric, UNTRIED)
    better, worse = on_shared_faces(better, worse)
    difference = _estimate(METRICS[metric].better * (better.column(metric) - worse.column(metric)))
    verdict = SEEN if difference.low > 0 else REVERSED if difference.high < 0 else NOT_SEEN
    return Verdict(claim, metric, verdict, difference)


def exactly(value: float) -> Estimate:
    """A value without an interval."""
    return Estimate(value, value, value)


def _estimate(values: Column) -> Estimate:
    """The mean and its interval; NaN if any value is NaN."""
    if np.isnan(values).any():
        return exactly(math.nan)
    return estimate(mean_of(values), len(values))
