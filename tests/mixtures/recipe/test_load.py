"""Recipes: every mistake is one line that names the file, the key and the remedy."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest

from mixtures.recipe.load import load_recipe
from mixtures.recipe.strict_yaml import dump_yaml, load_yaml, parse_yaml
from shards.errors import UserError

ROOT = Path(__file__).parents[3]
GOOD = """\
name: good
seed: 7
text: {tokenizer: t.json}
sources:
  - {name: a, dataset: d/a, format: llava_json, annotations: a.json, licence: MIT, weight: 0.9}
  - {name: b, dataset: d/b, format: llava_json, annotations: b.json, licence: MIT, weight: 0.1}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "r.yaml"
    path.write_text(text)
    return path


def test_a_good_recipe_is_read_with_exact_weights_and_defaults(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, GOOD))
    assert [source.weight for source in recipe.sources] == [Fraction(9, 10), Fraction(1, 10)]
    assert (recipe.ratio, recipe.unit, recipe.duplicates) == ("weight", "samples", "refuse")
    assert (recipe.length, recipe.frames.cap, recipe.stages) == (None, 128, ())


def test_a_tree_that_is_written_is_read_as_the_same() -> None:
    for path in (ROOT / "mixtures").glob("*.yaml"):
        tree = load_yaml(path)
        assert parse_yaml(dump_yaml(tree).encode(), path.name) == tree
    exact = {"a": Decimal("1E-7"), "b": Decimal("0.10"), "c": "1", "d": [True, None, "true", "1e5"]}
    assert parse_yaml(dump_yaml(exact).encode(), "x") == exact
    # of one list that is named twice nothing is an alias
    shared = [1, 2]
    assert "&" not in dump_yaml({"a": shared, "b": shared})


@pytest.mark.parametrize("path", sorted((ROOT / "mixtures").glob("*.yaml")), ids=lambda p: p.name)
def test_every_recipe_of_the_repository_is_good(path: Path) -> None:
    assert load_recipe(path).name == path.stem


def test_small_pictures_are_enlarged_to_a_default_that_the_area_bounds(tmp_path: Path) -> None:
    views = {
        text: load_recipe(written(tmp_path, f"{GOOD}frames: {{{text}}}\n")).frames
        for text in ("cap: 9", "area: 16384", "area: 16384, min_area: 4096", "fit: floor")
    }
    found = [(view.min_area, view.fit) for view in views.values()]
    assert found == [(288 * 288, "box"), (16_384, "box"), (4096, "box"), (288 * 288, "floor")]


def test_the_demo_ablations_differ_in_pathways_only() -> None:
    texts = {
        path.stem: path.read_text().splitlines()[2:]
        for path in (ROOT / "mixtures").glob("demo_stage2*.yaml")
    }
    plain = set(texts.pop("demo_stage2"))
    assert len(texts) == 3
    for lines in texts.values():
        (changed,) = set(lines) - plain
        assert changed.startswith("layout: ")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed: 7", "sede: 7", "r.yaml: unknown key 'sede'; did you mean 'seed'?"),
        (
            "licence: MIT, weight: 0.9",
            "licence: MIT, wieght: 1",
            "sources[0] (a): unknown key 'wieght'; did you mean 'weight'?",
        ),
        ("seed: 7\n", "", "the key 'seed' is missing"),
        ("seed: 7", "seed: 7\nseed: 8", "duplicate key 'seed'"),
        ("seed: 7", "seed: -1", "seed: must be an integer from 0"),
        ("seed: 7", "seed: 07", "seed: must be an integer"),
        ("seed: 7", "seed: 7.0", "seed: must be an integer"),
        ("seed: 7", "seed: true", "seed: must be an integer"),
        ("seed: 7", "seed: &x 7", "anchors"),
        ("seed: 7", "seed: !!int 7", "tags"),
        ("weight: 0.9", "weight: 0", "weight: must be a number above 0"),
        ("weight: 0.9", "weight: -1", "weight: must be a number above 0"),
        ("weight: 0.9", "weight: 1e400", "weight: must be a number above 0"),
        ("weight: 0.9", "weight: .nan", "weight: must be a number above 0"),
        ("weight: 0.9", "weight: 1_000", "weight: must be a number above 0"),
        ("weight: 0.9", "weight: yes", "weight: must be a number above 0"),
        ("weight: 0.9", "weight: 1, repeat: 1", "exactly one of weight, repeat, budget"),
        ("weight: 0.9", "repeat: 1", "exactly one of weight, repeat, budget"),
        (", weight: 0.9", "", "exactly one of weight, repeat, budget"),
        ("name: b", "name: a", "sources: two are named 'a'"),
        ("name: b", "name: ../b", "name: must be letters"),
        ("seed: 7", "seed: 7\nduplicates: drop", "duplicates: must be one of refuse, keep"),
        (
            "seed: 7",
            "seed: 7\nframes: {fps: 4}",
            "frames: fps: the view asks for 4, the pool's profile holds 2",
        ),
        ("seed: 7", "seed: 7\nframes: {cap: 600}", "the pool's profile holds 512"),
        (
            "seed: 7",
            "seed: 7\nframes: {area: 65536, min_area: 82944}",
            "frames: min_area: 82944 is more than the area 65536",
        ),
        ("seed: 7", "seed: 7\nframes: {fit: stretch}", "fit: must be one of box, floor"),
        ("seed: 7", "seed: 7\nframes: {selection: best}", "selection: must be one of uniform"),
        ("seed: 7", "seed: 7\nframes: {selection: query}", "name it, such as `frame_scores: scor"),
        (
            "seed: 7",
            "seed: 7\nframe_scores: score_frames",
            "nothing selects by them; write `frames",
        ),
        (
            "seed: 7",
            "seed: 7\nlayout: {timestamps: rope}",
            "timestamps: must be one of none, sentence",
        ),
        ("seed: 7", "seed: 7\nlayout: {patch: 14}", "layout: patch: must be one of 16"),
        ("seed: 7", "seed: 7\nlayout: [1]", "layout: must be a mapping"),
        ("seed: 7", "seed: 7\nheld_out: {name: x}", "held_out: must be a list"),
        ("seed: 7", "seed: 7\nallow_licences: MIT", "allow_licences: must be a list"),
        ("{tokenizer: t.json}", "{tokenizer: 3}", "text: tokenizer: must be printable text"),
        ("weight: 0.9", "weight: 12:30:45", "weight: must be a number above 0"),
        ("weight: 0.9", "weight: 0x1F", "weight: must be a number above 0"),
        ("weight: 0.9", "weight: 2024-01-01", "weight: must be a number above 0"),
        ("weight: 0.9", "weight: 00123", "weight: must be a number above 0"),
        ("weight: 0.9", "weight: .inf", "weight: must be a number above 0"),
        ("weight: 0.9", "weight: {a: 1}", "weight: must be a number above 0"),
        ("weight: 0.9", "weight: 1, ids_repeat: 1", "ids_repeat: must be true or false"),
        ("weight: 0.9", "weight: 1, unread_fields: drop", "must be one of keep, refuse"),
        ("weight: 0.9", "weight: 1, columns: {q: a}", "columns: q: no column means this"),
        ("weight: 0.9", "weight: 1, columns: {answer: [a, b]}", "answer: one column, not 2"),
        ("weight: 0.9", "weight: 1, columns: {answer: 3}", "answer: must name columns, not 3"),
        ("name: good", "name: 2024-01-01", None),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, old: str, new: str, message: str | None) -> None:
    assert old in GOOD
    path = written(tmp_path, GOOD.replace(old, new, 1))
    if message is None:
        assert load_recipe(path).name == "2024-01-01"
        return
    with pytest.raises(UserError) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(str(path)) and message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_how_a_source_is_read_is_part_of_the_recipe(tmp_path: Path) -> None:
    told = "columns: {question: [a, b], answer: c}, ids_repeat: true, unread_fields: refuse"
    first, second = load_recipe(
        written(tmp_path, GOOD.replace("weight: 0.9", f"weight: 0.9, {told}"))
    ).sources
    assert first.columns == (("answer", ("c",)), ("question", ("a", "b")))
    assert (first.ids_repeat, first.unread_fields) == (True, "refuse")
    assert (second.columns, second.ids_repeat, second.unread_fields) == ((), False, "keep")


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml: No such file"):
        load_recipe(tmp_path / "none.yaml")


def test_scalars_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    text = "\ufeff{a: no, b: 12:30:45, c: 0x1F, d: 017, e: 1e-5, f: 1.10, g: ~, h: true, i: -3}"
    assert load_yaml(written(tmp_path, text)) == {
        "a": "no",
        "b": "12:30:45",
        "c": "0x1F",
        "d": "017",
        "e": Decimal("1e-5"),
        "f": Decimal("1.1"),
        "g": None,
        "h": True,
        "i": -3,
    }


def test_a_finite_recipe_has_its_own_length(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="length: a repeat recipe has its own"):
        text = GOOD.replace("weight: ", "repeat: ") + "length: 5\n"
        load_recipe(written(tmp_path, text))


STAGES = "stages:\n  - {start: 2000, weights: {a: 0.5}}\n  - {start: 5000, weights: {a: 0, b: 3}}\n"


def test_a_stage_changes_the_weights_it_names(tmp_path: Path) -> None:
    a, b, half = Fraction(9, 10), Fraction(1, 10), Fraction(1, 2)
    recipe = load_recipe(written(tmp_path, GOOD + STAGES.replace("0.5", "0.9, b: 0.1")))
    assert recipe.weights() == [(0, [a, b]), (2000, [a, b]), (5000, [0, 3])]
    at_zero = (
        GOOD + "stages: [{start: 0, weights: {b: 0}}, {start: 1000, weights: {a: 0.5, b: 0.5}}]\n"
    )
    found = load_recipe(written(tmp_path, at_zero)).weights()
    assert found == [(0, [a, 0]), (1000, [half, half])]


FILTERED = GOOD.replace("weight: 0.9", "weight: 0.9, filters: {}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "stages: [{start: 1000, weights: {z: 1}}]\n", "no source is named 'z'"),
        (GOOD + "stages: [{start: 0, weights: {a: 0, b: 0}}]\n", "every weight is 0"),
        (
            GOOD + "stages: [{start: 1000, weights: {a: 1}}, {start: 1000, weights: {a: 2}}]\n",
            "1000 is not after 1000",
        ),
        (GOOD + "stages: [{start: 1000}]\n", "the key 'weights' is missing"),
        (GOOD + "near_text: 0.9\nduplicates: keep\n", "remove one of the two"),
        (GOOD.replace("weight: ", "repeat: ") + "unit: tokens\n", "a repeat recipe counts samples"),
        (GOOD + "unit: words\n", "unit: must be one of samples, tokens"),
        (GOOD.replace("weight: 0.9", "weight: 0.9, allow_short: true"), "without `max_repeats`"),
        (GOOD.replace("weight: 0.9", "weight: 0.9, allow_short: 1"), "must be true or false"),
        (FILTERED.replace("{}", "{colour: {min: 1}}"), "filters: colour: must be {one_of"),
        (FILTERED.replace("{}", "{colours: {min: 1}}"), "the index has no such column"),
        (FILTERED.replace("{}", "{width: {least: 1}}"), "must be {min: ..., max: ...}"),
        (FILTERED.replace("{}", "{width: {min: 1.5}}"), "width: min: must be an integer"),
        (FILTERED.replace("{}", "{width: {min: 9, max: 8}}"), "min 9 is above max 8"),
        (FILTERED.replace("{}", "{width: {one_of: []}}"), "must list values of type int32"),
        (FILTERED.replace("{}", "{is_vfr: {one_of: [1]}}"), "must list values of type bool"),
        (FILTERED.replace("{}", "{pts: {min: 1}}"), "the index has no such column"),
        (FILTERED.replace("{}", "[width]"), "filters: must be a mapping"),
    ],
)
def test_a_bad_stage_unit_or_filter_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        load_recipe(written(tmp_path, text))
