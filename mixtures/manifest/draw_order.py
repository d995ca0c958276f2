"""The order of a mixture as arrays: which source stands where, and which of its samples is next.

Everything that draws, packs and shards reads this alone; a manifest says besides what it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mixtures.manifest.epochs import Epochs
from mixtures.order.schedule import Schedule
from mixtures.recipe.types import PackRule
from shards.id_arrays import Ids

_NOT_COUNTED: NDArray[np.uint32] = np.empty(0, np.uint32)


@dataclass(frozen=True, kw_only=True)
class DrawOrder:
    """Enough to draw and pack every sample.

    `tables` holds per source its kept samples, rows of ROW sorted by key; `source_at` the source at
    every position inside the length, whose part from `loop` on repeats beyond it, unless the order
    `is_finite`. `joined_by` is per source what each of its samples is ranked by in place of its key
    (empty: the recipe does not join), `packs_per_window` the packs of each window of the length.
    """

    seed: int
    names: Sequence[str]
    tables: list[NDArray[np.void]]
    source_at: NDArray[np.unsignedinteger]
    loop: int
    is_finite: bool
    pack: PackRule
    packs_per_window: NDArray[np.uint32] = field(default_factory=lambda: _NOT_COUNTED)
    joined_by: list[Ids] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Samples in an epoch of the mixture, and what `pack` writes."""
        return len(self.source_at)

    @cached_property
    def schedule(self) -> Schedule:
        """Which source stands at each position; beyond `length` the last stage repeats."""
        return Schedule(self.source_at, len(self.tables), self.loop)

    @cached_property
    def epochs(self) -> Epochs:
        """Which row of a source stands at each of its turns."""
        # a joined sample is ranked by what joins it, any other by its key
        ids = self.joined_by or [table["key"] for table in self.tables]
        return Epochs(self.seed, self.names, ids)
