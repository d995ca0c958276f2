"""Weights to integer quotas to which source stands at position n: earliest deadline first.

Every prefix of the schedule is within 1 sample per source of its quota's share, and every window
of it within 2; there is no randomness here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm

import numpy as np
from numpy.typing import NDArray

SCHEDULE_ALGO = "edf-period/1"
MAX_PERIOD = 65_536
TOLERANCE = Fraction(1, 1000)
"""A quota may differ from its weight's share by this fraction of the share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """One period: at slot m stands source `source[m]`, for the `rank[m]`-th time in the period."""

    quotas: tuple[int, ...]
    source: NDArray[np.uint16]
    rank: NDArray[np.int64]

    @property
    def period(self) -> int:
        return len(self.source)


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


def schedule_of(quotas: Sequence[int]) -> Schedule:
    """Which source at each slot: of those not ahead of their share, the earliest deadline.

    Source i's c-th visit is released at slot c * P / q_i and due at (c + 1) * P / q_i; comparing
    fractions by cross-multiplication keeps it exact, ties go to the source named first.
    """
    period, count = sum(quotas), [0] * len(quotas)
    source, rank = np.zeros(period, np.uint16), np.zeros(period, np.int64)
    for n in range(period):
        best = -1
        for i, quota in enumerate(quotas):
            if count[i] * period >= quota * (n + 1):
                continue
            if best < 0 or (count[i] + 1) * quotas[best] < (count[best] + 1) * quota:
                best = i
        source[n], rank[n] = best, count[best]
        count[best] += 1
    return Schedule(quotas=tuple(quotas), source=source, rank=rank)


def ranks_of(source: NDArray[np.uint16], quotas: Sequence[int]) -> Schedule:
    """The schedule that a stored table of sources is; its ranks are counted again."""
    rank = np.zeros(len(source), np.int64)
    for i in range(len(quotas)):
        at = np.flatnonzero(source == i)
        rank[at] = np.arange(len(at))
    return Schedule(quotas=tuple(quotas), source=source, rank=rank)


def first_repeat(schedule: Schedule, rows: Sequence[int]) -> int:
    """The first position at which an endless schedule shows a source's sample again."""
    found = []
    for i, (quota, kept) in enumerate(zip(schedule.quotas, rows, strict=True)):
        period, rank = divmod(kept, quota)
        slot = np.flatnonzero((schedule.source == i) & (schedule.rank == rank))[0]
        found.append(period * schedule.period + int(slot))
    return min(found)
