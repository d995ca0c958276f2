"""Block-diagonal attention of a packed row: where its segments lie, and their padded batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, NamedTuple

import numpy as np
from numpy.typing import NDArray

from train.data.tower_plan import Array

_LEAST_FILL = 0.75
"""A segment shorter than this share of its batch's longest starts a new batch."""


class Blocks(NamedTuple, Generic[Array]):
    """Where the segments of a row of T lie: the plan of its gathers and of its scatter.

    `gather`: per batch, int64 [S_b, L_b] rows of the packed row; `scatter`: int64 [T], for each row
    its place among the concatenated, flattened batches. `starts`: int32 [S + 1], where segments
    start and end; `longest` segment, in rows; `mask` for flex alone, a BlockMask.
    """

    gather: tuple[Array, ...]
    scatter: Array
    starts: Array
    longest: int
    mask: Any = None


def plan_blocks(cu_seqlens: NDArray[np.int64]) -> Blocks[NDArray[Any]]:
    """The plan for segments that start and end at `cu_seqlens` int64 [S + 1]."""
    # offsets as FlashAttention's varlen kernels take them
    starts = cu_seqlens[:-1]
    lengths = np.diff(cu_seqlens)
    gather: list[NDArray[Any]] = []
    at = 0
    scatter = np.zeros(int(cu_seqlens[-1]), np.int64)
    for members in _batches(lengths):
        # [S, L]: past its end a segment repeats its own last row
        length = lengths[members][:, None]
        steps = np.arange(length.max())
        rows = starts[members][:, None] + np.minimum(steps, length - 1)
        # a row's place among all batches, flattened one after the other
        real = steps < length
        scatter[rows[real]] = at + np.flatnonzero(real)
        at += rows.size
        gather.append(rows)
    return Blocks(tuple(gather), scatter, cu_seqlens.astype(np.int32), int(lengths.max(initial=0)))


def _batches(lengths: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Segment numbers grouped by similar length, longest first; empty segments take no part."""
    # sorted by length: batches then hold little padding, as bucketing by length does
    order = np.argsort(-lengths, kind="stable")
    order = order[: np.count_nonzero(lengths)]
    while len(order):
        # lengths fall along the order, so those that fit stand in front
        fits = lengths[order] >= _LEAST_FILL * lengths[order[0]]
        count = int(np.count_nonzero(fits))
        yield order[:count]
        order = order[count:]
