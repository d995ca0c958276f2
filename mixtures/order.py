"""Position -> sample, pack number -> samples, step -> this rank's packs: arithmetic on a manifest.

Nothing here depends on world size, workers or history, but the dealing of a batch to its ranks.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mixtures.packing import pack_window
from mixtures.permutation import key_of, permute

if TYPE_CHECKING:
    from mixtures.manifest import Manifest

PATCHES_PER_TOKEN = 16
"""A patch through the vision tower costs about this fraction of a token through the decoder."""
_KEPT_WINDOWS = 8
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """The sample at a position: its source's name, key and epoch, and what it costs."""

    position: int
    source: str
    key: str
    epoch: int
    tokens: int
    patches: int


Pack = tuple[Drawn, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """A run of positions as arrays: source index, row in the source's table, epoch."""

    source: NDArray[np.int64]
    row: NDArray[np.int64]
    epoch: NDArray[np.int64]


class Order:
    """The order of a manifest. Weight recipes are endless, repeat and budget recipes end."""

    def __init__(self, manifest: Manifest, global_batch: int = 1) -> None:
        """`global_batch` is the number of packs of a step, fixed for a run; see `batch`."""
        self._manifest, self._global_batch = manifest, global_batch
        self._schedule = manifest.schedule
        self._quotas = np.array(self._schedule.quotas, np.int64)
        self._ends: list[int] = [0, *np.cumsum(manifest.packs_per_window).tolist()]
        self._windows: OrderedDict[int, list[Pack]] = OrderedDict()

    def draw(self, start: int, stop: int) -> Draw:
        """Positions start..stop-1; IndexError beyond the end of a finite order."""
        if start < 0 or (self._manifest.is_finite and stop > self._manifest.length):
            raise IndexError(f"positions {start}..{stop - 1} of {self._manifest.length}")
        period, slot = np.divmod(np.arange(start, stop, dtype=np.int64), self._schedule.period)
        source = self._schedule.source[slot].astype(np.int64)
        turn = period * self._quotas[source] + self._schedule.rank[slot]
        row, epoch = np.empty_like(turn), np.empty_like(turn)
        for i in np.unique(source).tolist():
            at = np.flatnonzero(source == i)
            epoch[at], within = np.divmod(turn[at], len(self._manifest.tables[i]))
            row[at] = self._rows(i, epoch[at], within)
        return Draw(source=source, row=row, epoch=epoch)

    def _rows(
        self, i: int, epochs: NDArray[np.int64], within: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        rows = np.empty_like(within)
        for epoch in np.unique(epochs).tolist():
            at = np.flatnonzero(epochs == epoch)
            key = key_of(self._manifest.seed, self._manifest.content_ids[i], epoch)
            rows[at] = permute(within[at], len(self._manifest.tables[i]), key)
        return rows

    def samples(self, start: int, stop: int) -> list[Drawn]:
        """The samples at positions start..stop-1."""
        draw = self.draw(start, stop)
        found = []
        for n, (i, row, epoch) in enumerate(
            zip(draw.source.tolist(), draw.row.tolist(), draw.epoch.tolist(), strict=True)
        ):
            record = self._manifest.tables[i][row]
            found.append(
                Drawn(
                    position=start + n,
                    source=self._manifest.names[i],
                    key=record["key"].tobytes().hex(),
                    epoch=epoch,
                    tokens=int(record["tokens"]),
                    patches=int(record["patches"]),
                )
            )
        return found

    def sample(self, position: int) -> Drawn:
        """The sample at a position."""
        return self.samples(position, position + 1)[0]

    def keys(self, start: int, stop: int) -> bytes:
        """The keys at positions start..stop-1, 16 raw bytes each."""
        draw = self.draw(start, stop)
        found = np.empty(len(draw.source), "V16")
        for i in np.unique(draw.source).tolist():
            at = np.flatnonzero(draw.source == i)
            found[at] = self._manifest.tables[i]["key"][draw.row[at]]
        return found.tobytes()

    def totals(self, *columns: str) -> dict[str, int]:
        """Sums of columns of the tables over the positions inside `length`."""
        sums = dict.fromkeys(columns, 0)
        for start in range(0, self._manifest.length, _CHUNK):
            draw = self.draw(start, min(start + _CHUNK, self._manifest.length))
            for i in np.unique(draw.source).tolist():
                rows = self._manifest.tables[i][draw.row[draw.source == i]]
                for name in columns:
                    sums[name] += int(rows[name].sum(dtype=np.int64))
        return sums

    def window(self, k: int) -> list[Pack]:
        """The packs of window k; none beyond the end of a finite order."""
        if k in self._windows:
            self._windows.move_to_end(k)
            return self._windows[k]
        rule, start = self._manifest.pack, k * self._manifest.pack.window
        stop = start + rule.window
        if self._manifest.is_finite:
            stop = min(stop, self._manifest.length)
        drawn = self.samples(start, stop) if start < stop else []
        tokens, patches = [one.tokens for one in drawn], [one.patches for one in drawn]
        key = key_of(self._manifest.seed, "packs", k)
        packs = pack_window(tokens, patches, rule.tokens, rule.patches, key)
        self._windows[k] = [tuple(drawn[item] for item in pack) for pack in packs]
        if len(self._windows) > _KEPT_WINDOWS:
            self._windows.popitem(last=False)
        return self._windows[k]

    def pack(self, index: int) -> Pack:
        """The samples of a pack in draw order; IndexError beyond the end of a finite order."""
        while index >= self._ends[-1]:
            k = len(self._ends) - 1
            if self._manifest.is_finite and k * self._manifest.pack.window >= self._manifest.length:
                raise IndexError(f"pack {index} of {self._ends[-1]}")
            self._ends.append(self._ends[-1] + len(self.window(k)))
        k = bisect_right(self._ends, index) - 1  # the last window that starts at or before it
        return self.window(k)[index - self._ends[k]]

    def batch(self, step: int, rank: int, world_size: int) -> list[Pack]:
        """This rank's packs of a step; ranks differ by one pack at most, a finite order runs out.

        The `global_batch` packs from step * global_batch on are shuffled, then dealt longest
        first to the rank with the least work so far.
        """
        packs = []
        for index in range(step * self._global_batch, (step + 1) * self._global_batch):
            try:
                packs.append(self.pack(index))
            except IndexError:
                break
        seed = self._manifest.seed
        shuffled = permute(np.arange(len(packs)), len(packs), key_of(seed, "batch", step))
        costs = [cost_of(packs[i]) for i in shuffled.tolist()]
        lane_of = permute(np.arange(world_size), world_size, key_of(seed, "ranks", step))
        mine = deal(costs, world_size)[int(lane_of[rank])]
        return [packs[shuffled[i]] for i in mine]


def cost_of(pack: Pack) -> int:
    """Estimated work of a pack, in tokens through the decoder."""
    return sum(drawn.tokens + drawn.patches // PATCHES_PER_TOKEN for drawn in pack)


def deal(costs: list[int], lanes: int) -> list[list[int]]:
    """Indices of `costs` per lane: longest first to the least loaded, counts equal within one."""
    base, extra = divmod(len(costs), lanes)
    dealt: list[list[int]] = [[] for _ in range(lanes)]
    load = [0] * lanes
    for item in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        open_lanes = [
            lane
            for lane in range(lanes)
            if len(dealt[lane]) < base or (extra and len(dealt[lane]) == base)
        ]
        lane = min(open_lanes, key=lambda lane: (load[lane], lane))
        extra -= len(dealt[lane]) == base
        dealt[lane].append(item)
        load[lane] += costs[item]
    return [sorted(items) for items in dealt]
