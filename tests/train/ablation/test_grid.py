"""Grids: what they may say, and what each variant comes to."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest

from shards.errors import UserError
from tests.train.ablation.tiny_grid import world
from train.ablation.drawn_mixtures import drawn_shares, with_weights
from train.ablation.grid import Mixtures, load_grid
from train.ablation.variants import Resolved, merged, resolve, seeded, shares_of
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


MIXTURES = "mixtures: {{count: {}, seed: {}, concentration: {}}}"


def weights(found: Sequence[Resolved]) -> list[list[Fraction]]:
    return [[one.weight or Fraction(0) for one in each.recipe.sources] for each in found]


def test_mixtures_are_drawn_by_seed_and_more_of_them_begin_with_the_same(
    root: Path, tmp_path: Path
) -> None:
    found, more, other, near = (
        resolved(root, tmp_path, "[]", MIXTURES.format(*words))
        for words in ((3, 1, 4), (5, 1, 4), (3, 2, 4), (5, 1, 1000))
    )
    assert [one.name for one in found] == ["base", "mixture_1", "mixture_2", "mixture_3"]
    assert weights(more)[:4] == weights(found) and weights(other)[1:] != weights(found)[1:]
    # in thousandths; the base's are 1 and 2
    assert all(sum(each) == 1 and 1000 % each[0].denominator == 0 for each in weights(found)[1:])
    assert all(abs(each[0] - Fraction(1, 3)) < Fraction(1, 10) for each in weights(near)[1:])


def test_a_source_without_a_thousandth_is_left_out() -> None:
    rule = Mixtures(count=200, concentration=Fraction(1, 2))
    drawn = list(drawn_shares(rule, [Fraction(1, 3)] * 3))
    assert {sum(parts) for parts in drawn} == {1000} and any(0 in parts for parts in drawn)
    variant = with_weights("m", {"a": 0, "b": 250, "c": 750})
    assert variant.leave_out == ("a",)
    assert variant.sources == {"b": {"weight": Decimal("0.25")}, "c": {"weight": Decimal("0.75")}}


def test_mixtures_want_weights(root: Path, tmp_path: Path) -> None:
    recipe = (root / "recipe.yaml").read_text().replace("weight:", "repeat:")
    (root / "repeats.yaml").write_text(recipe.replace("length: 60", ""))
    text = (root / "grid.yaml").read_text().replace("/recipe.yaml", "/repeats.yaml")
    (tmp_path / "g.yaml").write_text(text[: text.index("variants:")] + "mixtures: {count: 4}")
    with pytest.raises(UserError, match="has no weights"):
        resolve(load_grid(tmp_path / "g.yaml"), "g.yaml")


@pytest.mark.parametrize(
    ("variant", "shares"),
    [
        ("{name: a, times: {clips: 4}}", {"pictures": Fraction(1, 9), "clips": Fraction(8, 9)}),
        ("{name: a, leave_out: [clips]}", {"pictures": Fraction(1), "clips": Fraction(0)}),
        ("{name: a, times: {clips: 4}, recipe: {layout: {slow_frames: 1}}}", {}),
        ("{name: a, config: {global_batch: 1}}", {}),
        ("{name: a, sources: {clips: {filters: {width: {min: 1}}}}}", {}),
    ],
)
def test_what_differs_in_weights_alone_is_a_mixture(
    root: Path, tmp_path: Path, variant: str, shares: dict[str, Fraction]
) -> None:
    base, own = resolved(root, tmp_path, f"[{variant}]")
    assert shares_of(own, base) == shares
    assert shares_of(base, base) == {"pictures": Fraction(1, 3), "clips": Fraction(2, 3)}


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
