"""Confidence intervals of a mean, or of any other value of a set of images: percentile bootstrap (Efron 1979)."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

AT_ONCE = 1_000_000  # indices that are drawn together

Indices = NDArray[np.int64]
Values = NDArray[np.float64]
Statistic = Callable[[Indices], Values]  # (draws, count) indices of images to one value for each draw


def bootstrap_interval(
    values: Sequence[float] | NDArray[np.float64], *, rng: np.random.Generator, level: float = 0.95, draws: int = 2000
) -> tuple[float, float]:
    """Interval (low, high) that holds the mean of `values` with probability `level`, in the unit of the values.

    The mean is taken again over `draws` samples of the same size, drawn with replacement. Equal generators give equal
    intervals, and resample equally long lists alike. Infinite values are allowed (PSNR of identical images). Raises
    ValueError on no values, on NaN, on a level outside (0, 1) or on fewer than one draw.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0 or np.isnan(sample).any():
        raise ValueError(f"expected a list of one or more numbers without NaN, got shape {sample.shape}")
    return bootstrap(mean_of(sample), sample.size, rng=rng, level=level, draws=draws)


def mean_of(values: Values) -> Statistic:
    """The mean of one value per image."""
    return lambda drawn: values[drawn].mean(-1)


def bootstrap(
    statistic: Statistic, count: int, *, rng: np.random.Generator, level: float = 0.95, draws: int = 2000
) -> tuple[float, float]:
    """Interval (low, high) of a statistic of `count` images, in its own unit.

    `statistic` gets the indices of the images that were drawn, with replacement; so several values of one image stay
    together. Raises ValueError on a level outside (0, 1), on fewer than one draw or no image.
    """
    if not 0 < level < 1 or draws < 1 or count < 1:
        raise ValueError(f"expected a level between 0 and 1, draws and images, got {level}, {draws} and {count}")
    rows = max(1, AT_ONCE // count)
    sizes = [min(rows, draws - first) for first in range(0, draws, rows)]
    values = np.concatenate([statistic(rng.integers(count, size=(size, count))) for size in sizes])
    tail = (1 - level) / 2
    # A method without interpolation, because between two infinities there is nothing to interpolate.
    low, high = np.quantile(values, [tail, 1 - tail], method="inverted_cdf")
    return float(low), float(high)
