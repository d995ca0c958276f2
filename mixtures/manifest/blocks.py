"""Windows -> packed sequences: some windows of positions are packed together, kept as a block."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixtures.manifest.draw_order import DrawOrder
from mixtures.manifest.draws import Draw, Draws
from mixtures.order.packing import emission, pack_windows
from mixtures.order.permutation import key_of
from mixtures.recipe.types import PackRule
from mixtures.sums import group_sums
from mixtures.versions import PATCHES_PER_TOKEN

_AT_ONCE = (1 << 13, 1 << 18)
"""Positions that are packed together, at least and at most, if windows are smaller than that."""
_KEPT_BLOCKS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Some windows after each other: `places` of pack p are `places[ends[p]:ends[p + 1]]`.

    Places count the positions of `draw`; `costs` estimates the work of each pack, `patches` counts
    those that it shows to the tower.
    """

    draw: Draw
    places: NDArray[np.int64]
    ends: NDArray[np.int64]
    costs: NDArray[np.int64]
    patches: NDArray[np.int64]
    packs_per_window: NDArray[np.int64]

    def places_of(self, packs: NDArray[np.int64]) -> NDArray[np.int64]:
        """The places of some packs, one pack after the other."""
        starts = self.ends[packs]
        sizes = self.ends[packs + 1] - self.ends[packs]
        # ragged ranges in one go: first place of the pack, plus 0, 1, ...
        before = np.cumsum(sizes) - sizes
        found: NDArray[np.int64] = self.places[
            np.repeat(starts - before, sizes) + np.arange(sizes.sum())
        ]
        return found


class Blocks:
    """The windows of a manifest's order as packs; the blocks used last are kept."""

    def __init__(self, order: DrawOrder, windows: int = 0) -> None:
        """`windows` is about how many are read together."""
        self._draws = Draws(order)
        self._seed = order.seed
        self._rule = order.pack
        self._length = order.length if order.is_finite else None
        least, most = (max(positions // self._rule.window, 1) for positions in _AT_ONCE)
        # blocks begin at multiples of their size: with a quarter of what is read, little is in vain
        self._windows_at_once = min(max(windows // 4, least), most)
        self._most_kept = max(_KEPT_BLOCKS, windows // self._windows_at_once + 2)
        self._kept: OrderedDict[int, Block] = OrderedDict()

    @property
    def windows(self) -> int | None:
        """Windows in all; None if there is no end."""
        return None if self._length is None else -(-self._length // self._rule.window)

    def holding(self, window: int) -> tuple[Block, int]:
        """The kept block that holds a window, and the block's first window."""
        first = window // self._windows_at_once * self._windows_at_once
        if first not in self._kept:
            self._kept[first] = self.block(first, first + self._windows_at_once)
            if len(self._kept) > self._most_kept:
                self._kept.popitem(last=False)
        self._kept.move_to_end(first)
        return self._kept[first], first

    def block(self, first: int, stop: int) -> Block:
        """The packs of windows first..stop-1, as far as there are so many.

        The packs of each window stand in the order of a permutation.
        """
        # which samples, how large, in which pack of its window, and when that pack comes out
        draw = self._draws.draw(*self._positions(first, stop))
        records = self._draws.records(draw)
        numbers = pack_numbers(records, self._rule)
        packs_per_window = np.array([int(each.max()) + 1 for each in numbers], np.int64)
        pack = self._emitted(first, numbers, packs_per_window)
        # places sorted by pack, and where each pack ends among them (a CSR layout)
        sizes = np.bincount(pack, minlength=int(packs_per_window.sum()))
        patches = records["patches"].astype(np.int64)
        # what sharding balances: tokens through the decoder and patches through the tower
        work = records["tokens"].astype(np.int64) + records["patches"] // PATCHES_PER_TOKEN
        return Block(
            draw=draw,
            places=np.argsort(pack, kind="stable"),
            ends=np.concatenate([[0], np.cumsum(sizes)]),
            costs=group_sums(work, pack, len(sizes)),
            patches=group_sums(patches, pack, len(sizes)),
            packs_per_window=packs_per_window,
        )

    def _positions(self, first: int, stop: int) -> tuple[int, int]:
        """(start, stop) of the positions of these windows, cut where a finite order ends."""
        start = first * self._rule.window
        end = stop * self._rule.window
        return start, end if self._length is None else max(start, min(end, self._length))

    def _emitted(
        self, first: int, by_window: Sequence[NDArray[np.int32]], counts: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """The pack of each position, counted through all windows in the order they come out."""
        emitted = [np.empty(0, np.int64)]
        before = 0
        for k, (packs, count) in enumerate(zip(by_window, counts.tolist(), strict=True)):
            rank = np.empty(count, np.int64)  # when each pack of the window comes out
            rank[emission(count, key_of(self._seed, "packs", first + k))] = np.arange(count)
            emitted.append(before + rank[packs])
            before += count
        return np.concatenate(emitted)


def pack_numbers(records: NDArray[np.void], rule: PackRule) -> list[NDArray[np.int32]]:
    """Per window of these rows, which start a window: each row's pack, before any shuffling."""
    size = rule.window
    # all whole windows as one array; the last one of a finite order may be shorter
    whole = len(records) // size * size
    packs_of_windows: list[NDArray[np.int32]] = []
    for part, width in ((records[:whole], size), (records[whole:], len(records) - whole)):
        if len(part):
            tokens, patches = (part[name].reshape(-1, width) for name in ("tokens", "patches"))
            packs_of_windows.extend(pack_windows(tokens, patches, rule.tokens, rule.patches))
    return packs_of_windows
