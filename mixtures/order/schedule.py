"""Weights to integer quotas to which source stands at position n: earliest deadline first.

Every prefix of the schedule is within 1 sample per source of its quota's share, and every window
of it within 2; there is no randomness here.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import islice
from math import lcm

import numpy as np
from numpy.typing import NDArray

MAX_PERIOD = 65_536
MAX_LENGTH = 1 << 31
"""Positions of a finite order: one small integer is stored for each."""
TOLERANCE = Fraction(1, 1000)
"""A quota may differ from its weight's share by this fraction of the share."""
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """At slot m stands source `source[m]`, for the `rank[m]`-th time in the period."""

    quotas: tuple[int, ...]
    source: NDArray[np.unsignedinteger]
    rank: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.source)


@dataclass(frozen=True)
class Schedule:
    """Periods that repeat from their `starts` on, each until the next start, the last for ever.

    Starts are multiples of the length of the period that ends there.
    """

    starts: tuple[int, ...]
    periods: tuple[Period, ...]

    @cached_property
    def before(self) -> list[NDArray[np.int64]]:
        """For each stage: the visits of every source before it."""
        counts = [np.zeros(len(self.periods[0].quotas), np.int64)]
        for start, stop, period in zip(self.starts, self.starts[1:], self.periods, strict=False):
            counts.append(counts[-1] + _quotas(period) * ((stop - start) // len(period)))
        return counts

    def locate(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions start..stop-1: the source at each, and its turn (visits of it before)."""
        parts = [self._locate(stage, a, b) for stage, a, b in self._cut(start, stop)]
        if not parts:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    def _cut(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        for stage in range(bisect_right(self.starts, start) - 1, len(self.starts)):
            end = self.starts[stage + 1] if stage + 1 < len(self.starts) else stop
            a, b = max(start, self.starts[stage]), min(stop, end)
            if a < b:
                yield stage, a, b

    def _locate(
        self, stage: int, start: int, stop: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        period, base = self.periods[stage], self.starts[stage]
        number, slot = np.divmod(np.arange(start - base, stop - base, dtype=np.int64), len(period))
        source = period.source[slot].astype(np.int64)
        turn = number * _quotas(period)[source] + period.rank[slot] + self.before[stage][source]
        return source, turn

    def visits(self, stop: int) -> list[int]:
        """How often each source stands in positions 0..stop-1."""
        stage = bisect_right(self.starts, max(stop - 1, 0)) - 1
        period = self.periods[stage]
        whole, rest = divmod(stop - self.starts[stage], len(period))
        more = np.bincount(period.source[:rest], minlength=len(period.quotas))
        counts: list[int] = (self.before[stage] + whole * _quotas(period) + more).tolist()
        return counts

    def position_of(self, source: int, turn: int) -> int | None:
        """Where the source is visited for the `turn`-th time (from 0); None if it never is."""
        found = None
        for start, before, period in zip(self.starts, self.before, self.periods, strict=True):
            left, quota = turn - int(before[source]), period.quotas[source]
            if left >= 0:  # not before this stage; never, if the stage does not show it
                slots = np.flatnonzero(period.source == source)
                number, rank = divmod(left, max(quota, 1))
                found = start + number * len(period) + int(slots[rank]) if quota else None
        return found

    def ratio(self, length: int) -> tuple[int, ...]:
        """Integers in the ratio that the sources should have in the first `length` positions."""
        if len(self.periods) == 1:
            return self.periods[0].quotas
        sums = [Fraction(0)] * len(self.periods[0].quotas)
        for stage, a, b in self._cut(0, length):
            period = self.periods[stage]
            part = (Fraction(quota * (b - a), len(period)) for quota in period.quotas)
            sums = [x + y for x, y in zip(sums, part, strict=True)]
        return tuple(_integers(sums))


def _quotas(period: Period) -> NDArray[np.int64]:
    return np.array(period.quotas, np.int64)


def quotas_of(weights: Sequence[Fraction], period: int) -> tuple[int, ...]:
    """Largest remainder: integers that sum to `period`; ties go to the source named first."""
    return _quotas_of(_integers(weights), period)


def _integers(weights: Sequence[Fraction]) -> list[int]:
    """The weights over their common denominator."""
    common = lcm(*(weight.denominator for weight in weights))
    return [int(weight * common) for weight in weights]


def _quotas_of(weights: Sequence[int], period: int) -> tuple[int, ...]:
    total = sum(weights)
    quotas = [weight * period // total for weight in weights]
    left = [weight * period % total for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: (-left[i], i))
    for i in by_remainder[: period - sum(quotas)]:
        quotas[i] += 1
    return tuple(quotas)


def misfit(weights: Sequence[Fraction], period: int) -> int | None:
    """The first source whose quota is further than TOLERANCE from its weight's share, if any."""
    return _misfit(_integers(weights), period)


def _misfit(weights: Sequence[int], period: int) -> int | None:
    total = sum(weights)
    for i, quota in enumerate(_quotas_of(weights, period)):
        share = weights[i] * period
        if abs(quota * total - share) * TOLERANCE.denominator > share * TOLERANCE.numerator:
            return i
    return None


def fitting_period(weights: Sequence[Fraction], least: int) -> int | None:
    """The smallest period from `least` on that represents every weight, if there is one."""
    integers = _integers(weights)
    periods = range(least, MAX_PERIOD + 1)
    return next((period for period in periods if _misfit(integers, period) is None), None)


def period_of(quotas: Sequence[int]) -> Period:
    """Which source at each slot: of those not ahead of their share, the earliest deadline.

    Source i's c-th visit is released at slot floor(c * P / q_i) and due before slot
    ceil((c + 1) * P / q_i); ties go to the source named first.
    """
    kind = np.uint8 if len(quotas) <= 256 else np.uint16
    source: NDArray[np.unsignedinteger] = np.empty(sum(quotas), kind)
    waiting: list[int] = []  # ascending: a sorted list of so few is faster than a heap
    for start, visits, counts in _released(quotas):
        released, taken = iter(visits.tolist()), []
        for count in counts.tolist():
            if count == 1:
                insort(waiting, next(released))
            elif count:
                for visit in islice(released, count):
                    insort(waiting, visit)
            taken.append(waiting.pop())
        source[start : start + len(taken)] = -np.array(taken, np.int64) % len(quotas)
    return ranks_of(source, quotas)


def _released(
    quotas: Sequence[int],
) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
    """Chunks of slots: the first, the visits released in each in slot order, and how many they are.

    A visit is one integer, -(due * number of sources + source), so that the greatest is due first.
    """
    period = sum(quotas)
    for start in range(0, period, _CHUNK):
        stop = min(start + _CHUNK, period)
        slots, visits = [], []
        for i, quota in enumerate(quotas):  # released in start..stop-1: start <= c * P / q < stop
            turns = np.arange(-(-start * quota // period), -(-stop * quota // period))
            slots.append(turns * period // max(quota, 1))
            visits.append(-(turns + 1) * period // max(quota, 1) * len(quotas) - i)
        slot = np.concatenate(slots)
        order = np.argsort(slot, kind="stable")
        counts = np.bincount(slot - start, minlength=stop - start)
        yield start, np.concatenate(visits)[order], counts


def ranks_of(source: NDArray[np.unsignedinteger], quotas: Sequence[int]) -> Period:
    """The period that a stored table of sources is; its ranks are counted again."""
    rank = np.empty(len(source), np.uint32)
    for i, quota in enumerate(quotas):
        rank[source == i] = np.arange(quota, dtype=np.uint32)
    return Period(quotas=tuple(quotas), source=source, rank=rank)


def first_repeat(schedule: Schedule, rows: Sequence[int]) -> int:
    """The first position at which an endless schedule shows a source's sample again."""
    found = (schedule.position_of(i, kept) for i, kept in enumerate(rows))
    return min(position for position in found if position is not None)
