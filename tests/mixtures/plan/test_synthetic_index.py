"""The pool of the benchmarks that plan millions of samples, here with few: its tables still fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.inputs.made_index import make_index, write_recipe
from mixtures.manifest.sampler import BatchSampler
from mixtures.plan.build_manifest import build_manifest
from mixtures.recipe.load import load_recipe

STAMPED = "layout: {timestamps: per_frame_text}"
JOIN = "join_by_clip: {max_turns: 40, max_tokens: 32768}"


@pytest.mark.parametrize(
    ("ratio", "more"), [("weight: 2", "length: 3000"), ("repeat: 1", STAMPED), ("repeat: 1", JOIN)]
)
def test_the_pool_of_the_scale_benchmark_is_planned(tmp_path: Path, ratio: str, more: str) -> None:
    pool, names = make_index(tmp_path / "pool", 2400, 3)
    path = tmp_path / "recipe.yaml"
    write_recipe(path, tmp_path / "pool", dict.fromkeys(names, ratio), more)
    manifest = build_manifest(load_recipe(path), pool).manifest
    last = manifest.contents.packs // 4 - 1
    assert manifest.length > 500 and len(BatchSampler(manifest, 4).batch(last, 0, 1)) == 4
