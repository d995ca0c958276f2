"""Packs over ranks: longest processing time first (LPT), counts kept equal; a pure function."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush


def shard_over_ranks(costs: Sequence[int], lanes: int) -> list[list[int]]:
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
