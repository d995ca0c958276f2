"""Pack number -> samples: packs are counted through all windows of a manifest's order."""

from __future__ import annotations

import numpy as np

from mixtures.manifest.blocks import Block, Blocks
from mixtures.manifest.draws import Drawn, Draws
from mixtures.manifest.manifest import Manifest

Pack = tuple[Drawn, ...]
"""The samples of a pack in draw order."""


class Packs:
    """The packs of a manifest by number; those of weight recipes never end."""

    def __init__(self, manifest: Manifest) -> None:
        self._draws, self._blocks = Draws(manifest), Blocks(manifest)
        # packs before each window, counted further as later ones are asked for
        self._before = np.concatenate([[0], np.cumsum(manifest.packs_per_window, dtype=np.int64)])

    def pack(self, number: int) -> Pack:
        """The samples of a pack; IndexError beyond the end of a finite order."""
        block, at = self._find(number)
        places = block.places[block.ends[at] : block.ends[at + 1]]
        return tuple(self._draws.samples_at(block.draw, places))

    def cost(self, number: int) -> int:
        """An estimate of the work of a pack, in tokens; IndexError as `pack`."""
        block, at = self._find(number)
        return int(block.costs[at])

    def has_pack(self, number: int) -> bool:
        """Whether there is a pack of this number: a finite order ends."""
        while number >= self._before[-1]:
            window = len(self._before) - 1
            if self._blocks.windows is not None and window >= self._blocks.windows:
                return False
            block, first = self._blocks.holding(window)
            more = self._before[-1] + np.cumsum(block.packs_per_window[window - first :])
            self._before = np.concatenate([self._before, more])
        return number >= 0

    def _find(self, number: int) -> tuple[Block, int]:
        """The block that holds a pack, and the pack's number in it."""
        if not self.has_pack(number):
            raise IndexError(f"pack {number} of {self._before[-1]}")
        window = int(np.searchsorted(self._before, number, side="right")) - 1
        block, first = self._blocks.holding(window)
        return block, number - int(self._before[first])
