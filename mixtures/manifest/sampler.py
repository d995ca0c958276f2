"""The distributed batch sampler: step -> this rank's packed sequences.

Sharding over ranks alone knows the world size: which packs a step has is the same for any number of
ranks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixtures.manifest.draw_order import DrawOrder
from mixtures.manifest.packs import Pack, Packs
from mixtures.order.permutation import key_of, permute
from mixtures.order.rank_sharding import shard_over_ranks


class BatchSampler:
    """The order of a manifest, step by step; weight recipes are endless, the others end."""

    def __init__(self, order: DrawOrder, global_batch: int = 1) -> None:
        """`global_batch` is the number of packs of a step, fixed for a run; see `batch`."""
        self._seed = order.seed
        self._global_batch = global_batch
        self._packs = Packs(order, global_batch)

    def has_step(self, step: int) -> bool:
        """Whether a step has any packs: a finite order ends on every rank at once.

        UserError for a step of an endless order that lies too far beyond what is counted.
        """
        return self._packs.has_pack(step * self._global_batch)

    def windows_to(self, step: int) -> int:
        """About how many windows beyond the length are to be counted before this step is known."""
        return self._packs.windows_to((step + 1) * self._global_batch)

    def count_on(self) -> int:
        """Count some windows further; how many."""
        return self._packs.count_on()

    def place_of(self, step: int) -> tuple[int, int]:
        """The window that holds the first pack of a step, and the window's own first pack."""
        return self._packs.window_of(step * self._global_batch)

    def go_on(self, step: int, window: int, first_pack: int) -> None:
        """Go on from a step whose `place_of` was saved; UserError where this order has another."""
        self._packs.go_on(step * self._global_batch, window, first_pack)

    def batch(self, step: int, rank: int, world_size: int) -> list[Pack]:
        """This rank's packs of a step; ranks differ by one pack at most, a finite order runs out.

        The `global_batch` packs from step * global_batch on are shuffled, then dealt longest
        first to the rank with the least work so far.
        """
        return self.packs(self.packs_by_rank(step, world_size)[rank])

    def packs(self, numbers: Sequence[int]) -> list[Pack]:
        """The packs of these numbers, in their order."""
        return self._packs.packs(numbers)

    def patches(self, numbers: Sequence[int]) -> int:
        """The patches of the packs of these numbers, as the plan counted them."""
        return self._packs.patches(numbers)

    def packs_by_rank(self, step: int, world_size: int) -> list[list[int]]:
        """The pack numbers of a step for each rank."""
        # 1. shuffle the step's packs, 2. shard them over lanes by cost, 3. permute lanes and ranks:
        # so no rank always gets the largest pack, nor a source
        start = step * self._global_batch
        # costs and packs come from the same blocks, each made once
        costs = self._packs.costs(start, start + self._global_batch)
        shuffled = self._permuted(len(costs), "batch", step)
        lanes = shard_over_ranks(costs[shuffled].tolist(), world_size)
        lane_of = self._permuted(world_size, "ranks", step)
        return [[start + shuffled[i] for i in lanes[lane]] for lane in lane_of]

    def _permuted(self, count: int, what: str, step: int) -> list[int]:
        """0..count-1 in the order that seed, purpose and step name."""
        found: list[int] = permute(np.arange(count), count, key_of(self._seed, what, step)).tolist()
        return found
