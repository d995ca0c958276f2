"""A tokenizer at an address: a build keeps it in the pool, and plans find it there."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixtures.plan.build_manifest import build_manifest
from mixtures.recipe.load import load_recipe
from mixtures.recipe.types import Recipe
from pipeline.checks import check_same_tokenizer
from pipeline.stages.count_tokens import keep_tokenizer
from shards.errors import UserError
from tests.support.made_pool import TOKENIZER, MadePool, many, write_recipe

ADDRESS = f"hf://maker/decoder@{'0' * 40}/tokenizer.json"


def recipes(folder: Path) -> tuple[Recipe, Recipe]:
    """One that names the tokenizer's file, and one that names its address."""
    path = write_recipe(folder, {"a": "weight: 1"})
    text = path.read_text()
    at = folder / "at.yaml"
    at.write_text(text.replace(str(folder / "tokenizer.json"), ADDRESS))
    return load_recipe(path), load_recipe(at)


def test_a_plan_takes_the_tokenizer_that_the_build_found_at_the_address(tmp_path: Path) -> None:
    pool = MadePool({"a": many("a", 6)}).make(tmp_path / "pool")
    of_file, of_address = recipes(tmp_path)
    with pytest.raises(UserError, match="holds no tokenizer of hf://maker/decoder"):
        build_manifest(of_address, pool)
    kept = keep_tokenizer(pool, ADDRESS, TOKENIZER)
    assert keep_tokenizer(pool, ADDRESS, TOKENIZER) == kept
    plans = [build_manifest(recipe, pool).manifest for recipe in (of_file, of_address)]
    assert plans[0].manifest_id == plans[1].manifest_id and plans[1].tokenizer == TOKENIZER


def test_an_address_that_held_two_files_is_not_guessed(tmp_path: Path) -> None:
    pool = MadePool({"a": many("a", 6)}).make(tmp_path / "pool")
    for data in (TOKENIZER, b"{}"):
        keep_tokenizer(pool, ADDRESS, data)
    with pytest.raises(UserError, match="holds 2 files, one after another, of hf://"):
        build_manifest(recipes(tmp_path)[1], pool)


def test_a_build_over_a_pool_of_another_tokenizer_ends_before_any_work(tmp_path: Path) -> None:
    pool = MadePool({"a": many("a", 6)}).make(tmp_path / "pool")
    keep_tokenizer(pool, ADDRESS, TOKENIZER)
    _, recipe = recipes(tmp_path)
    check_same_tokenizer(recipe, TOKENIZER, pool.store.url)
    check_same_tokenizer(recipe, b"{}", str(tmp_path / "another"))
    with pytest.raises(UserError, match=r"is not what it was when .* was made; fetch the one"):
        check_same_tokenizer(recipe, b"{}", pool.store.url)
