"""How far a mean can be trusted: the percentile bootstrap (Efron 1979)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


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
    if not 0 < level < 1 or draws < 1:
        raise ValueError(f"expected a level between 0 and 1 and at least one draw, got {level} and {draws}")
    means = [sample[rng.integers(sample.size, size=sample.size)].mean() for _ in range(draws)]
    tail = (1 - level) / 2
    # A method without interpolation, because between two infinities there is nothing to interpolate.
    low, high = np.quantile(means, [tail, 1 - tail], method="inverted_cdf")
    return float(low), float(high)
