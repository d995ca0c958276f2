"""Rates are functions of the step alone, and a stop may move where no step taken would change."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixtures.manifest.files import load_manifest
from shards.errors import UserError
from tests.support.tiny_pool import tiny_manifest
from train.config import Config, Schedule, Stop
from train.schedule import check_same_rates, check_schedule, rate_share, share_of, total_steps

KINDS = ("constant", "cosine", "linear", "wsd")
COUNTS = st.integers(0, 30) | st.fractions(Fraction(1, 100), Fraction(1, 2))
RULES = st.builds(
    Schedule,
    kind=st.sampled_from(KINDS),
    warmup=COUNTS,
    decay=COUNTS,
    floor=st.floats(0, 1),
)


def shares(rule: Schedule, total: int) -> list[float]:
    return [rate_share(rule, step, total) for step in range(total)]


def test_a_cosine_warms_up_and_falls_to_its_floor() -> None:
    rule = Schedule(warmup=10, floor=0.1)
    rates = [rate_share(rule, step, 100) for step in range(101)]
    assert rates[0] == 0.1 and rates[9] == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert math.isclose(rates[100], 0.1) and math.isclose(rates[55], 0.55)


def test_the_other_kinds_are_what_they_are_called() -> None:
    rule = Schedule(warmup=Fraction(1, 10), decay=Fraction(1, 5), floor=0.5)
    found = {kind: shares(replace(rule, kind=kind), 100) for kind in KINDS}
    for rates in found.values():
        assert rates[:10] == [(step + 1) / 10 for step in range(10)]
    assert set(found["constant"][10:]) == {1.0}
    assert set(found["wsd"][10:81]) == {1.0}
    assert found["wsd"][80::5] == pytest.approx([1, 0.875, 0.75, 0.625])
    assert found["linear"][10::30] == pytest.approx([1, 5 / 6, 4 / 6])


@given(RULES, st.integers(100, 400))
def test_rates_rise_to_the_highest_and_never_again(rule: Schedule, total: int) -> None:
    rates = shares(rule, total)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert all(0 <= rate <= 1 for rate in rates) and max(rates) > 0.98
    assert all(rate >= rule.floor for rate in rates[top:]) or rule.kind == "constant"


@given(RULES, st.integers(100, 400), st.integers(100, 400), st.integers(0, 400))
def test_a_stop_moves_just_where_the_steps_taken_had_the_same_rates(
    rule: Schedule, before: int, now: int, taken: int
) -> None:
    config = Config(schedule=rule)
    taken = min(taken, before)
    same = taken <= now and shares(rule, before)[:taken] == shares(rule, max(now, taken))[:taken]
    if taken <= now and same:
        check_same_rates(config, taken, before, now)
    else:
        with pytest.raises(UserError, match=f"stop: .* {before} steps, now after {now}"):
            check_same_rates(config, taken, before, now)


@pytest.mark.parametrize(
    ("kind", "taken", "may"),
    [("constant", 100, True), ("wsd", 80, True), ("wsd", 90, False), ("cosine", 50, False)],
)
def test_raising_the_stop_is_for_constant_and_for_wsd_before_its_decay(
    kind: str, taken: int, may: bool
) -> None:
    config = Config(schedule=Schedule(kind=kind, warmup=10, decay=20))
    if may:
        check_same_rates(config, taken, 100, 200)
    else:
        with pytest.raises(UserError, match=f"kind: {kind}"):
            check_same_rates(config, taken, 100, 200)


def test_warmup_and_decay_fit_into_the_run() -> None:
    check_schedule(Schedule(kind="wsd", warmup=80, decay=Fraction(1, 5)), 100)
    check_schedule(Schedule(kind="cosine", warmup=80, decay=30), 100)
    with pytest.raises(UserError, match=r"81 steps of warmup and 20 of decay .* 100 steps"):
        check_schedule(Schedule(kind="wsd", warmup=81, decay=Fraction(1, 5)), 100)


def test_tokens_and_epochs_are_steps_by_the_counts_of_the_manifest(tmp_path: Path) -> None:
    manifest = load_manifest(tiny_manifest(tmp_path))
    contents = manifest.contents
    tokens, window = contents.totals.tokens, contents.pack.window
    # packs are counted in the one whole window of 32: 60 samples are in more of them
    assert (contents.length, window, len(manifest.packs_per_window)) == (60, 32, 1)
    packs = Fraction(contents.packs * 60, 32)
    assert share_of(manifest, contents.packs) == Fraction(32, 60)
    assert total_steps(Stop(steps=7), manifest, 3) == 7
    assert total_steps(Stop(epochs=Fraction(1)), manifest, 1) == math.ceil(packs)
    assert total_steps(Stop(epochs=Fraction(5, 2)), manifest, 4) == math.ceil(packs * 5 / 8)
    assert total_steps(Stop(tokens=tokens), manifest, 1) == math.ceil(packs)
    assert total_steps(Stop(tokens=2 * tokens), manifest, 1) == math.ceil(2 * packs)
    assert total_steps(Stop(tokens=1), manifest, 4) == 1


def test_a_finite_order_is_passed_over_in_its_packs(tmp_path: Path) -> None:
    once = ("repeat: 1", "repeat: 1")
    manifest = load_manifest(tiny_manifest(tmp_path, ratio=once))
    assert manifest.is_finite and len(manifest.packs_per_window) * 32 > manifest.contents.length
    assert total_steps(Stop(epochs=Fraction(1)), manifest, 1) == manifest.contents.packs


def test_packs_that_were_not_counted_are_no_measure(tmp_path: Path) -> None:
    manifest = load_manifest(tiny_manifest(tmp_path))
    short = replace(manifest, contents=replace(manifest.contents, length=20, packs=0))
    assert total_steps(Stop(steps=7), short, 3) == 7
    with pytest.raises(UserError, match="20 samples, ends within its first window of 32"):
        total_steps(Stop(epochs=Fraction(1)), short, 1)
