"""Which source each supervised row of a step is from: losses and their number by source.

Sums are exactly rounded: neither micro-batches nor the order of packs changes a bit of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from train.data.collate import Pack


def rows_by_source(packs: Sequence[Pack], sources: Sequence[str]) -> list[int]:
    """How many supervised rows are from each of `sources`."""
    counts = np.zeros(len(sources), np.int64)
    for pack in packs:
        counts += np.bincount(_sources_of_rows(pack, sources), minlength=len(sources))
    return counts.tolist()


def losses_by_source(
    packs: Sequence[Pack], losses: Sequence[Tensor], sources: Sequence[str]
) -> list[float]:
    """The summed loss of each of `sources`; `losses` has those of each pack's supervised rows."""
    rows: list[list[float]] = [[] for _ in sources]
    for number, loss in _named(packs, losses, sources):
        rows[number].append(loss)
    return [math.fsum(each) for each in rows]


def mean_by_source(
    sources: Sequence[str], summed: Sequence[float], row_counts: Sequence[float]
) -> dict[str, float]:
    """The loss per supervised row of each source that has some."""
    each = zip(sources, summed, row_counts, strict=True)
    return {name: loss / count for name, loss, count in each if count}


def _named(
    packs: Sequence[Pack], losses: Sequence[Tensor], sources: Sequence[str]
) -> Iterator[tuple[int, float]]:
    """Of each supervised row the number of its source, and its loss."""
    for pack, each in zip(packs, losses, strict=True):
        yield from zip(_sources_of_rows(pack, sources).tolist(), each.tolist(), strict=True)


def _sources_of_rows(pack: Pack, sources: Sequence[str]) -> NDArray[np.int64]:
    """The number in `sources` of each supervised row's sample, int64 [S]."""
    numbers = np.array([sources.index(name) for name in pack.sources], np.int64)
    # the last sample that begins at or before a row is the row's own
    samples = np.searchsorted(pack.cu_seqlens, pack.supervised_rows, side="right") - 1
    found: NDArray[np.int64] = numbers[samples]
    return found
