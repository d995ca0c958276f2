"""Trees of plain values become values of a dataclass, or a line for every mistake."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Annotated, get_args, get_type_hints

import pytest

from mixtures.keys import Integer, Name, PositiveOrZero, YesNo, key, mistakes_within
from mixtures.recipe.fields import MOST, keys_of, load, mistakes, parse, schema_of, words
from mixtures.recipe.load import load_recipe
from mixtures.recipe.strict_yaml import load_yaml
from mixtures.recipe.types import Benchmarks, Recipe
from shards.errors import UserError
from train.config import Config

BAD = """\
name: my mixture
seed: 7
sources:
  - {name: a, dataset: d/a, licence: MIT, weight: many}
  - {name: coco, dataset: d/b, weight: -1, wieght: 1, filters: {width: {least: 1}, pts: {min: 1}}}
  - 3
text: {tokenizer: t.json, template: llama}
stages: [{start: 100, weights: {a: 1, "b b": 2, coco: none}}]
frames: {cap: true, colour: red}
leaks:
lengths: 100
"""


def test_all_mistakes_of_a_file_are_named_at_once_in_its_order(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(BAD)
    with pytest.raises(UserError) as caught:
        load_recipe(tmp_path / "r.yaml")
    lines = str(caught.value).split("\n")
    number = "must be a number above 0 (1e-12 to 1e12), not"
    assert [line.removeprefix(f"{tmp_path}/r.yaml: ") for line in lines] == [
        "unknown key 'lengths'; did you mean 'length'?",
        "name: must be letters, digits, '_', '-' or '.', not 'my mixture'",
        f"sources[0] (a): weight: {number} 'many'",
        "sources[1] (coco): the key 'licence' is missing; add it",
        "sources[1] (coco): unknown key 'wieght'; did you mean 'weight'?",
        f"sources[1] (coco): weight: {number} -1",
        "sources[1] (coco): filters: width: must be {min: ..., max: ...} or {one_of: [...]}, "
        "not {'least': 1}",
        lines[7].removeprefix(f"{tmp_path}/r.yaml: "),
        "sources[2]: must be a mapping, not 3",
        "text: template: must be one of chatml, not 'llama'",
        "stages[0]: weights: the name 'b b' must be letters, digits, '_', '-' or '.'",
        "stages[0]: weights: coco: must be 0, or a number above 0 (1e-12 to 1e12), not 'none'",
        "frames: unknown key 'colour'; the keys here are fps, cap, area, min_area, fit, "
        "selection, memory",
        "frames: cap: must be an integer from 1 to 65536, not true",
        "leaks: is empty; write its value, or remove the key",
    ]
    assert "filters: pts: the index has no such column; it has " in lines[7]


def test_broken_rules_are_named_at_once(tmp_path: Path) -> None:
    source = "{name: a, dataset: d, licence: MIT, media: /etc, repeat: 1, allow_short: true}"
    (tmp_path / "r.yaml").write_text(
        f"name: r\nseed: 1\ntext: {{tokenizer: /t.json}}\nsources: [{source}, {source}]\n"
        "unit: tokens\nframes: {fps: 30, cap: 4000}\npack_tokens: 100\n"
        "join_by_clip: {max_turns: 2, max_tokens: 200}\n"
    )
    with pytest.raises(UserError) as caught:
        load_recipe(tmp_path / "r.yaml")
    said = str(caught.value)
    assert said.count("\n") == 9 and said.count(f"{tmp_path}/r.yaml: ") == 10
    for what in ("two are named 'a'", "sources[0] (a): allow_short", "sources[1] (a): allow_short",
                  "unit: a repeat", "'/t.json' is outside", "sources[0] (a): media: '/etc'",
                  "join_by_clip: max_tokens", "frames: fps", "frames: cap"):  # fmt: skip
        assert what in said


def test_a_key_that_was_meant_is_not_missing_too(tmp_path: Path) -> None:
    assert mistakes(Benchmarks, {"benchmark": []}) == [
        "unknown key 'benchmark'; did you mean 'benchmarks'?"
    ]
    assert mistakes(Benchmarks, {"held_out": []}) == [
        "the key 'benchmarks' is missing; add it",
        "unknown key 'held_out'; the keys here are benchmarks",
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    """One item."""

    name: Annotated[Name, key("Its name.", "a")]
    size: Annotated[Integer | None, key("Its size.", "1", least=0)] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    """A file."""

    items: Annotated[tuple[Inner, ...], key("Items.", "[]")] = ()
    share: Annotated[PositiveOrZero, key("A share.", "0.5")] = Fraction(1)
    yes: Annotated[YesNo, key("A choice.", "true")] = False


def test_values_are_exact_and_frozen(tmp_path: Path) -> None:
    (tmp_path / "o.yaml").write_text("items: [{name: a, size: 3}]\nshare: 0.1\n")
    read = load(Outer, tmp_path / "o.yaml")
    assert read == Outer(items=(Inner(name="a", size=3),), share=Fraction(1, 10))
    assert hash(read) == hash(load(Outer, tmp_path / "o.yaml"))


@pytest.mark.parametrize("wrong", ["1", True, Decimal("1.0"), [1], {"a": 1}])
def test_nothing_but_an_integer_is_one(wrong: object) -> None:
    (line,) = mistakes(Outer, {"items": [{"name": "a", "size": wrong}]})
    assert line.startswith("items[0] (a): size: must be an integer of at least 0, not ")


@pytest.mark.parametrize("wrong", ["yes", 1, 0, Decimal(1), "true"])
def test_nothing_but_true_and_false_is_a_choice(wrong: object) -> None:
    (line,) = mistakes(Outer, {"yes": wrong})
    assert line.startswith("yes: must be true or false, not ")


def test_a_message_is_one_short_line() -> None:
    for name in ("a\nb", "x" * 5000):
        for line in mistakes(Outer, {"items": [{"name": name, name: 1, "size": name}]}):
            assert "\n" not in line and len(line) < 6000
    assert parse(Outer, {}, "o") == Outer()


def test_of_very_many_mistakes_the_first_are_named() -> None:
    lines = mistakes(Outer, {"items": [3] * 20_000})
    assert len(lines) == MOST + 1 and lines[-1] == f"and {20_000 - MOST} more"
    assert lines[0] == "items[0]: must be a mapping, not 3"


def kinds(kind: type) -> Iterator[type]:
    """A dataclass and those inside it."""
    yield kind
    for hint in get_type_hints(kind).values():
        for part in (hint, *get_args(hint), *(p for one in get_args(hint) for p in get_args(one))):
            if isinstance(part, type) and is_dataclass(part):
                yield from kinds(part)


KEYS = [
    pytest.param(kind, name, schema, id=f"{kind.__name__}.{name}")
    for kind in dict.fromkeys(one for root in (Recipe, Benchmarks, Config) for one in kinds(root))
    for name, schema in keys_of(kind).items()
]


@pytest.mark.parametrize(("kind", "name", "schema"), KEYS)
def test_the_example_of_a_key_is_good(
    tmp_path: Path, kind: type, name: str, schema: dict[str, list[str]]
) -> None:
    (example,) = schema["examples"]
    (tmp_path / "e.yaml").write_text(f"{name}: {example}")
    lines = mistakes(kind, load_yaml(tmp_path / "e.yaml"))
    assert [line for line in lines if "is missing; add it" not in line] == []


@pytest.mark.parametrize(("kind", "name", "schema"), KEYS)
def test_a_value_of_another_type_is_no_value_of_a_key(
    kind: type, name: str, schema: dict[str, list[str]]
) -> None:
    """A word is no number, and 1 is no true."""
    type_words = words(schema, schema_of(kind))
    number = type_words.startswith(("an integer", "a number", "0, or"))
    choice = type_words.startswith(("true or false", "one of true"))
    for value, fits in (("7", not number), (True, choice), (1, not choice)):
        lines = [line for line in mistakes(kind, {name: value}) if line.startswith(name)]
        assert fits or lines, value


def test_the_lists_of_keys_are_whole() -> None:
    assert len(KEYS) > 90


def test_mistakes_inside_a_validator_have_places() -> None:
    error = mistakes_within({"a": ("said", "must {not}"), "b": ("said", "b")})
    assert [(one["loc"], one["msg"]) for one in error.errors()] == [
        (("a",), "must {not}"),
        (("b",), "b"),
    ]
