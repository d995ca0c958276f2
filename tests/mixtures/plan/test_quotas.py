"""Ratios become what is drawn: units, budgets, stages, and sources that run short."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mixtures.manifest.contents import Amounts
from mixtures.manifest.draws import Draws
from mixtures.manifest.files import load_manifest, write_manifest
from mixtures.manifest.manifest import Manifest
from mixtures.plan.build_manifest import build_manifest
from mixtures.plan.quotas import mean_tokens
from mixtures.recipe.load import load_recipe
from shards.errors import UserError
from shards.pool import Pool
from tests.support.made_pool import MadePool, MadeSample, many, write_recipe

WORDS = "which digit is this seven eight nine".split()


def long(source: str, count: int) -> list[MadeSample]:
    """Samples of several times the tokens of `many`."""
    return [MadeSample(f"{' '.join(WORDS * 6)} {source} {i}", []) for i in range(count)]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quotas") / "pool"
    MadePool(sources={"a": many("a", 60), "b": long("b", 90)}).make(folder)
    return folder


def planned(folder: Path, pool: Path, ratios: dict[str, str], *more: str) -> Manifest:
    recipe = load_recipe(write_recipe(folder, ratios, *more))
    return build_manifest(recipe, Pool(str(pool))).manifest


def drawn(manifest: Manifest, name: str) -> Amounts:
    return manifest.contents.sources[manifest.names.index(name)].drawn


def test_weights_of_tokens_keep_the_ratio_of_tokens(tmp_path: Path, pool: Path) -> None:
    ratios = {"a": "weight: 3", "b": "weight: 1"}
    manifest = planned(tmp_path, pool, ratios, "unit: tokens", "length: 120000")
    total = manifest.contents.totals.tokens
    assert abs(drawn(manifest, "a").tokens / total - 0.75) < 0.003
    assert drawn(manifest, "a").samples > 4 * drawn(manifest, "b").samples


def test_a_length_in_tokens_ends_with_the_sample_that_reaches_it(
    tmp_path: Path, pool: Path
) -> None:
    ratios = {"a": "weight: 1"}
    manifest = planned(tmp_path, pool, ratios, "unit: tokens", "length: 5000")
    samples = Draws(manifest).samples(0, manifest.length)
    assert sum(one.tokens for one in samples[:-1]) < 5000 <= sum(one.tokens for one in samples)


@pytest.mark.parametrize("budget", [400, 4000, 12_000])
def test_a_budget_of_tokens_is_kept_to_a_sample(tmp_path: Path, pool: Path, budget: int) -> None:
    manifest = planned(
        tmp_path, pool, {"a": f"budget: {budget}", "b": "budget: 9000"}, "unit: tokens"
    )
    of_a = [one for one in Draws(manifest).samples(0, manifest.length) if one.source == "a"]
    spent = sum(one.tokens for one in of_a)
    assert spent == drawn(manifest, "a").tokens <= budget
    table = manifest.tables[0]
    turn = np.array([len(of_a)])
    row, _ = manifest.epochs.drawn(0, turn)
    assert spent + int(table["tokens"][row[0]]) > budget


def test_a_budget_that_is_not_there_is_an_error_or_short(tmp_path: Path, pool: Path) -> None:
    with pytest.raises(UserError, match="'a' has 60 samples and would be drawn 100 times"):
        planned(tmp_path, pool, {"a": "budget: 100, max_repeats: 1", "b": "budget: 5"})
    short = planned(tmp_path, pool, {"a": "budget: 100, allow_short: true", "b": "budget: 5"})
    assert short.contents.sources[0].asked == {"budget": "100"}
    assert drawn(short, "a").samples == 60 and short.length == 65
    twice = "budget: 200, allow_short: true, max_repeats: 2"
    assert planned(tmp_path, pool, {"a": twice, "b": "budget: 5"}).length == 125


def test_a_weight_that_runs_short_is_an_error_or_ends_the_mixture(
    tmp_path: Path, pool: Path
) -> None:
    ratios = {"a": "weight: 1, max_repeats: 1", "b": "weight: 1"}
    with pytest.raises(UserError, match="'a' has 60 samples and would be drawn 100 times"):
        planned(tmp_path, pool, ratios, "length: 200")
    ratios["a"] += ", allow_short: true"
    short = planned(tmp_path, pool, ratios, "length: 200")
    assert (short.length, drawn(short, "a").samples) == (120, 60)


def test_stages_change_the_ratio_where_they_start(tmp_path: Path, pool: Path) -> None:
    stages = "stages: [{start: 100, weights: {a: 1}}, {start: 200, weights: {a: 0}}]"
    manifest = planned(tmp_path, pool, {"a": "weight: 3", "b": "weight: 1"}, stages, "length: 300")
    source = Draws(manifest).draw(0, 300).source
    assert [int((source[i : i + 100] == 0).sum()) for i in (0, 100, 200)] == [75, 50, 0]
    write_manifest(manifest, str(tmp_path / "out"))
    again = load_manifest(tmp_path / "out" / "manifest.json")
    assert Draws(again).keys(50, 300) == Draws(manifest).keys(50, 300)
    calm = planned(tmp_path, pool, {"a": "weight: 3", "b": "weight: 1"}, "length: 300")
    assert Draws(calm).keys(0, 100) == Draws(manifest).keys(0, 100)


def test_a_source_that_first_comes_in_a_later_stage_starts_at_its_first_turn(
    tmp_path: Path, pool: Path
) -> None:
    stages = "stages: [{start: 0, weights: {b: 0}}, {start: 100, weights: {b: 1}}]"
    manifest = planned(tmp_path, pool, {"a": "weight: 1", "b": "weight: 5"}, stages, "length: 150")
    plain = planned(tmp_path, pool, {"a": "weight: 1", "b": "weight: 1"}, "length: 50")
    late = [one.key for one in Draws(manifest).samples(100, 150) if one.source == "b"]
    assert late == [one.key for one in Draws(plain).samples(0, 50) if one.source == "b"]


@pytest.mark.parametrize("weights", [("5", "1"), ("0.123457", "1"), ("9999", "7"), ("1e-9", "1e6")])
@pytest.mark.parametrize("unit", ["samples", "tokens"])
def test_every_ratio_plans_and_keeps_to_its_weights(
    tmp_path: Path, pool: Path, weights: tuple[str, str], unit: str
) -> None:
    ratios = {name: f"weight: {weight}" for name, weight in zip("ab", weights, strict=True)}
    manifest = planned(tmp_path, pool, ratios, f"unit: {unit}", "length: 3000")
    shares = manifest.contents.schedule.stages[0].shares
    source = Draws(manifest).draw(0, manifest.length).source
    astray = np.cumsum(source == 0) * sum(shares) - np.arange(1, len(source) + 1) * shares[0]
    assert abs(astray).max() < sum(shares)
    sizes = [1, 1] if unit == "samples" else [mean_tokens(table) for table in manifest.tables]
    asked = [Fraction(weight) / size for weight, size in zip(weights, sizes, strict=True)]
    off = Fraction(shares[0], sum(shares)) - asked[0] / sum(asked)
    assert abs(off) < Fraction(1, 10**9)


def test_a_stage_starts_anywhere_and_is_counted_from_there(tmp_path: Path, pool: Path) -> None:
    stages = "stages: [{start: 37, weights: {b: 3}}, {start: 91, weights: {a: 0}}]"
    manifest = planned(tmp_path, pool, {"a": "weight: 2", "b": "weight: 1"}, stages, "length: 100")
    source = Draws(manifest).draw(0, 130).source
    for (start, stop), share in (((0, 37), 2 / 3), ((37, 91), 2 / 5), ((91, 130), 0)):
        seen = np.cumsum(source[start:stop] == 0)
        assert (abs(seen - share * np.arange(1, stop - start + 1)) < 1).all()
    assert manifest.schedule.visits(130).tolist() == np.bincount(source).tolist()


@pytest.mark.parametrize("start", [100, 5000])
def test_a_stage_beyond_the_end_is_refused(tmp_path: Path, pool: Path, start: int) -> None:
    stages = f"stages: [{{start: {start}, weights: {{b: 3}}}}]"
    with pytest.raises(UserError, match=f"start: {start} is not before the end of the mixture at"):
        planned(tmp_path, pool, {"a": "weight: 2", "b": "weight: 1"}, stages, "length: 100")


def test_without_a_length_a_curriculum_ends_where_a_source_would_repeat(
    tmp_path: Path, pool: Path
) -> None:
    stages = "stages: [{start: 33, weights: {a: 9}}]"
    manifest = planned(tmp_path, pool, {"a": "weight: 1", "b": "weight: 2"}, stages)
    drawn = Draws(manifest).samples(0, manifest.length + 1)
    assert {one.epoch for one in drawn[:-1]} == {0} and drawn[-1].epoch == 1


def test_a_length_that_no_table_holds_is_refused(tmp_path: Path, pool: Path) -> None:
    with pytest.raises(UserError, match="3000000000 positions, more than 2147483648; lower"):
        planned(tmp_path, pool, {"a": "weight: 2", "b": "weight: 1"}, "length: 3000000000")
