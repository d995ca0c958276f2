"""Means over questions with errors that know which questions share a video.

Questions about one video are right or wrong together, so the standard error of a mean is that of
its clusters (Miller, "Adding error bars to evals", arXiv 2411.00640, section 2.2).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean of `count` questions in `clusters` videos; `error` is its standard error."""

    mean: float
    error: float
    count: int
    clusters: int

    @property
    def interval(self) -> tuple[float, float]:
        """95 % of the normal distribution around the mean; not cut at 0 and 1."""
        return self.mean - Z95 * self.error, self.mean + Z95 * self.error


def estimate(
    credits_: Sequence[float],
    clusters: Sequence[Hashable],
    groups: Sequence[Hashable] | None = None,
) -> Estimate:
    """The mean credit; with `groups` the mean of the groups' means, each weighing the same.

    The error is the clustered (sandwich) one, with the factor C / (C - 1) for few clusters; of a
    single cluster it is NaN, for nothing is known of it.
    """
    values = np.asarray(credits_, np.float64)
    weights, centre = _weights(values, groups)
    mean = float(np.sum(weights * values))
    # clusters numbered in the order of their first question
    number = {name: i for i, name in enumerate(dict.fromkeys(clusters))}
    # each question's pull on the mean, summed by video: the variance is that of these sums
    pulls = np.zeros(len(number))
    np.add.at(pulls, [number[name] for name in clusters], weights * (values - centre))
    # degrees of freedom: one cluster says nothing of the spread
    few = len(number)
    error = sqrt(float(np.sum(pulls**2)) * few / (few - 1)) if few > 1 else float("nan")
    return Estimate(mean=mean, error=error, count=len(values), clusters=few)


def _weights(
    credits_: NDArray[np.float64], groups: Sequence[Hashable] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(weight of each question in the mean, mean of its group)."""
    if not len(credits_):
        return np.zeros(0), np.zeros(0)
    number = {name: i for i, name in enumerate(dict.fromkeys(groups or [0]))}
    group = np.array([number[name] for name in groups] if groups else [0] * len(credits_))
    # each group weighs the same, each question the same within its group
    sizes = np.bincount(group)
    means = np.bincount(group, credits_) / sizes
    return 1 / (len(sizes) * sizes[group]), means[group]


def paired(
    first: Sequence[float],
    second: Sequence[float],
    clusters: Sequence[Hashable],
    groups: Sequence[Hashable] | None = None,
) -> Estimate:
    """The mean of second - first over the same questions, with its clustered error."""
    return estimate([b - a for a, b in zip(first, second, strict=True)], clusters, groups)
