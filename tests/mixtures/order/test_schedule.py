"""The schedule keeps every prefix within 1 sample of the share, and every window within 2."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mixtures.order.schedule import (
    MAX_PERIOD,
    Period,
    Schedule,
    first_repeat,
    fitting_period,
    misfit,
    period_of,
    quotas_of,
    ranks_of,
)
from mixtures.versions import SCHEDULE_ALGO

WEIGHTS = st.lists(st.fractions(Fraction(1, 50), 50, max_denominator=99), min_size=1, max_size=8)
QUOTAS = st.lists(st.integers(1, 60), min_size=1, max_size=9)


def counts(schedule: Period, periods: int = 1) -> np.ndarray:
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
    schedule = period_of(quotas)
    seen = counts(schedule) * len(schedule)
    share = np.arange(len(schedule) + 1)[:, None] * np.array(quotas)
    assert (abs(seen - share) < len(schedule)).all()
    assert np.bincount(schedule.source, minlength=len(quotas)).tolist() == quotas


@settings(deadline=None)
@given(QUOTAS, st.integers(1, 100))
def test_every_window_is_within_two_samples_of_the_share(quotas: list[int], window: int) -> None:
    schedule = period_of(quotas)
    seen = counts(schedule, periods=3)
    windows = seen[window:] - seen[:-window]
    off = abs(windows * len(schedule) - window * np.array(quotas))
    assert (off < 2 * len(schedule)).all()


@given(QUOTAS)
def test_ranks_count_the_visits_of_a_source(quotas: list[int]) -> None:
    schedule = period_of(quotas)
    for i, quota in enumerate(quotas):
        assert schedule.rank[schedule.source == i].tolist() == list(range(quota))
    again = ranks_of(schedule.source, quotas)
    assert (again.rank == schedule.rank).all()


def test_the_schedule_is_the_one_of_edf_period_2() -> None:
    """A change of these tables must change the algorithm's name."""
    assert SCHEDULE_ALGO == "edf-period/2"
    assert period_of([5, 3, 2]).source.tolist() == [0, 1, 0, 2, 0, 1, 0, 1, 0, 2]
    assert period_of([7, 1]).source.tolist() == [0, 0, 0, 0, 0, 0, 0, 1]


def test_a_period_that_cannot_represent_a_weight_is_told_one_that_can() -> None:
    weights = [Fraction(1), Fraction(6)]
    assert misfit([Fraction(9), Fraction(1)], 10) is None
    assert misfit(weights, 100) == 0
    period = fitting_period(weights, 100)
    assert period == 105 and misfit(weights, period) is None
    assert fitting_period([Fraction(1), Fraction(10**9)], 1000) is None


def test_the_first_repeat_is_where_a_source_has_shown_all() -> None:
    schedule = Schedule((0,), (period_of([3, 1]),))
    assert first_repeat(schedule, [100, 2]) == 2 * 4 + schedule.periods[0].source.tolist().index(1)
    assert first_repeat(schedule, [4, 50]) == 4 + np.flatnonzero(schedule.periods[0].source == 0)[1]


STAGES = st.lists(
    st.tuples(st.integers(1, 4), st.lists(st.integers(0, 9), min_size=3, max_size=3).filter(any)),
    min_size=1,
    max_size=4,
)


def staged(stages: list[tuple[int, list[int]]]) -> Schedule:
    """Stages of so many periods each, the last for ever."""
    starts, start, periods = [], 0, [period_of(quotas) for _, quotas in stages]
    for (repeats, _), period in zip(stages, periods, strict=True):
        starts.append(start)
        start += repeats * len(period)
    return Schedule(tuple(starts), tuple(periods))


def by_walking(schedule: Schedule, stop: int) -> tuple[list[int], list[int]]:
    """The source and turn at each position, one after the other."""
    found, seen, turns = [], [0] * len(schedule.periods[0].quotas), []
    for n in range(stop):
        stage = max(i for i, start in enumerate(schedule.starts) if start <= n)
        period = schedule.periods[stage]
        source = int(period.source[(n - schedule.starts[stage]) % len(period)])
        found.append(source)
        turns.append(seen[source])
        seen[source] += 1
    return found, turns


@settings(deadline=None)
@given(STAGES, st.integers(0, 150), st.integers(0, 150))
def test_a_position_of_any_stage_is_located_without_walking(
    stages: list[tuple[int, list[int]]], start: int, more: int
) -> None:
    schedule = staged(stages)
    source, turn = schedule.locate(start, start + more)
    walked = by_walking(schedule, start + more)
    assert (source.tolist(), turn.tolist()) == (walked[0][start:], walked[1][start:])
    counts = [walked[0].count(i) for i in range(3)]
    assert schedule.visits(start + more) == counts


@settings(deadline=None)
@given(STAGES, st.integers(0, 2), st.integers(0, 30))
def test_a_turn_is_found_where_it_stands(
    stages: list[tuple[int, list[int]]], source: int, turn: int
) -> None:
    schedule = staged(stages)
    position = schedule.position_of(source, turn)
    sources, turns = by_walking(schedule, 600)
    walked = [n for n in range(600) if (sources[n], turns[n]) == (source, turn)]
    assert walked == ([] if position is None or position >= 600 else [position])


@settings(deadline=None)
@given(STAGES)
def test_stages_keep_the_ratio_of_each_stage(stages: list[tuple[int, list[int]]]) -> None:
    schedule = staged(stages)
    source, _ = schedule.locate(0, schedule.starts[-1] + len(schedule.periods[-1]))
    due = np.zeros(3)
    for n, found in enumerate(np.cumsum(source[:, None] == np.arange(3), axis=0)):
        stage = max(i for i, start in enumerate(schedule.starts) if start <= n)
        due = due + np.array(schedule.periods[stage].quotas) / len(schedule.periods[stage])
        assert (abs(found - due) < 1 + 1e-9).all()


def test_the_ratio_of_stages_counts_how_long_each_lasts() -> None:
    schedule = Schedule((0, 20), (period_of([1, 1]), period_of([3, 1])))
    assert schedule.ratio(20) == (10, 10)
    assert schedule.ratio(60) == (40, 20)  # 10 + 30 of 60, 10 + 10 of 60
    assert Schedule((0,), (period_of([3, 1]),)).ratio(7) == (3, 1)


def test_a_schedule_of_the_longest_period_is_exact() -> None:
    quotas = [1, MAX_PERIOD - 40, *[1] * 39]
    schedule = period_of(quotas)
    seen = counts(schedule) * len(schedule)
    share = np.arange(len(schedule) + 1)[:, None] * np.array(quotas)
    assert (abs(seen - share) < len(schedule)).all()
