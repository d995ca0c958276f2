"""Grids: what they may say, and what each variant comes to."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from shards.errors import UserError
from tests.train.ablation.tiny_grid import world
from train.ablation.grid import load_grid
from train.ablation.variants import Resolved, merged, resolve, seeded
from train.config import RandomInit


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("grid")).parent


def resolved(root: Path, tmp_path: Path, variants: str, more: str = "") -> list[Resolved]:
    text = (root / "grid.yaml").read_text()
    path = tmp_path / "g.yaml"
    path.write_text(f"{text[: text.index('variants:')]}{more}\nvariants: {variants}\n")
    return resolve(load_grid(path), "g.yaml")


@pytest.mark.parametrize(
    ("variants", "says"),
    [
        ("[{name: a, recipe: {duplicats: keep}}]", "(a): recipe: unknown key 'duplicats'; did you"),
        ("[{name: a, config: {precison: bf16}}]", "(a): config: unknown key 'precison'; did you"),
        ("[{name: a, config: {parts: {tower: {train: maybe}}}}]", "parts: tower: train: must be"),
        ("[{name: a, times: {clip: 2}}]", "times: no source is named 'clip'; did you mean 'clips'"),
        ("[{name: a, leave_out: [pictures, clips]}]", "(a): recipe: sources: empty"),
        ("[{name: a, recipe: {duplicates: refuse}}]", "(a): is the same as 'base'"),
        (
            "[{name: a, times: {clips: 2}}, {name: b, times: {clips: 2}}]",
            "variants[1] (b): is the same as 'a'",
        ),
        ("[{name: base, times: {clips: 2}}]", "'base' is what they are compared with"),
        ("[{name: a, times: {clips: 2}}, {name: a, times: {clips: 3}}]", "2 are named 'a'"),
        ("[{nam: a}]", "unknown key 'nam'; did you mean 'name'?"),
        ("[]", "nothing is varied"),
        (
            "[{name: a, recipe: {stages: [{start: 8, weights: {clips: 1}}]}, times: {clips: 2}}]",
            "(a): times: 'tiny' has `stages`, whose weights win",
        ),
    ],
)
def test_what_a_grid_may_not_say_is_a_line(
    root: Path, tmp_path: Path, variants: str, says: str
) -> None:
    with pytest.raises(UserError) as caught:
        resolved(root, tmp_path, variants)
    assert says in str(caught.value)


def test_all_mistakes_are_told_at_once(root: Path, tmp_path: Path) -> None:
    variants = "[{name: a, recipe: {sed: 1}}, {name: b, times: {x: 2}}, {name: c, config: {y: 1}}]"
    with pytest.raises(UserError) as caught:
        resolved(root, tmp_path, variants)
    assert len(caught.value.args) == 3


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("seeds: [1, 1]", "seeds: 1 is there 2 times"),
        ("seeds: []", "seeds: empty"),
        ("seeds: [-1]", "seeds: -1 must be from 0"),
    ],
)
def test_seeds_are_named_once(root: Path, tmp_path: Path, more: str, says: str) -> None:
    text = (root / "grid.yaml").read_text().replace("seeds: [3, 4]", more)
    (tmp_path / "g.yaml").write_text(text)
    with pytest.raises(UserError, match=says.split("(")[0]):
        load_grid(tmp_path / "g.yaml")


def test_each_source_is_left_out_or_doubled(root: Path, tmp_path: Path) -> None:
    found = resolved(root, tmp_path, "[]", "each_source: [leave_out, double]")
    assert [one.name for one in found] == [
        "base",
        *("without_pictures", "without_clips", "double_pictures", "double_clips"),
    ]
    by_name = {one.name: one.recipe for one in found}
    assert [s.name for s in by_name["without_clips"].sources] == ["pictures"]
    assert [s.weight for s in by_name["double_clips"].sources] == [1, 4]


def test_a_sweep_gives_its_sources_a_share_and_leaves_the_rest_their_parts(
    root: Path, tmp_path: Path
) -> None:
    found = resolved(
        root, tmp_path, "[]", "sweep: {name: images, sources: pictures, shares: [1/4, 1]}"
    )
    assert [one.name for one in found] == ["base", "images_0.25", "images_1"]
    weights = [source.weight or Fraction(0) for source in found[1].recipe.sources]
    assert weights[0] / sum(weights) == Fraction(1, 4)
    assert [source.name for source in found[2].recipe.sources] == ["pictures"]


def test_a_seed_is_of_the_order_and_of_what_is_drawn(root: Path, tmp_path: Path) -> None:
    (base, _) = resolved(root, tmp_path, "[{name: a, times: {clips: 2}}]")
    recipe, config = seeded(base, 11)
    assert recipe.seed == 11 and config.stochastic.seed == 11
    assert config.parts.tower.init == config.parts.decoder.init == RandomInit(11)
    assert (recipe.sources, config.stop) == (base.recipe.sources, base.config.stop)


def test_trees_are_merged_mapping_by_mapping() -> None:
    tree = {"a": {"b": 1, "c": [1, 2]}, "d": 3}
    assert merged(tree, {"a": {"c": [4]}}) == {"a": {"b": 1, "c": [4]}, "d": 3}
    assert tree == {"a": {"b": 1, "c": [1, 2]}, "d": 3}
