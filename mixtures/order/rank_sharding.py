"""Sharding over ranks: longest processing time first (Graham 1969), counts kept equal."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush


def shard_over_ranks(costs: Sequence[int], lanes: int) -> list[list[int]]:
    """Indices of `costs` per lane: longest first to the least loaded, counts equal within one."""
    base, extra = divmod(len(costs), lanes)
    assigned: list[list[int]] = [[] for _ in range(lanes)]
    # a heap of (work so far, lane): the least loaded lane, ties to the lower number
    open_lanes = [(0, lane) for lane in range(lanes)]
    heapify(open_lanes)
    # Graham's LPT (1969), longest first, with counts bound to differ by one at most
    for item in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        load, lane = heappop(open_lanes)
        # a full lane is closed; `extra` lanes may take one more, the first that ask
        while len(assigned[lane]) == base and not extra:
            load, lane = heappop(open_lanes)
        extra -= len(assigned[lane]) == base
        assigned[lane].append(item)
        if len(assigned[lane]) <= base:
            heappush(open_lanes, (load + costs[item], lane))
    return [sorted(items) for items in assigned]
