"""Take-downs: what the `exclude` file names is refused, and `diff` names what is gone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mixtures.diff import diff
from mixtures.plan.build_manifest import Plan, build_manifest
from mixtures.recipe.load import load_recipe
from shards.errors import UserError
from shards.ids import sha256_hex
from shards.pool import Pool
from tests.support.made_pool import MadePool, MadeSample, many, write_recipe

RATIOS = {"a": "weight: 1", "b": "weight: 1"}
LINKED = "file:https://example.org/1.jpg"


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    a = [*many("a", 4), MadeSample("seven?", ["x"]), MadeSample("eight?", [LINKED, "y"])]
    b = [*many("b", 4), MadeSample("nine?", ["x"]), MadeSample("seven?", ["z"])]
    return MadePool(sources={"a": a, "b": b}).make(tmp_path / "pool")


def plan_of(folder: Path, pool: Pool, *entries: object) -> Plan:
    lines = "".join(f"{json.dumps(entry)}\n" for entry in entries)
    (folder / "gone.jsonl").write_text(lines)
    more = [f"exclude: {folder / 'gone.jsonl'}"] if entries else []
    return build_manifest(load_recipe(write_recipe(folder, RATIOS, *more)), pool)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"media": sha256_hex(b"x")}, {("a", "seven?"), ("b", "nine?")}),
        ({"url": "https://example.org/1.jpg"}, {("a", "eight?")}),
        ({"record": "seven?"}, {("a", "seven?"), ("b", "seven?")}),
        ({"record": "seven?", "source": "b"}, {("b", "seven?")}),
        ({"media": "0" * 64}, set()),
        ({"record": "none"}, set()),
    ],
)
def test_what_is_named_is_refused_and_diff_names_it(
    tmp_path: Path, pool: Pool, entry: dict[str, str], expected: set[tuple[str, str]]
) -> None:
    before, after = plan_of(tmp_path, pool), plan_of(tmp_path, pool, entry)
    rows = [row for row in after.refusals.to_pylist() if row["code"] == "EXCLUDED"]
    assert {(row["source"], row["record"]) for row in rows} == expected
    assert sum(books.not_chosen for books in after.books) == len(expected)
    found = diff(before.manifest, after.manifest)
    gone = {(name, key) for name, one in found["sources"].items() for key in one["gone"]}
    assert gone == {(row["source"], row["key"]) for row in rows}
    assert found["rules"]["recipe.exclude"][1]["entries"] == 1
    assert before.manifest.manifest_id != after.manifest.manifest_id


def test_the_order_and_the_place_of_the_entries_do_not_matter(tmp_path: Path, pool: Pool) -> None:
    entries = [{"media": sha256_hex(b"x")}, {"record": "seven?"}, {"record": "seven?"}]
    one = plan_of(tmp_path, pool, *entries)
    (tmp_path / "other").mkdir()
    other = plan_of(tmp_path / "other", pool, *entries[::-1])
    assert one.manifest.manifest_id == other.manifest.manifest_id
    assert plan_of(tmp_path, pool).manifest.contents.recipe.exclude is None


def test_take_downs_that_meet_nothing_are_told(tmp_path: Path, pool: Pool) -> None:
    met = [
        {"media": sha256_hex(b"x")},
        {"url": "https://example.org/1.jpg"},
        {"record": "seven?"},
        {"record": "nine?", "source": "b"},
    ]
    assert not plan_of(tmp_path, pool).unmatched
    assert not plan_of(tmp_path, pool, *met).unmatched
    for missed in (
        {"media": "0" * 64},
        {"url": "https://example.org/2.jpg"},
        {"record": "none"},
        {"source": "a", "record": "nine?"},
        {"source": "c", "record": "seven?"},
    ):
        told = plan_of(tmp_path, pool, *met, missed).unmatched
        assert told == (
            f"exclude: 1 of 5 entries name nothing that was admitted, as {json.dumps(missed)}"
        )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x", "gone.jsonl:2: no JSON object"),
        ('{"media": "abc"}', "gone.jsonl:2: media must be a sha256"),
        ('{"name": "abc"}', "gone.jsonl:2: must be"),
        ('{"record": 7}', "gone.jsonl:2: its values must be texts"),
        ("[]", "gone.jsonl:2: must be"),
        ('{"url": "/data/1.jpg"}', "gone.jsonl:2: url must be an address"),
    ],
)
def test_a_line_that_is_no_entry_is_named(
    tmp_path: Path, pool: Pool, line: str, message: str
) -> None:
    (tmp_path / "gone.jsonl").write_text(f"\n{line}\n")
    recipe = write_recipe(tmp_path, RATIOS, f"exclude: {tmp_path / 'gone.jsonl'}")
    with pytest.raises(UserError, match=message):
        build_manifest(load_recipe(recipe), pool)


def test_a_file_that_is_not_there_is_said(tmp_path: Path, pool: Pool) -> None:
    recipe = write_recipe(tmp_path, RATIOS, "exclude: nowhere.jsonl")
    with pytest.raises(UserError, match="exclude"):
        build_manifest(load_recipe(recipe), pool)
