"""Losses of a known law: its best mixture is found, and what is promised of it comes true."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.ablation.prediction.mixing_law import (
    Floats,
    Gain,
    fit,
    free_weights,
    gain,
    least,
    scheffe_factor,
)
from train.ablation.seed_statistics import student_quantile

SHARES = np.array([0.5, 0.5])
BASE = np.full(4, 0.25)
# sources 1 and 2 each teach one held-out source, the third both a little, the fourth nothing
TEACHES = np.array([[-3.0, 0.0], [0.0, -3.0], [-1.0, -1.0], [0.5, 0.5]])


def true_losses(mixtures: Floats) -> Floats:
    return np.asarray(0.4 + np.exp(mixtures @ TEACHES))


def worlds(seed: int, noise: float) -> tuple[Floats, Floats]:
    """The base and 24 drawn mixtures, and what a run of each came to."""
    rng = np.random.default_rng(seed)
    mixtures = np.vstack([BASE, rng.dirichlet(np.ones(4), 24)])
    return mixtures, true_losses(mixtures) * np.exp(rng.normal(0, noise, (25, 2)))


def promised(mixtures: Floats, losses: Floats) -> tuple[Floats, Gain]:
    chosen = least(fit(mixtures, losses, SHARES), mixtures)
    return chosen, gain(mixtures, losses, SHARES, (BASE, chosen))


def test_the_best_mixture_of_a_known_law_is_found_inside() -> None:
    mixtures = np.vstack([np.eye(4), BASE, [0.4, 0.3, 0.2, 0.1], worlds(1, 0)[0]])
    law = fit(mixtures, true_losses(mixtures), SHARES)
    assert np.allclose(law.loss(mixtures), true_losses(mixtures) @ SHARES, rtol=0.02)
    assert least(law, mixtures) == pytest.approx([0.5, 0.5, 0, 0], abs=0.02)


def test_the_interval_holds_what_a_new_run_shows() -> None:
    held = 0
    for seed in range(40):
        mixtures, losses = worlds(seed, 0.03)
        chosen, found = promised(mixtures, losses)
        noise = np.random.default_rng(1000 + seed).normal(0, 0.03, 2)
        shown = true_losses(BASE) @ SHARES - true_losses(chosen) * np.exp(noise) @ SHARES
        held += found.interval[0] <= shown <= found.interval[1]
    assert held >= 38


def test_a_gain_that_is_there_is_proposed_and_noise_is_not() -> None:
    for seed in range(10):
        assert not promised(*worlds(seed, 0.01))[1].refusal
        mixtures, losses = worlds(seed, 0.03)
        only_noise = losses / true_losses(mixtures)
        assert promised(mixtures, only_noise)[1].refusal


def test_an_error_above_the_gain_is_told_and_so_is_an_interval_with_0() -> None:
    one = Gain(mean=0.1, interval=(0.01, 0.19), error=0.2, predicted=())
    assert "mistaken by 0.2000, more than the gain" in one.refusal
    other = Gain(mean=0.1, interval=(-0.01, 0.21), error=0.05, predicted=())
    assert other.refusal == "new runs may show a gain of -0.0100 to +0.2100"


@st.composite
def tried(draw: st.DrawFn) -> tuple[Floats, Floats]:
    rows, sources = draw(st.integers(4, 12)), draw(st.integers(2, 4))
    parts = st.lists(st.integers(0, 9), min_size=sources, max_size=sources).filter(any)
    mixtures = np.array([draw(parts) for _ in range(rows)], dtype=float)
    loss = st.floats(0.1, 9)
    losses = [draw(st.lists(loss, min_size=2, max_size=2)) for _ in range(rows)]
    return mixtures / mixtures.sum(axis=1, keepdims=True), np.array(losses)


@settings(max_examples=60, deadline=None)
@given(tried())
def test_what_is_least_is_a_blend_and_no_tried_mixture_is_better(
    case: tuple[Floats, Floats],
) -> None:
    mixtures, losses = case
    law = fit(mixtures, losses, SHARES)
    found = least(law, mixtures, steps=50)
    assert found.sum() == pytest.approx(1)
    assert (found >= mixtures.min(axis=0) - 1e-9).all()
    assert (found <= mixtures.max(axis=0) + 1e-9).all()
    assert law.loss(found) <= law.loss(mixtures).min() + 1e-9
    step = 1e-6 * np.eye(len(found))
    slope = (law.loss(found + step) - law.loss(found - step)) / 2e-6
    assert law.slope(found) == pytest.approx(slope, rel=1e-3, abs=1e-6)


def test_weights_that_do_not_move_are_not_free() -> None:
    sweep = np.array([[0.1, x, 0.9 - x] for x in (0.1, 0.3, 0.5, 0.8)])
    assert free_weights(sweep) == 1 and free_weights(np.eye(4)) == 3
    assert free_weights(np.tile(BASE, (5, 1))) == 0


def test_scheffe_of_one_direction_is_student_and_of_three_the_table_of_f() -> None:
    for freedom in (2, 5, 21):
        assert scheffe_factor(1, freedom) == pytest.approx(student_quantile(0.975, freedom), 1e-4)
    # F of 3 and 21 degrees of freedom at 5 %, as printed in textbooks
    assert scheffe_factor(3, 21) ** 2 / 3 == pytest.approx(3.07, abs=0.005)
