"""Losses that fall by a known law: it is found, and says what comes out at the largest budget."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from shards.errors import UserError
from tests.train.ablation.made_results import result
from tests.train.ablation.tiny_grid import ablate, world
from train.ablation import ablate as work
from train.ablation.ablate import Standing
from train.ablation.grid import Grid
from train.ablation.prediction.rank_correlation import rank_correlation
from train.ablation.prediction.scale import predict, says
from train.ablation.prediction.scaling_law import Floats, fit
from train.ablation.queue import Places
from train.ablation.results import Result, write_result

torch.set_num_threads(1)
FACTORS = {"base": 1.0, "worse": 1.2, "better": 0.8, "good": 0.9}
BUDGETS = (1000, 2000, 4000, 8000)


def law(tokens: Floats, floor: float, exponent: float) -> Floats:
    factors = np.array(list(FACTORS.values()))[:, None]
    return np.asarray(floor + factors * (tokens / tokens.min()) ** -exponent)


@pytest.mark.parametrize(("floor", "exponent"), [(0.5, 0.3), (0.0, 0.5), (1.0, 0.8), (0.9, 0.1)])
def test_a_known_law_is_found(floor: float, exponent: float) -> None:
    # runs end with whole steps: each a little behind its budget
    tokens = np.array(BUDGETS) * (1 + np.random.default_rng(0).random((4, 4)) / 100)
    losses = law(tokens, floor, exponent)
    found = fit(tokens[:, :-1], losses[:, :-1])
    assert (found.floor, found.exponent) == pytest.approx((floor, exponent), abs=1e-3)
    assert found.loss(tokens)[:, -1] == pytest.approx(losses[:, -1], rel=1e-5)


def test_noise_moves_the_prediction_by_little_and_no_part_below_zero() -> None:
    tokens = np.tile(np.array(BUDGETS, dtype=float), (4, 1))
    for seed in range(30):
        noise = np.exp(np.random.default_rng(seed).normal(0, 0.005, (4, 4)))
        losses = law(tokens, 0.5, 0.3) * noise
        found = fit(tokens[:, :-1], losses[:, :-1])
        assert found.floor >= 0 and (found.factors >= 0).all()
        assert found.loss(tokens)[:, -1] == pytest.approx(losses[:, -1], rel=0.05)


def test_losses_that_do_not_fall_have_no_law() -> None:
    tokens = np.tile(np.array(BUDGETS, dtype=float), (2, 1))
    with pytest.raises(UserError, match="do not fall"):
        fit(tokens, np.ones((2, 4)))


def made(variant: str, seed: int, budget: int) -> Result:
    """A run of the law 0.5 + A (D / 1000)^-0.3, a little above its budget."""
    tokens = budget + 7
    loss = 0.5 + FACTORS[variant] * (tokens / BUDGETS[0]) ** -0.3
    rows = tuple((*row[:3], repr(10 * loss), 10) for row in result("base", 1).held_out)
    return replace(result("base", 1), variant=variant, seed=seed, supervised=tokens, held_out=rows)


def test_the_largest_budget_is_predicted_by_the_others() -> None:
    results = {b: [made(v, seed, b) for v in FACTORS for seed in (1, 2)] for b in BUDGETS}
    # what diverged at one budget counts at none, and leaves the other seeds of its variant
    last = results[8000]
    last[0] = replace(last[0], diverged="x", held_out=())
    found = predict(results)
    assert found.variants == tuple(FACTORS) and found.tokens[0].tolist() == [b + 7 for b in BUDGETS]
    assert found.error < 1e-4
    lines = [str(one) for one in says(found)]
    assert "error 0.00% (root mean square), rank correlation 1.00 over 4 variants" in lines[-1]
    # the held-out budget is in no fit
    results[8000] = [replace(one, held_out=()) if one.seed == 2 else one for one in last]
    moved = [replace(r, held_out=tuple((*x[:3], "99.0", 10) for x in r.held_out)) for r in last]
    assert np.allclose(predict({**results, 8000: moved}).law.factors, found.law.factors)


def test_ranks_are_spearmans() -> None:
    assert rank_correlation([1, 2, 3, 4], [10, 20, 30, 400]) == 1
    assert rank_correlation([1, 2, 3, 4], [4, 3, 2, 1]) == -1
    # equal values share their rank: 1 - 6 (0.25 + 0.25) / (4 * 15) without the correction for ties
    assert rank_correlation([1, 2, 2, 4], [1, 2, 3, 4]) == pytest.approx(0.9486833)
    assert np.isnan(rank_correlation([1, 1], [1, 2]))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("scale")).parent


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["100", "200", "400", "400"], "at least 4 different numbers"),
        (["100", "200", "400", "-800"], "at least 4 different numbers"),
        (["1600", "20", "400", "800"], "4 steps of warmup and 0 of decay do not fit into 1 steps"),
    ],
)
def test_budgets_that_fit_no_law_or_no_schedule_are_refused_before_a_run(
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: Sequence[str],
    says: str,
) -> None:
    grid = str(root / "grid.yaml")
    assert ablate(monkeypatch, grid, "--out", str(tmp_path / "o"), "--scale", *words) == 2
    assert says in capsys.readouterr().err and not list(tmp_path.glob("o/*/runs"))


def test_every_budget_is_an_ablation_and_the_law_is_told(
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    grid = root / "one_seed.yaml"
    grid.write_text((root / "grid.yaml").read_text().replace("[3, 4]", "[3]"))
    words = (str(grid), "--out", str(tmp_path), "--scale", "1000", "400", "600", "800")
    assert ablate(monkeypatch, *words, "--dry-run", "--json") == 0
    planned = json.loads(capsys.readouterr().out)
    budgets = [400, 600, 800, 1000]
    for line, budget in zip(planned["lines"][1::2], budgets, strict=True):
        least = int(line.split("every run has ")[1].split()[0].replace(",", ""))
        assert budget <= least

    def trained(
        _grid: Grid, standing: Standing, places: Places, _say: Callable[[str], None]
    ) -> list[str]:
        for run in standing.runs:
            name = "base" if run.variant == "base" else "worse"
            one = made(name, run.seed, run.supervised * 5)
            write_result(
                places.out,
                run.name,
                replace(one, variant=run.variant, key=run.key, supervised=run.supervised),
            )
        return []

    monkeypatch.setattr(work, "train", trained)
    assert ablate(monkeypatch, *words, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["variants"] == ["base", "double_clips"] and told["rank_correlation"] == 1
    assert told["error"] < 0.02 and len(told["losses"][0]) == 4
    assert {p.name for p in tmp_path.iterdir()} == {f"budget_{b}" for b in budgets}
    assert all((tmp_path / f"budget_{b}/ablation.json").is_file() for b in budgets)
