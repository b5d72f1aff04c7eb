"""Distances between two sets of images, from features of each: Frechet distance and kernel distance.

Every number should be given with the network of the features and the number of images: the Frechet distance of few
images is too large, and distances by different networks cannot be compared.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unfade.nets.architecture import Architecture

Array = NDArray[np.float64]
ROWS = 1024  # rows of the kernel's matrix that are in memory at once


@dataclass
class FeatureStatistics:
    """Mean and covariance of features that are added in parts of any size, in float64 (Chan et al. 1979)."""

    dimensions: int
    count: int = 0
    mean: Array = field(init=False)
    _scatter: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.mean = np.zeros(self.dimensions)
        self._scatter = np.zeros((self.dimensions, self.dimensions))

    def add(self, features: NDArray[np.floating]) -> None:
        """Take in (N, dimensions) features. Raises ValueError on another shape or on values that are not finite."""
        part = np.asarray(features, dtype=np.float64)
        if part.ndim != 2 or part.shape[1] != self.dimensions or not np.isfinite(part).all():
            raise ValueError(f"expected finite features of shape (N, {self.dimensions}), got {part.shape}")
        if not len(part):
            return
        mean = part.mean(0)
        shift, total = mean - self.mean, self.count + len(part)
        self._scatter += (part - mean).T @ (part - mean) + np.outer(shift, shift) * (self.count * len(part) / total)
        self.mean = self.mean + shift * (len(part) / total)
        self.count = total

    @property
    def covariance(self) -> Array:
        """(D, D), divided by count - 1. Raises ValueError on fewer than two features."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least two features, got {self.count}")
        return self._scatter / (self.count - 1)


@dataclass(frozen=True)
class Moments:
    """Mean (D,) and covariance (D, D) alone, as published in place of the pictures themselves.

    Raises ValueError on other shapes or on values that are not finite: against such moments every set would be perfect.
    """

    mean: Array
    covariance: Array

    def __post_init__(self) -> None:
        shapes = self.mean.shape, self.covariance.shape
        if shapes != ((self.mean.size,), (self.mean.size,) * 2):
            raise ValueError(
                f"expected a mean (D,) and a covariance (D, D) of features, got {shapes[0]} and {shapes[1]}"
            )
        if not (np.isfinite(self.mean).all() and np.isfinite(self.covariance).all()):
            raise ValueError("expected finite moments of features, got values that are not numbers")

    @property
    def dimensions(self) -> int:
        """D."""
        return len(self.mean)


def statistics(features: NDArray[np.floating]) -> FeatureStatistics:
    """The statistics of (N, D) features at once."""
    result = FeatureStatistics(features.shape[1])
    result.add(features)
    return result


def frechet_distance(first: FeatureStatistics | Moments, second: FeatureStatistics | Moments) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) (Heusel et al. 2017, Eq. 6), at least 0.

    The trace of the root is taken from the symmetric C1^(1/2) C2 C1^(1/2), which has the same eigenvalues: real ones,
    also where a covariance is singular. Raises ValueError on features of different size.
    """
    if first.dimensions != second.dimensions:
        raise ValueError(f"expected features of one size, got {first.dimensions} and {second.dimensions}")
    root = _root(first.covariance)
    eigenvalues = np.linalg.eigvalsh(root @ second.covariance @ root)
    trace_of_root = np.sqrt(eigenvalues.clip(0)).sum()
    distance = np.square(first.mean - second.mean).sum() + np.trace(first.covariance) + np.trace(second.covariance)
    return max(0.0, float(distance - 2 * trace_of_root))


def kernel_distance(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """The unbiased squared maximum mean discrepancy of (N, D) and (M, D) features: KID (Binkowski et al. 2018).

    Kernel (x y / D + 1)^3. Its expectation does not depend on the number of images; it may be below 0. Raises
    ValueError on fewer than two features of either or on different sizes.
    """
    x, y = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(f"expected two sets of at least two features of one size, got {x.shape} and {y.shape}")
    across = _kernel_sum(x, y) / (len(x) * len(y))
    return float(_mean_of_different(x) + _mean_of_different(y) - 2 * across)


def _kernel_sum(x: Array, y: Array) -> float:
    """The kernel's sum over all pairs, some rows at a time: for 70,000 features the whole matrix would take 39 GB."""
    parts = (x[i : i + ROWS] @ y.T / x.shape[1] + 1 for i in range(0, len(x), ROWS))
    return float(sum((part**3).sum() for part in parts))


def _mean_of_different(x: Array) -> float:
    """The kernel's mean over pairs of different features."""
    same = ((np.square(x).sum(1) / x.shape[1] + 1) ** 3).sum()
    return float((_kernel_sum(x, x) - same) / (len(x) * (len(x) - 1)))


def _root(covariance: Array) -> Array:
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors * np.sqrt(values.clip(0))) @ vectors.T)


class StoredStatistics(nn.Module):
    """Mean (C,) and covariance (C, C) of the features of a set of pictures, float64: what a Frechet distance needs."""

    mean: Tensor
    cov: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features, dtype=torch.float64))
        self.register_buffer("cov", torch.zeros(features, features, dtype=torch.float64))


ARCHITECTURE = Architecture(
    "statistics",
    ("mean", "cov"),
    lambda config: StoredStatistics(config["features"]),
    lambda state: [{"features": state["mean"].numel()}],
)
