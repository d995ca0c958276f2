"""What results by hand say of each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.train.ablation.made_results import GAINS, SEEDS, result, with_gone, write
from train.ablation.ablate import read_ablation
from train.ablation.comparisons import HELD_OUT, Comparison, comparisons, measures_of
from train.ablation.results import Result
from train.ablation.seed_statistics import CLAIMS_FROM


def by_name(found: list[Comparison]) -> dict[tuple[str, str, str], Comparison]:
    return {(one.variant, one.measure, one.part): one for one in found}


@pytest.fixture(scope="module")
def results() -> list[Result]:
    return [result(variant, seed) for variant in GAINS for seed in SEEDS]


def test_a_large_difference_is_claimed_and_none_is_not(results: list[Result]) -> None:
    found = by_name(comparisons(results, list(GAINS)))
    for measure in (HELD_OUT, "scenes/test"):
        assert found["better", measure, ""].verdict == "better"
        assert found["alike", measure, ""].verdict == "no difference shown"
    assert found["better", HELD_OUT, ""].difference.mean == pytest.approx(-0.3, abs=0.03)


def test_claims_are_corrected_for_how_many_there_are(results: list[Result]) -> None:
    both = by_name(comparisons(results, list(GAINS)))
    alone = by_name(comparisons(results, ["base", "alike"]))
    key = ("alike", HELD_OUT, "")
    levels = both[key].level, alone[key].level
    assert levels[0] is not None and levels[1] is not None and levels[0] >= levels[1]
    assert [one.level for one in both.values() if one.part] == [None] * 8


def test_below_five_seeds_there_are_differences_and_no_claim(results: list[Result]) -> None:
    few = [one for one in results if one.seed < CLAIMS_FROM]
    for one in comparisons(few, list(GAINS)):
        assert one.level is None and one.difference.interval is not None
        assert one.verdict == ("" if one.part else "no claim: 4 of 5 seeds")


def test_what_diverged_is_in_no_difference(results: list[Result]) -> None:
    found = comparisons(results, list(GAINS))
    assert {one.variant for one in found} == {"better", "alike"}
    # nor is the seed of a base that diverged
    hot = [replace(r, diverged="x") if (r.variant, r.seed) == ("base", 2) else r for r in results]
    assert {one.difference.seeds for one in comparisons(hot, list(GAINS))} == {4}


def test_only_items_that_both_have_are_compared_and_they_are_counted(
    results: list[Result],
) -> None:
    cut = [with_gone(r, {"k0", "k1"}) if r.variant == "alike" else r for r in results]
    found = by_name(comparisons(cut, list(GAINS)))
    assert found["alike", HELD_OUT, ""].items == 28 and found["better", HELD_OUT, ""].items == 30


def test_a_loss_is_per_token_and_a_mean_over_groups_weighs_them_alike() -> None:
    one = result("base", 1)
    rows = tuple((*row[:4], 10 + n) for n, row in enumerate(one.held_out))
    loss = measures_of(replace(one, held_out=rows))[HELD_OUT, ""].mean
    assert loss == pytest.approx(sum(float(row[3]) for row in rows) / sum(row[4] for row in rows))
    asked = one.asked["scenes/test"]
    groups = tuple("first" if n < 6 else "motion" for n in range(len(asked.groups)))
    grouped = replace(asked, groups=groups, mean_of_groups=True)
    found = measures_of(replace(one, asked={"s": grouped}))
    parts = (found["s", "first"].mean, found["s", "motion"].mean)
    assert found["s", ""].mean == pytest.approx(sum(parts) / 2)


def test_an_ablation_is_read_as_it_was_written(tmp_path: Path, results: list[Result]) -> None:
    ablation, found = read_ablation(write(tmp_path))
    assert found == results and ablation.names == list(GAINS)
