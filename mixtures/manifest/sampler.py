"""Position -> sample, pack number -> samples, step -> this rank's packs: arithmetic on a manifest.

Nothing here depends on world size, workers or history, but the dealing of a batch to its ranks.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from heapq import heapify, heappop, heappush
from itertools import takewhile
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mixtures.manifest.npy_tables import ROW
from mixtures.order.packing import emission, pack_windows
from mixtures.order.permutation import drawn_rows, key_of, permute
from mixtures.versions import PATCHES_PER_TOKEN

if TYPE_CHECKING:
    from mixtures.manifest.manifest import Manifest
_AT_ONCE = 1 << 13
"""Positions that are packed together, if their windows are smaller than that."""
_KEPT_BLOCKS = 8
_RAW = np.dtype((np.void, ROW.itemsize))


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

    start: int
    source: NDArray[np.int64]
    row: NDArray[np.int64]
    epoch: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Some windows after each other: `places` of pack p are `places[ends[p]:ends[p + 1]]`.

    Places count the positions of `draw`; `costs` estimates the work of each pack.
    """

    draw: Draw
    places: NDArray[np.int64]
    ends: NDArray[np.int64]
    costs: NDArray[np.int64]
    packs_per_window: NDArray[np.int64]


class Order:
    """The order of a manifest. Weight recipes are endless, repeat and budget recipes end."""

    def __init__(self, manifest: Manifest, global_batch: int = 1) -> None:
        """`global_batch` is the number of packs of a step, fixed for a run; see `batch`."""
        self._manifest, self._global_batch = manifest, global_batch
        self._rule = manifest.pack
        self._windows_at_once = max(_AT_ONCE // self._rule.window, 1)
        self._ends = np.concatenate([[0], np.cumsum(manifest.packs_per_window, dtype=np.int64)])
        self._blocks: OrderedDict[int, Block] = OrderedDict()

    def draw(self, start: int, stop: int) -> Draw:
        """Positions start..stop-1; IndexError beyond the end of a finite order."""
        manifest = self._manifest
        if start < 0 or (manifest.is_finite and stop > manifest.length):
            raise IndexError(f"positions {start}..{stop - 1} of {manifest.length}")
        source, turn = manifest.schedule.locate(start, stop)
        row, epoch = np.empty_like(turn), np.empty_like(turn)
        for i, at in enumerate(_places_by(source, len(manifest.tables))):
            rows = len(manifest.tables[i])
            row[at], epoch[at] = drawn_rows(manifest.seed, manifest.content_ids[i], rows, turn[at])
        return Draw(start=start, source=source, row=row, epoch=epoch)

    def records(self, draw: Draw) -> NDArray[np.void]:
        """The tables' rows at the positions of a draw."""
        found = np.empty(len(draw.source), ROW)
        raw = found.view(_RAW)  # moved as bytes: field by field takes several times as long
        for i, at in enumerate(_places_by(draw.source, len(self._manifest.tables))):
            raw[at] = self._manifest.tables[i].view(_RAW)[draw.row[at]]
        return found

    def samples(self, start: int, stop: int) -> list[Drawn]:
        """The samples at positions start..stop-1."""
        draw = self.draw(start, stop)
        return self._drawn(draw, np.arange(stop - start))

    def _drawn(self, draw: Draw, places: NDArray[np.int64]) -> list[Drawn]:
        found = []
        for place in places.tolist():
            i = int(draw.source[place])
            record = self._manifest.tables[i][draw.row[place]]
            found.append(
                Drawn(
                    position=draw.start + place,
                    source=self._manifest.names[i],
                    key=record["key"].tobytes().hex(),
                    epoch=int(draw.epoch[place]),
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
        return self.records(self.draw(start, stop))["key"].tobytes()

    @cached_property
    def windows(self) -> int | None:
        """Windows in all; None if there is no end."""
        manifest = self._manifest
        return -(-manifest.length // self._rule.window) if manifest.is_finite else None

    def block(self, first: int, stop: int) -> Block:
        """The packs of windows first..stop-1, each window's in the order of a permutation."""
        size = self._rule.window
        end = stop * size if self.windows is None else min(stop * size, self._manifest.length)
        draw = self.draw(first * size, max(end, first * size))
        records = self.records(draw)
        numbers = self.pack_numbers(records)
        counts = np.array([int(each.max()) + 1 for each in numbers], np.int64)
        pack = np.empty(len(draw.source), np.int64)
        for k, each in enumerate(numbers):
            place = np.empty(counts[k], np.int64)
            place[emission(int(counts[k]), self._window_key(first + k))] = np.arange(counts[k])
            pack[k * size : k * size + len(each)] = int(counts[:k].sum()) + place[each]
        work = records["tokens"].astype(np.int64) + records["patches"] // PATCHES_PER_TOKEN
        sizes = np.bincount(pack, minlength=int(counts.sum()))
        return Block(
            draw=draw,
            places=np.argsort(pack, kind="stable"),
            ends=np.concatenate([[0], np.cumsum(sizes)]),
            costs=group_sums(work, pack, len(sizes)),
            packs_per_window=counts,
        )

    def _window_key(self, k: int) -> int:
        return key_of(self._manifest.seed, "packs", k)

    def pack_numbers(self, records: NDArray[np.void]) -> list[NDArray[np.int32]]:
        """Per window of these rows, which start a window: each row's pack, before any shuffling."""
        size = self._rule.window
        whole = len(records) // size * size
        found: list[NDArray[np.int32]] = []
        for part, width in ((records[:whole], size), (records[whole:], len(records) - whole)):
            if len(part):
                tokens, patches = (part[name].reshape(-1, width) for name in ("tokens", "patches"))
                found.extend(pack_windows(tokens, patches, self._rule.tokens, self._rule.patches))
        return found

    def _block_of(self, k: int) -> tuple[Block, int]:
        """The kept block that holds window k, and the block's first window."""
        first = k // self._windows_at_once * self._windows_at_once
        if first not in self._blocks:
            stop = first + self._windows_at_once
            self._blocks[first] = self.block(
                first, stop if self.windows is None else min(stop, self.windows)
            )
            if len(self._blocks) > _KEPT_BLOCKS:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(first)
        return self._blocks[first], first

    def _find(self, index: int) -> tuple[Block, int]:
        """The block that holds a pack, and the pack's number in it."""
        while index >= self._ends[-1]:
            k = len(self._ends) - 1
            if self.windows is not None and k >= self.windows:
                raise IndexError(f"pack {index} of {self._ends[-1]}")
            block, first = self._block_of(k)
            more = self._ends[-1] + np.cumsum(block.packs_per_window[k - first :])
            self._ends = np.concatenate([self._ends, more])
        k = int(np.searchsorted(self._ends, index, side="right")) - 1
        block, first = self._block_of(k)
        return block, index - int(self._ends[first])

    def has_step(self, step: int) -> bool:
        """Whether a step has any packs: a finite order ends on every rank at once."""
        return self._has_pack(step * self._global_batch)

    def _has_pack(self, index: int) -> bool:
        try:
            self._find(index)
        except IndexError:
            return False
        return True

    def pack(self, index: int) -> Pack:
        """The samples of a pack in draw order; IndexError beyond the end of a finite order."""
        block, number = self._find(index)
        places = block.places[block.ends[number] : block.ends[number + 1]]
        return tuple(self._drawn(block.draw, places))

    def batch(self, step: int, rank: int, world_size: int) -> list[Pack]:
        """This rank's packs of a step; ranks differ by one pack at most, a finite order runs out.

        The `global_batch` packs from step * global_batch on are shuffled, then dealt longest
        first to the rank with the least work so far.
        """
        return [self.pack(index) for index in self.deal(step, world_size)[rank]]

    def deal(self, step: int, world_size: int) -> list[list[int]]:
        """The pack numbers of a step for each rank."""
        start, costs = step * self._global_batch, []
        for index in takewhile(self._has_pack, range(start, start + self._global_batch)):
            block, number = self._find(index)
            costs.append(int(block.costs[number]))
        seed, packs = self._manifest.seed, len(costs)
        shuffled = permute(np.arange(packs), packs, key_of(seed, "batch", step)).tolist()
        lanes = deal([costs[i] for i in shuffled], world_size)
        lane_of = permute(np.arange(world_size), world_size, key_of(seed, "ranks", step)).tolist()
        return [[start + shuffled[i] for i in lanes[lane]] for lane in lane_of]


def _places_by(source: NDArray[np.int64], sources: int) -> list[NDArray[np.int64]]:
    """For each source: where it stands, ascending."""
    order = np.argsort(source.astype(np.uint16), kind="stable")
    ends = np.cumsum(np.bincount(source, minlength=sources))
    return np.split(order, ends[:-1])


def group_sums(
    values: NDArray[np.integer], group: NDArray[np.int64], groups: int
) -> NDArray[np.int64]:
    """Sums of `values` by group number, exact below 2**53."""
    return np.bincount(group, weights=values, minlength=groups).astype(np.int64)


def deal(costs: list[int], lanes: int) -> list[list[int]]:
    """Indices of `costs` per lane: longest first to the least loaded, counts equal within one."""
    base, extra = divmod(len(costs), lanes)
    dealt: list[list[int]] = [[] for _ in range(lanes)]
    open_lanes = [(0, lane) for lane in range(lanes)]
    heapify(open_lanes)
    for item in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        load, lane = heappop(open_lanes)
        while len(dealt[lane]) == base and not extra:
            load, lane = heappop(open_lanes)
        extra -= len(dealt[lane]) == base
        dealt[lane].append(item)
        if len(dealt[lane]) <= base:
            heappush(open_lanes, (load + costs[item], lane))
    return [sorted(items) for items in dealt]
