from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.inputs.made_differences import ITEMS_OF, aa_grid, covered, made
from train.ablation.seed_statistics import (
    LEVEL,
    Difference,
    difference,
    holm,
    student_quantile,
    student_share,
)

TABLE = {
    (0.975, 1): 12.7062,
    (0.975, 2): 4.30265,
    (0.975, 4): 2.77645,
    (0.975, 9): 2.26216,
    (0.995, 30): 2.74999,
    (0.9995, 3): 12.9240,
    (0.975, 120): 1.97993,
}
"""Student's t as published tables have it."""


@pytest.mark.parametrize(("share", "freedom"), TABLE)
def test_quantiles_are_those_of_published_tables(share: float, freedom: int) -> None:
    found = student_quantile(share, freedom)
    assert found == pytest.approx(TABLE[share, freedom], rel=1e-5)
    assert student_share(found, freedom) == pytest.approx(share, abs=1e-12)
    assert student_share(-found, freedom) == pytest.approx(1 - share, abs=1e-12)


def test_over_one_item_a_clip_of_equal_answers_it_is_the_paired_interval_of_student() -> None:
    # every item the same: only seeds are uncertain
    by_seed = np.array([0.3, 0.1, 0.2, 0.4, 0.25])
    found = difference(np.repeat(by_seed[:, None], 10, axis=1), range(10))
    error = by_seed.std(ddof=1) / np.sqrt(5)
    assert found.interval == pytest.approx(
        (0.25 - 2.7764451 * error, 0.25 + 2.7764451 * error), abs=1e-7
    )
    # Student's t of these five: 5.0 with 4 degrees of freedom
    assert found.level == pytest.approx(2 * (1 - student_share(0.25 / error, 4)), rel=1e-6)


def test_where_every_seed_answers_alike_only_clips_are_uncertain_and_count_once() -> None:
    items = np.array([1.0, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1])
    clips = [i // 3 for i in range(12)]
    found = difference(np.repeat(items[None], 5, axis=0), clips)
    assert found.interval is not None
    low, high = found.interval
    # four clips: the mean of 1, 0, 0, 1 and its error with 3 degrees of freedom
    error = np.std([1, 0, 0, 1], ddof=1) / 2
    assert (high - low) / 2 == pytest.approx(student_quantile(0.975, 3) * error)
    apart = difference(np.repeat(items[None], 5, axis=0), range(12))
    assert apart.interval is not None and apart.interval[0] > low


def test_the_level_is_that_of_the_interval_that_touches_zero() -> None:
    items, clips = made(np.random.default_rng(3), seed_variance=1.0)
    found = difference(items + 0.05, clips)
    assert found.level is not None and found.interval is not None
    shifted = difference(items - items.mean() + found.interval[1] - found.mean, clips)
    assert shifted.level == pytest.approx(LEVEL, rel=1e-6)
    assert (found.level < LEVEL) == (not found.interval[0] <= 0 <= found.interval[1])


def test_one_seed_says_nothing_of_others_and_equal_answers_are_no_difference() -> None:
    one = difference(np.ones((1, 6)), range(6))
    assert (one.mean, one.interval, one.level) == (1.0, None, None)
    same = difference(np.zeros((5, 6)), range(6))
    assert (same.interval, same.level) == ((0.0, 0.0), 1.0)


def test_two_seeds_that_agree_by_chance_are_no_certainty() -> None:
    # one right answer more with each seed, of items that a clip each asks
    item_scores = np.zeros((2, 50))
    item_scores[0, 3] = item_scores[1, 7] = 1.0
    found = difference(item_scores, range(50))
    assert found.by_seed == (0.02, 0.02)
    assert found.interval is not None and found.interval[0] < 0 < 0.04 < found.interval[1]


@pytest.mark.parametrize("seed_variance", [0.0, 1.0, 4.0])
def test_intervals_cover_as_often_as_they_say(seed_variance: float) -> None:
    assert 0.93 <= covered(1000, seed_variance) <= 0.98


@pytest.mark.parametrize("shared", [0.0, 1.0])
def test_they_do_so_whether_seeds_agree_on_items_or_not(shared: float) -> None:
    assert 0.93 <= covered(400, 0.0, shared=shared) <= 0.98


def test_without_the_clips_they_would_not() -> None:
    def student(items: NDArray[np.float64]) -> bool:
        half = student_quantile(0.975, 4) * items.mean(axis=1).std(ddof=1) / np.sqrt(5)
        return bool(abs(items.mean()) <= half)

    rng = np.random.default_rng(5)
    hits = [student(made(rng, seed_variance=0.0)[0]) for _ in range(300)]
    assert np.mean(hits) < 0.9


def test_holm_steps_down_and_never_back() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def test_of_eight_comparisons_without_a_difference_few_grids_claim_one() -> None:
    rng = np.random.default_rng(11)

    def level(one: Difference) -> float:
        assert one.level is not None
        return one.level

    grids = [holm([level(each) for each in aa_grid(rng, ITEMS_OF)]) for _ in range(120)]
    assert np.mean([min(levels) < LEVEL for levels in grids]) <= 0.05
