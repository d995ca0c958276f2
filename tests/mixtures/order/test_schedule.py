"""The schedule keeps every prefix within 1 sample of the share, and every window within 2."""

from __future__ import annotations

from fractions import Fraction
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixtures.order.schedule import MAX_LENGTH, Schedule, Stage, scheduled, shares_of, table_of
from mixtures.versions import SCHEDULE_ALGO

WEIGHTS = st.lists(st.fractions(Fraction(1, 50), 50, max_denominator=99), min_size=1, max_size=8)
SHARES = st.lists(st.integers(1, 60), min_size=1, max_size=9)


def counts(source: np.ndarray, sources: int) -> np.ndarray:
    """[positions + 1, sources]: how often each source stood in each prefix."""
    hits = source[:, None] == np.arange(sources)
    return np.concatenate([np.zeros((1, sources), int), np.cumsum(hits, axis=0)])


def off(source: np.ndarray, shares: list[int], window: int | None = None) -> int:
    """The furthest from its share at any prefix, or in any window; times the sum of the shares."""
    seen = counts(source, len(shares))
    seen = seen if window is None else seen[window:] - seen[:-window]
    lengths = np.arange(len(source) + 1)[:, None] if window is None else window
    return int(abs(seen * sum(shares) - lengths * np.array(shares)).max())


def by_definition(shares: list[int], length: int) -> list[int]:
    """The rule in plain words: of the visits released, the one that is due first."""
    total, seen, found = sum(shares), [0] * len(shares), []
    for slot in range(length):
        due = [
            (-(-(seen[i] + 1) * total // share), i)
            for i, share in enumerate(shares)
            if share and seen[i] * total // share <= slot
        ]
        source = min(due)[1]
        seen[source] += 1
        found.append(source)
    return found


@given(WEIGHTS, st.integers(2, 50))
def test_shares_are_the_weights_and_hang_on_their_ratio_only(
    weights: list[Fraction], factor: int
) -> None:
    shares = shares_of(weights)
    assert shares == shares_of([weight * factor for weight in weights])
    rounding = Fraction(1, 10**8)  # where the exact integers would be too large
    for share, weight in zip(shares, weights, strict=True):
        wanted = weight / sum(weights)
        assert abs(Fraction(share, sum(shares)) - wanted) <= rounding * (sum(shares) > 1 << 30)


def test_shares_too_fine_for_integers_are_rounded_and_none_vanishes() -> None:
    weights = [Fraction(1, 3**40), Fraction(1), Fraction(0), Fraction(7, 2**40 - 1)]
    shares = shares_of(weights)
    assert sum(shares) < MAX_LENGTH and shares[0] == 1 and shares[2] == 0
    for share, weight in zip(shares, weights, strict=True):
        assert abs(Fraction(share, sum(shares)) - weight / sum(weights)) < Fraction(1, 10**9)


@settings(deadline=None)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=9).filter(any), st.integers(1, 400))
def test_the_schedule_is_the_rule(shares: list[int], length: int) -> None:
    assert scheduled(shares, length).tolist() == by_definition(shares, length)


@settings(deadline=None)
@given(SHARES, st.integers(1, 700))
def test_every_prefix_is_within_one_sample_of_the_share(shares: list[int], length: int) -> None:
    assert off(scheduled(shares, length), shares) < sum(shares)


@settings(deadline=None)
@given(SHARES, st.integers(1, 100))
def test_every_window_is_within_two_samples_of_the_share(shares: list[int], window: int) -> None:
    assert off(scheduled(shares, 3 * sum(shares) + window), shares, window) < 2 * sum(shares)


@given(SHARES)
def test_a_finite_order_has_its_quotas_exactly(shares: list[int]) -> None:
    source = scheduled(shares, sum(shares))
    assert np.bincount(source, minlength=len(shares)).tolist() == shares


@pytest.mark.parametrize("seed", range(12))
def test_any_weights_are_kept_over_a_long_run(seed: int) -> None:
    random = Random(seed)
    shares = [random.randint(1, 9_999) for _ in range(random.randint(2, 40))]
    source = scheduled(shares, 20_000)
    assert off(source, shares) < sum(shares)
    assert off(source, shares, 100) < 2 * sum(shares)


def test_remainders_do_not_pile_up() -> None:
    """Shares .45, .45 and seventeen of 1/170: what is carried over between periods ends 1.3 off."""
    shares = list(shares_of([Fraction(45, 100)] * 2 + [Fraction(1, 170)] * 17))
    assert off(scheduled(shares, 100_000), shares) < sum(shares)


def test_shares_of_almost_all_integers_do_not_overflow() -> None:
    shares = [1, MAX_LENGTH - 40, *[1] * 38]
    assert off(scheduled(shares, 200_000), shares) < sum(shares)


def test_the_schedule_is_the_one_of_edf_shares_1() -> None:
    """A change of these tables must change the algorithm's name."""
    assert SCHEDULE_ALGO == "edf-shares/1"
    assert scheduled([5, 3, 2], 10).tolist() == [0, 1, 0, 2, 0, 1, 0, 1, 0, 2]
    assert scheduled([7, 1], 8).tolist() == [0, 0, 0, 0, 0, 0, 0, 1]
    assert scheduled([5, 1], 10).tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 0, 0]


STAGES = st.lists(
    st.tuples(st.integers(1, 40), st.lists(st.integers(0, 9), min_size=3, max_size=3).filter(any)),
    min_size=1,
    max_size=4,
)


def staged(pieces: list[tuple[int, list[int]]]) -> tuple[Schedule, list[Stage]]:
    """Stages of so many positions each; the last repeats for ever."""
    ends = np.cumsum([count for count, _ in pieces]).tolist()
    starts = [0, *ends[:-1]]
    stages = [(start, tuple(shares)) for start, (_, shares) in zip(starts, pieces, strict=True)]
    return Schedule(table_of(stages, ends[-1]), 3, starts[-1]), stages


def by_walking(schedule: Schedule, stop: int) -> list[int]:
    """The source at each position, one after the other."""
    found, table = [], schedule.source.tolist()
    for n in range(stop):
        while n >= len(table):
            n -= len(table) - schedule.loop
        found.append(table[n])
    return found


@settings(deadline=None)
@given(STAGES, st.integers(0, 150), st.integers(0, 150))
def test_a_position_of_any_stage_is_located_without_walking(
    pieces: list[tuple[int, list[int]]], start: int, more: int
) -> None:
    schedule, _ = staged(pieces)
    walked = by_walking(schedule, start + more)
    assert schedule.at(start, start + more).tolist() == walked[start:]
    assert schedule.visits(start + more).tolist() == [walked.count(i) for i in range(3)]


def test_visits_are_counted_across_blocks() -> None:
    schedule = Schedule(scheduled([3, 2, 2], 20_000), 3)
    for stop in (0, 4095, 4096, 4097, 12_345, 19_999, 20_000, 20_001, 70_123):
        walked = np.bincount(schedule.at(0, stop), minlength=3)
        assert schedule.visits(stop).tolist() == walked.tolist()
    assert all(schedule.position_of(1, turn) == n for turn, n in places(schedule, 1))
    assert schedule.position_of(1, len(places(schedule, 1))) is None


def places(schedule: Schedule, source: int) -> list[tuple[int, int]]:
    return list(enumerate(np.flatnonzero(schedule.source == source).tolist()))


@settings(deadline=None)
@given(STAGES)
def test_stages_keep_the_ratio_of_each_stage(pieces: list[tuple[int, list[int]]]) -> None:
    schedule, stages = staged(pieces)
    for (start, shares), (count, _) in zip(stages, pieces, strict=True):
        assert off(schedule.source[start : start + count], list(shares)) < sum(shares)


@settings(deadline=None)
@given(SHARES, st.integers(1, 90), st.integers(1, 5))
def test_beyond_the_table_it_repeats_and_strays_less_than_one_each_time(
    shares: list[int], length: int, rounds: int
) -> None:
    schedule = Schedule(scheduled(shares, length), len(shares))
    source = schedule.at(0, rounds * length)
    assert source.tolist() == schedule.source.tolist() * rounds
    assert off(source, shares) < rounds * sum(shares)
