"""`train suggest` on results by hand: what it proposes, and when it proposes nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mixtures.recipe.load import load_recipe
from tests.train.ablation.made_results import result
from tests.train.ablation.prediction.test_mixing_law import true_losses
from train import __main__ as command_line
from train.ablation.ablate import Ablation, Told, read_ablation, write_ablation
from train.ablation.drawn_mixtures import PARTS, drawn_shares
from train.ablation.grid import Mixtures
from train.ablation.prediction.suggest import tried_of
from train.ablation.results import Result, write_result

SOURCES = ("digits", "digit_scenes", "scenes", "photos")
GRID = """
recipe: mixtures/demo_mixtures.yaml
config: train/configs/demo_ablation.yaml
pool: pool
seeds: [1]
held_out: {recipe: mixtures/demo_held_out.yaml}
mixtures: {count: 24}
"""


def of_mixture(name: str, parts: list[int], seed: int, noise: float) -> Result:
    """A run whose loss on held-out sources a and b is that of the law, but for its noise."""
    rng = np.random.default_rng([seed, *name.encode()])
    losses = true_losses(np.array(parts) / PARTS) * np.exp(rng.normal(0, noise, 2))
    rows = [
        (f"k{n}", f"c{n}", source, repr(10 * loss), 10)
        for n, (source, loss) in enumerate(zip("ab", losses.tolist(), strict=True))
    ]
    key = {"manifest": name, "seed": str(seed)}
    return replace(result("base", 1), variant=name, seed=seed, key=key, held_out=tuple(rows))


def world(
    root: Path,
    count: int = 24,
    noise: float = 0.01,
    seeds: Iterable[int] = (1,),
    *,
    flat: bool = False,
) -> Path:
    """An ablation of the base, drawn mixtures, and a variant that is none of them."""
    (root / "grid.yaml").write_text(GRID)
    drawn = drawn_shares(Mixtures(count=count), [Fraction(1, 4)] * 4)
    parts = {"base": [250] * 4} | {f"mixture_{n}": one for n, one in enumerate(drawn, 1)}
    told = [
        Told(name=name, changes=(), differs=(), shares=shares(one)) for name, one in parts.items()
    ]
    other = Told(name="fast_only", changes=(), differs=(), shares={})
    results = [
        of_mixture(name, [250] * 4 if flat else one, seed, noise)
        for name, one in parts.items()
        for seed in seeds
    ]
    results.append(of_mixture("fast_only", [0, 0, 0, 1000], 1, 0))
    for one in results:
        write_result(root, f"{one.variant}.{one.seed}.{one.key_id[:8]}", one)
    write_ablation(
        root,
        Ablation(
            grid=str(root / "grid.yaml"),
            supervised=1000,
            tasks=(),
            variants=(*told, other),
            runs=tuple((one.variant, one.seed, one.key_id) for one in results),
        ),
    )
    return root


def shares(parts: list[int]) -> dict[str, str]:
    return {name: str(Fraction(n, PARTS)) for name, n in zip(SOURCES, parts, strict=True)}


def suggest(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """`python -m train suggest WORDS` here; its status."""
    monkeypatch.setattr(sys, "argv", ["train", "suggest", *words])
    monkeypatch.setenv("COLUMNS", "200")
    try:
        command_line.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_a_recipe_with_the_weights_of_the_law_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert suggest(monkeypatch, str(world(tmp_path)), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["source"] for row in told["tables"][0]["rows"]] == sorted(SOURCES)
    assert told["lines"][0].startswith("25 runs, 25 of 25 mixtures, 3 free weights, losses on a, b")
    assert "gain +0." in told["lines"][1]
    assert float(told["lines"][2].split("rank correlation ")[1].split(";")[0]) > 0.9
    recipe = load_recipe(tmp_path / "suggested.yaml")
    weights = {one.name: one.weight or Fraction(0) for one in recipe.sources}
    assert sum(weights.values()) == 1 and recipe.name == "demo_mixtures_suggested"
    # the first two teach, each as much; the last only costs
    assert weights["digits"] + weights["digit_scenes"] > Fraction(7, 10)
    assert weights.get("photos", 0) < Fraction(1, 10)
    base = load_recipe(Path("mixtures/demo_mixtures.yaml"))
    assert (recipe.held_out, recipe.frames, recipe.layout) == (
        base.held_out,
        base.frames,
        base.layout,
    )


@pytest.mark.parametrize(
    ("count", "noise", "flat", "says"),
    [
        (10, 0.01, False, "11 mixtures have a held-out loss, 12 are wanted, 4 for each free"),
        (24, 0.03, True, "nothing is suggested: train more mixtures, more seeds of each"),
    ],
)
def test_too_few_runs_and_runs_that_say_nothing_are_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    count: int,
    noise: float,
    flat: bool,
    says: str,
) -> None:
    world(tmp_path, count, noise, flat=flat)
    assert suggest(monkeypatch, str(tmp_path)) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "suggested.yaml").exists()


def test_other_seeds_of_a_mixture_are_no_other_mixtures(tmp_path: Path) -> None:
    ablation, results = read_ablation(world(tmp_path, 12, seeds=(1, 2, 3)))
    tried = tried_of("x", ablation, results)
    assert (len(tried.mixtures), tried.runs) == (13, 39) and tried.held_out == ("a", "b")
    # what is not there yet, or has diverged, is counted as missing
    some = [one for one in results if one.variant != "mixture_3"]
    some[1] = replace(some[1], diverged="x", held_out=())
    fewer = tried_of("x", ablation, some)
    assert (len(fewer.mixtures), fewer.runs, fewer.planned) == (12, 35, 13)
    own = [one for one in results if one.variant == "mixture_3"]
    losses = [[float(row[3]) / 10 for row in one.held_out] for one in own]
    assert tried.losses[3] == pytest.approx(np.mean(losses, axis=0))


def test_where_nothing_was_varied_nothing_is_suggested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert suggest(monkeypatch, str(tmp_path)) == 2
    assert "ablation.json: not there; give the --out of `train ablate`" in capsys.readouterr().err
