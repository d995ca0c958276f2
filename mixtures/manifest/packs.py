"""Pack number -> samples: packs are counted through all windows of a manifest's order."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mixtures.manifest.blocks import Block, Blocks
from mixtures.manifest.draw_order import DrawOrder
from mixtures.manifest.draws import Draw, Draws, SampleReference
from shards.errors import UserError

Pack = tuple[SampleReference, ...]
"""The samples of a pack in draw order."""
MOST_WINDOWS = 10**6
"""Windows beyond the length that are counted through to reach a pack."""


class Packs:
    """The packs of a manifest by number; those of weight recipes never end.

    The plan says how many there are in each window of the length. Beyond it they are counted as
    they are asked for, from the length on or from a window that `go_on` names.
    """

    def __init__(self, order: DrawOrder, at_once: int = 1) -> None:
        """`at_once` is how many packs are asked for together, as a step does."""
        self._draws = Draws(order)
        self._window_size = order.pack.window
        # prefix sums: the first pack of each window inside the length, and the packs there in all
        self._inside = np.concatenate([[0], np.cumsum(order.packs_per_window, dtype=np.int64)])
        packs_per_window = int(self._inside[-1]) // max(len(self._inside) - 1, 1)
        self._blocks = Blocks(order, at_once // max(packs_per_window, 1))
        self._count_from(len(order.packs_per_window), int(self._inside[-1]))

    def _count_from(self, window: int, packs: int) -> None:
        # packs before it and those after it
        self._first_counted = window
        self._counted = [packs]

    def pack(self, number: int) -> Pack:
        """The samples of a pack; IndexError beyond the end of a finite order."""
        return self.packs([number])[0]

    def packs(self, numbers: Sequence[int]) -> list[Pack]:
        """The samples of these packs, in this order; IndexError beyond the end of a finite one."""
        # in ascending order, so that each block is made once, however packs are shuffled
        ascending = np.unique(np.array(numbers, np.int64))
        if len(ascending) and not (ascending[0] >= 0 and self.has_pack(int(ascending[-1]))):
            raise IndexError(f"packs {numbers} of {self._counted[-1]}")
        by_number: dict[int, Pack] = {}
        for block, of_block, inside in self._by_block(ascending):
            # every pack's samples in one gather, then cut where packs end
            samples = self._draws.references(block.draw.at(block.places_of(inside)))
            ends = np.cumsum(block.ends[inside + 1] - block.ends[inside]).tolist()
            for number, start, end in zip(of_block.tolist(), [0, *ends], ends, strict=False):
                by_number[number] = tuple(samples[start:end])
        return [by_number[number] for number in numbers]

    def drawn(self, start: int, stop: int) -> Iterator[tuple[Draw, NDArray[np.int64]]]:
        """The samples of packs start..stop-1, as far as there are so many, some packs at a time:
        what is drawn, pack by pack, and the number of the pack of each."""
        if not self.has_pack(stop - 1):
            stop = max(min(stop, self._counted[-1]), start)
        for block, of_block, inside in self._by_block(np.arange(start, stop)):
            sizes = block.ends[inside + 1] - block.ends[inside]
            yield block.draw.at(block.places_of(inside)), np.repeat(of_block, sizes)

    def patches(self, numbers: Sequence[int]) -> int:
        """The patches of these packs' samples, as the plan counted them."""
        ascending = np.sort(np.array(numbers, np.int64))
        blocks = self._by_block(ascending)
        return sum(int(block.patches[inside].sum()) for block, _, inside in blocks)

    def costs(self, start: int, stop: int) -> NDArray[np.int64]:
        """An estimate of the work of packs start..stop-1, in tokens; a finite order runs out."""
        # only the end of a finite order is nearer than that
        if not self.has_pack(stop - 1):
            stop = max(min(stop, self._counted[-1]), start)
        parts = [block.costs[inside] for block, _, inside in self._by_block(np.arange(start, stop))]
        return np.concatenate([np.empty(0, np.int64), *parts])

    def _by_block(
        self, numbers: NDArray[np.int64]
    ) -> Iterator[tuple[Block, NDArray[np.int64], NDArray[np.int64]]]:
        """Ascending packs, block by block: the block, those in it, and their numbers inside it."""
        done = 0
        while done < len(numbers):
            window, first = self.window_of(int(numbers[done]))
            block, first_window = self._blocks.holding(window)
            # from the window's first pack to the block's
            first -= int(block.packs_per_window[: window - first_window].sum())
            end = int(np.searchsorted(numbers, first + len(block.costs)))
            yield block, numbers[done:end], numbers[done:end] - first
            done = end

    def has_pack(self, number: int) -> bool:
        """Whether there is a pack of this number: a finite order ends.

        UserError where more than MOST_WINDOWS would have to be counted to say so.
        """
        # going back before a resumed place: count from the length on again
        if self._inside[-1] <= number < self._counted[0]:
            self._count_from(len(self._inside) - 1, int(self._inside[-1]))
        if self.windows_to(number) > MOST_WINDOWS:
            raise UserError(
                f"pack {number} lies about {self.windows_to(number)} windows beyond what is "
                f"counted, more than {MOST_WINDOWS}; ask for an earlier step"
            )
        while number >= self._counted[-1]:
            if not self.count_on():
                return False
        return number >= 0

    def windows_to(self, number: int) -> int:
        """About how many windows are still to be counted before this pack is known; 0 if none."""
        if self._blocks.windows is not None or number < self._counted[-1]:
            return 0
        if len(self._counted) == 1 and self._first_counted == 0:
            self.count_on()
        windows = self._first_counted + len(self._counted) - 1
        return max(number - self._counted[-1], 0) * windows // self._counted[-1]

    def count_on(self) -> int:
        """Count the packs of the next windows; how many windows, 0 at the end of a finite order."""
        window = self._first_counted + len(self._counted) - 1
        if self._blocks.windows is not None and window >= self._blocks.windows:
            return 0
        block, first = self._blocks.holding(window)
        # prefix sums go on beyond the length, a block of windows at a time
        more = np.cumsum(block.packs_per_window[window - first :]) + self._counted[-1]
        self._counted += more.tolist()
        return len(more)

    def window_of(self, number: int) -> tuple[int, int]:
        """The window that holds a pack, and the window's first pack.

        Beyond the end of a finite order: one past its last window, and past its last pack.
        """
        if 0 <= number < self._inside[-1]:
            window = int(np.searchsorted(self._inside, number, side="right")) - 1
            return window, int(self._inside[window])
        self.has_pack(number)
        # beyond the length the counted prefix sums are a list that grows
        at = bisect_right(self._counted, number) - 1
        return self._first_counted + at, self._counted[at]

    def go_on(self, number: int, window: int, first: int) -> None:
        """Take it that pack `number` is in this window, whose first pack is `first`.

        So nothing is counted to get there. UserError where that cannot be so in this order.
        """
        can_be = self._can_be(number, window, first)
        if can_be and self._blocks.windows is None and window >= len(self._inside):
            self._count_from(window, first)
        if not can_be or self.window_of(number) != (window, first):
            raise UserError(
                f"data state: pack {number} is not in window {window} from pack {first} on in this "
                "order; the state is damaged: resume from the checkpoint before it"
            )

    def _can_be(self, number: int, window: int, first: int) -> bool:
        """Whether `go_on` may be so, as far as no window has to be counted to say it."""
        if self._blocks.windows is not None:
            return True  # all are counted
        size = self._window_size
        inside = len(self._inside) - 1
        # a window holds a pack at least and one for each position at most
        if not 0 <= first <= number < first + size or not 0 <= window < (1 << 62) // size:
            return False
        if window <= inside:
            return int(self._inside[window]) == first
        return window - inside <= first - int(self._inside[-1]) <= (window - inside) * size
