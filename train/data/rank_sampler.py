"""Which samples a rank takes at a step, micro-batch by micro-batch: decisions only, no bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Lock

from mixtures.manifest.draws import SampleReference
from mixtures.manifest.sampler import BatchSampler
from train.data.tower_plan import calls_for


@dataclass(frozen=True, slots=True, kw_only=True)
class RankSampler:
    """The part of an order that one rank takes.

    `global_batch` packs make a step, all ranks together, as `order` was told too; a rank joins
    `micro_batch` of its own into one forward pass. `order` is not safe between threads; this is, so
    that one may sample steps while another saves the place in the order.
    """

    order: BatchSampler
    rank: int
    world_size: int
    global_batch: int
    micro_batch: int
    _asked: Lock = field(default_factory=Lock, init=False, repr=False, compare=False)

    def has_step(self, step: int) -> bool:
        """Whether a step has any packs, as `BatchSampler.has_step`."""
        with self._asked:
            return self.order.has_step(step)

    def place_of(self, step: int) -> tuple[int, int]:
        """The window of a step's first pack and the window's own, as `BatchSampler.place_of`."""
        with self._asked:
            return self.order.place_of(step)

    def go_on(self, step: int, window: int, first_pack: int) -> None:
        """Go on from a place that was saved, as `BatchSampler.go_on`."""
        with self._asked:
            self.order.go_on(step, window, first_pack)

    @property
    def micro_steps(self) -> int:
        """Forward passes per step, equally many on every rank."""
        # ceiling division: the last forward pass may be short
        return -(-self.global_batch // (self.world_size * self.micro_batch))

    def micro_batches(self, step: int) -> list[list[SampleReference]]:
        """The samples of each forward pass of a step; the last ones may have none."""
        with self._asked:
            packs = self.order.batch(step, self.rank, self.world_size)
        starts = range(0, self.micro_steps * self.micro_batch, self.micro_batch)
        return [
            [drawn for pack in packs[start : start + self.micro_batch] for drawn in pack]
            for start in starts
        ]

    def tower_calls(self, step: int, chunk: int) -> list[int]:
        """How often the tower runs in each forward pass of a step: as often as the rank with most
        patches needs. Every rank finds the same, without asking another."""
        size = self.micro_batch
        with self._asked:
            # packs of all ranks: arithmetic, not communication
            packs_of_ranks = self.order.packs_by_rank(step, self.world_size)
            patches = self.order.patches
            return [
                # every rank runs the tower equally often, or collectives inside it would wait for
                # ever
                max(calls_for(patches(mine[at * size :][:size]), chunk) for mine in packs_of_ranks)
                for at in range(self.micro_steps)
            ]
