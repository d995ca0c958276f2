"""Turn -> row: the shuffle of each source, another one in every epoch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixtures.order.permutation import key_of
from mixtures.order.ranking import ranked
from shards.id_arrays import Ids

_TOGETHER = 1 << 12
"""Rows of the epochs that are ranked together, where a source has fewer."""
_Ranked = tuple[int, NDArray[np.uint32]]


class Epochs:
    """The orders of some sources; of each the two used last are kept, so that reading on is cheap.

    `ids` are, by source, what its rows are ranked by. Threads may share it: a race costs a sort.
    """

    def __init__(self, seed: int, names: Sequence[str], ids: Sequence[Ids]) -> None:
        self._salts = [key_of(seed, name) for name in names]
        self._ids = ids
        self._kept: list[tuple[_Ranked, ...]] = [()] * len(names)

    def drawn(
        self, source: int, turns: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row and epoch of a source at its ascending turns."""
        rows = len(self._ids[source])
        row = np.empty_like(turns)
        (epoch, within) = np.divmod(turns, rows)
        # a source of few rows has many epochs in a window: they are ranked in blocks
        together = max(_TOGETHER // rows, 1)
        block = epoch // together
        # turns ascend, so the turns of a block are a slice
        for number in np.unique(block).tolist():
            some = slice(*np.searchsorted(block, [number, number + 1]))
            orders = self._orders(source, number, together)
            row[some] = orders[epoch[some] - number * together, within[some]]
        return row, epoch

    def _orders(self, source: int, block: int, together: int) -> NDArray[np.uint32]:
        """The orders of epochs block * together and those after it, [together, rows]."""
        kept = self._kept[source]
        # the block of this epoch may be one of the two used last
        for number, orders in kept:
            if number == block:
                return orders
        epochs = np.arange(block * together, (block + 1) * together)
        orders = ranked(np.ascontiguousarray(self._ids[source]), self._salts[source], epochs)
        # the block before it stays: prefetching threads read at both ends
        self._kept[source] = (*kept[-1:], (block, orders))
        return orders
