"""The JSON of a manifest and its typed contents are one: every byte, every key, every type."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixtures.manifest.contents import Contents, ExclusionList, LeakChoice, manifest_id_of
from mixtures.manifest.files import load_manifest
from shards.errors import DamagedData
from shards.ids import canonical_json

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.json"))
"""Manifests as they were written when their contents were a mapping."""


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_manifest_is_written_again_byte_by_byte(path: Path) -> None:
    contents = Contents.from_json(path.read_bytes(), str(path))
    assert canonical_json(contents.to_json()) == path.read_bytes()
    assert contents.named() == contents and contents.manifest_id == manifest_id_of(
        contents.to_json()
    )


def test_the_golden_manifests_hold_what_a_recipe_need_not_say() -> None:
    values = [json.loads(path.read_bytes()) for path in GOLDEN]
    assert {"join", "canonical"} <= set().union(*values)
    assert {"duplicates", "max_samples_per_clip", "canonical_clips"} <= set().union(
        *(value["recipe"] for value in values)
    )


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> bytes:
    """A golden manifest after a change, under the id that it then has."""
    value = json.loads(path.read_bytes())
    change(value)
    value["manifest_id"] = manifest_id_of(value)
    return canonical_json(value)


def test_what_a_recipe_says_of_leaks_and_take_downs_comes_back() -> None:
    def ask(value: dict[str, Any]) -> None:
        value["recipe"] |= {"leaks": {"index": "ab", "text": "refuse"}, "near_text": "9/10"}
        value["recipe"] |= {"exclude": {"entries": 3, "sha256": "cd"}}

    data = changed(GOLDEN[0], ask)
    contents = Contents.from_json(data, "")
    assert contents.recipe.leaks == LeakChoice(index="ab", text="refuse")
    assert contents.recipe.exclude == ExclusionList(entries=3, sha256="cd")
    assert canonical_json(contents.to_json()) == data


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: value.update(more=1), "more: Unexpected keyword argument"),
        (lambda value: value.pop("totals"), "totals: Field required"),
        (lambda value: value.update(seed="5"), "seed: Input should be a valid integer"),
        (lambda value: value.update(length=True), "length: Input should be a valid integer"),
        (lambda value: value["sources"][0].pop("kept"), "sources.0.kept: Field required"),
        (lambda value: value["schedule"].update(stages={}), "schedule.stages: Input should be"),
        (lambda value: value["recipe"].update(join=1), "recipe.join: Unexpected keyword"),
        (lambda value: value["layout"].update(slow_frames="8"), "layout.slow_frames: Input should"),
    ],
)
def test_a_key_that_is_missing_odd_or_unknown_is_named_in_one_line(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    (tmp_path / "manifest.json").write_bytes(changed(GOLDEN[0], change))
    with pytest.raises(DamagedData) as refused:
        load_manifest(tmp_path / "manifest.json")
    said = str(refused.value)
    assert f"manifest.json: not a manifest ({message}" in said and "\n" not in said
