"""The schedule keeps every prefix within 1 sample of the share, and every window within 2."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mixtures.schedule import (
    Schedule,
    first_repeat,
    fitting_period,
    misfit,
    quotas_of,
    ranks_of,
    schedule_of,
)

WEIGHTS = st.lists(st.fractions(Fraction(1, 50), 50, max_denominator=99), min_size=1, max_size=8)
QUOTAS = st.lists(st.integers(1, 60), min_size=1, max_size=9)


def counts(schedule: Schedule, periods: int = 1) -> np.ndarray:
    """[positions + 1, sources]: how often each source stood in each prefix."""
    source = np.tile(schedule.source, periods)
    hits = source[:, None] == np.arange(len(schedule.quotas))
    return np.concatenate([np.zeros((1, hits.shape[1]), int), np.cumsum(hits, axis=0)])


@given(WEIGHTS, st.integers(1, 2000))
def test_quotas_sum_to_the_period_and_stay_within_one_of_the_share(
    weights: list[Fraction], period: int
) -> None:
    quotas = quotas_of(weights, period)
    assert sum(quotas) == period
    for weight, quota in zip(weights, quotas, strict=True):
        assert abs(quota - weight * period / sum(weights)) < 1


@given(WEIGHTS, st.integers(2, 50))
def test_quotas_hang_on_ratios_only(weights: list[Fraction], factor: int) -> None:
    assert quotas_of(weights, 100) == quotas_of([weight * factor for weight in weights], 100)


def test_ties_go_to_the_source_named_first() -> None:
    assert quotas_of([Fraction(1)] * 3, 100) == (34, 33, 33)


@settings(deadline=None)
@given(QUOTAS)
def test_every_prefix_is_within_one_sample_of_the_share(quotas: list[int]) -> None:
    schedule = schedule_of(quotas)
    seen = counts(schedule) * schedule.period
    share = np.arange(schedule.period + 1)[:, None] * np.array(quotas)
    assert (abs(seen - share) < schedule.period).all()
    assert np.bincount(schedule.source, minlength=len(quotas)).tolist() == quotas


@settings(deadline=None)
@given(QUOTAS, st.integers(1, 100))
def test_every_window_is_within_two_samples_of_the_share(quotas: list[int], window: int) -> None:
    schedule = schedule_of(quotas)
    seen = counts(schedule, periods=3)
    windows = seen[window:] - seen[:-window]
    off = abs(windows * schedule.period - window * np.array(quotas))
    assert (off < 2 * schedule.period).all()


@given(QUOTAS)
def test_ranks_count_the_visits_of_a_source(quotas: list[int]) -> None:
    schedule = schedule_of(quotas)
    for i, quota in enumerate(quotas):
        assert schedule.rank[schedule.source == i].tolist() == list(range(quota))
    again = ranks_of(schedule.source, quotas)
    assert (again.rank == schedule.rank).all()


def test_the_schedule_is_the_one_of_edf_period_1() -> None:
    assert schedule_of([5, 3, 2]).source.tolist() == [0, 1, 0, 2, 0, 1, 0, 1, 0, 2]
    assert schedule_of([7, 1]).source.tolist() == [0, 0, 0, 0, 0, 0, 0, 1]


def test_a_period_that_cannot_represent_a_weight_is_told_one_that_can() -> None:
    weights = [Fraction(1), Fraction(6)]
    assert misfit([Fraction(9), Fraction(1)], 10) is None
    assert misfit(weights, 100) == 0
    period = fitting_period(weights, 100)
    assert period == 105 and misfit(weights, period) is None
    assert fitting_period([Fraction(1), Fraction(10**9)], 1000) is None


def test_the_first_repeat_is_where_a_source_has_shown_all() -> None:
    schedule = schedule_of([3, 1])
    assert first_repeat(schedule, [100, 2]) == 2 * 4 + schedule.source.tolist().index(1)
    assert first_repeat(schedule, [4, 50]) == 4 + np.flatnonzero(schedule.source == 0)[1]
