"""Interleaving of sources by weight: which one stands at position n, earliest deadline first.

The algorithm is EDF of unit jobs (Horn, 1974), which solves the chairman assignment problem
(Tijdeman, 1980).
Every prefix of a stage is within 1 sample per source of its exact share, and every window within 2;
there is no randomness here.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import islice
from math import gcd, lcm

import numpy as np
from numpy.typing import NDArray

MAX_LENGTH = 1 << 31
"""Positions of a table: one small integer is stored for each."""
_SCALED = MAX_LENGTH - (1 << 17)
"""What shares sum to, but for rounding, where the exact ones sum to MAX_LENGTH or more."""
_CHUNK = 1 << 16
Sources = NDArray[np.unsignedinteger]
Stage = tuple[int, tuple[int, ...]]
"""The first position of a stage, and the integer shares of the sources from there on."""


@dataclass(frozen=True)
class Schedule:
    """The source at every position: `source[n]`; beyond its end the part from `loop` on repeats."""

    source: Sources
    sources: int
    loop: int = 0

    def at(self, start: int, stop: int) -> NDArray[np.int64]:
        """The sources at positions start..stop-1."""
        if stop <= len(self.source):
            return self.source[start:stop].astype(np.int64)
        # beyond the table a position falls back into its last stage, as often as it takes
        position = np.arange(start, stop, dtype=np.int64)
        repeated = self.loop + (position - self.loop) % (len(self.source) - self.loop)
        return self.source[np.where(position < self.loop, position, repeated)].astype(np.int64)

    def visits(self, stop: int) -> NDArray[np.int64]:
        """How often each source stands in positions 0..stop-1."""
        if stop <= len(self.source):
            return self._counts(stop)
        # whole rounds of the last stage, and the part of one that is left
        before = self._counts(self.loop)
        number, rest = divmod(stop - self.loop, len(self.source) - self.loop)
        once = self._counts(len(self.source)) - before
        found: NDArray[np.int64] = number * once + self._counts(self.loop + rest)
        return found

    def position_of(self, source: int, turn: int) -> int | None:
        """Where the table visits a source for the `turn`-th time (from 0); None if it does not."""
        # prefix sums by block find the block; the visit is then counted out inside it
        block = int(np.searchsorted(self._before[:, source], turn, side="right")) - 1
        start = block * self._block
        slots = np.flatnonzero(self.source[start : start + self._block] == source)
        rank = turn - int(self._before[block, source])
        return start + int(slots[rank]) if rank < len(slots) else None

    @property
    def _block(self) -> int:
        # so large that the prefix sums take a sixteenth of the table's own bytes at most
        return max(1 << 12, 16 * self.sources)

    @cached_property
    def _before(self) -> NDArray[np.int64]:
        """[blocks + 1, sources]: visits before each block of the table."""
        starts = range(0, len(self.source), self._block)
        counts = [np.zeros(self.sources, np.int64)]
        counts += [self._count(start, start + self._block) for start in starts]
        return np.cumsum(counts, axis=0)

    def _counts(self, stop: int) -> NDArray[np.int64]:
        block = stop // self._block
        found: NDArray[np.int64] = self._before[block] + self._count(block * self._block, stop)
        return found

    def _count(self, start: int, stop: int) -> NDArray[np.int64]:
        return np.bincount(self.source[start:stop], minlength=self.sources)


def shares_of(weights: Sequence[Fraction]) -> tuple[int, ...]:
    """Integers in the ratio of the weights, below 2**31 in sum.

    They are exact where that is possible; else rounded, and what is above 0 stays above it.
    """
    # the weights over their common denominator, in lowest terms: exact, if that fits
    common = lcm(*(weight.denominator for weight in weights))
    integers = [int(weight * common) for weight in weights]
    divisor = gcd(*integers)
    exact = tuple(each // divisor for each in integers)
    total = sum(exact)
    if total < MAX_LENGTH:
        return exact
    # else the nearest integers (halves up); none that is above 0 may vanish
    rounded = ((2 * each * _SCALED + total) // (2 * total) for each in exact)
    return tuple(max(new, 1 if old else 0) for new, old in zip(rounded, exact, strict=True))


def table_of(stages: Sequence[Stage], length: int) -> Sources:
    """The source at positions 0..length-1; each stage is scheduled by itself."""
    # a stage ends where the next one begins; what begins beyond the length has no slots
    ends = [*(start for start, _ in stages[1:]), length]
    counts = [min(end, length) - start for (start, _), end in zip(stages, ends, strict=True)]
    pairs = zip(stages, counts, strict=True)
    return np.concatenate([scheduled(shares, count) for (_, shares), count in pairs if count > 0])


def scheduled(shares: Sequence[int], length: int) -> Sources:
    """Which source at each of `length` slots: of those released, the earliest deadline.

    With s the share of a source in the sum of all, its visit c (from 0) is released at slot
    floor(c / s) and due before slot ceil((c + 1) / s); ties go to the source named first.
    """
    period = sum(shares)  # after which every source has had its share exactly, so all begins anew
    if length > period:
        return np.resize(scheduled(shares, period), length)
    # EDF for unit jobs of one machine (Horn 1974): with releases and deadlines as above it
    # never misses one, which bounds every prefix (Tijdeman's chairman assignment, 1980)
    source: Sources = np.empty(length, np.uint8 if len(shares) <= 256 else np.uint16)
    waiting: list[int] = []  # ascending: a sorted list of so few is faster than a heap
    for start, visits, counts in _released(shares, length):
        released = iter(visits.tolist())
        taken = []
        # at each slot the visits that are released join those that wait; the first due is taken
        for count in counts.tolist():
            if count == 1:
                insort(waiting, next(released))
            elif count:
                for visit in islice(released, count):
                    insort(waiting, visit)
            taken.append(waiting.pop())
        # the source is what is left of the packed integer (see _released)
        source[start : start + len(taken)] = -np.array(taken, np.int64) % len(shares)
    return source


def _released(
    shares: Sequence[int], length: int
) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
    """Chunks of slots: the first, the visits released in each in slot order, and how many they are.

    A visit is one integer, -(due * number of sources + source), so that the greatest is due first.
    """
    period = sum(shares)
    # by chunks, so that memory does not grow with the length
    for start in range(0, length, _CHUNK):
        stop = min(start + _CHUNK, length)
        slots = []
        visits = []
        for i, share in enumerate(shares):  # released in start..stop-1: start <= c * P / s < stop
            turns = np.arange(-(-start * share // period), -(-stop * share // period))
            slots.append(turns * period // max(share, 1))
            visits.append(-(turns + 1) * period // max(share, 1) * len(shares) - i)
        slot = np.concatenate(slots)
        # all sources together in slot order; how many of them each slot releases
        order = np.argsort(slot, kind="stable")
        counts = np.bincount(slot - start, minlength=stop - start)
        yield start, np.concatenate(visits)[order], counts
