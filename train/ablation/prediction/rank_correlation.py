"""Spearman's rank correlation: whether a prediction puts things in the order that they came in."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def rank_correlation(predicted: ArrayLike, observed: ArrayLike) -> float:
    """Spearman's rho of two lists of one length; not a number where one of them is all alike."""
    ranks = [_ranks(np.asarray(values)) for values in (predicted, observed)]
    # Pearson's correlation of the ranks, which holds with ties too
    centred = [one - one.mean() for one in ranks]
    scale = np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum())
    return float(centred[0] @ centred[1] / scale) if scale else float("nan")


def _ranks(ranked: NDArray[np.float64]) -> NDArray[np.float64]:
    """Places in ascending order; equal ranked share the mean of theirs."""
    below = (ranked[:, None] > ranked).sum(axis=1)
    alike = (ranked[:, None] == ranked).sum(axis=1)
    return np.asarray(below + (alike - 1) / 2)
