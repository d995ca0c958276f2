"""Segment sums and group sums: exact integer sums over the parts of an array."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def group_sums(
    values: NDArray[np.integer | np.bool_], group: NDArray[np.int64], groups: int
) -> NDArray[np.int64]:
    """Sums of `values` by group number, exact below 2**53."""
    # float64 weights: exact for integer sums below 2**53
    return np.bincount(group, weights=values, minlength=groups).astype(np.int64)


def segment_sums(
    values: NDArray[np.integer | np.bool_], ends: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Sums of values[ends[i]:ends[i + 1]]."""
    # prefix sums: a segment's sum is the difference of two of them
    running = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
    sums: NDArray[np.int64] = running[ends[1:]] - running[ends[:-1]]
    return sums
