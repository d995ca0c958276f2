"""What is held out has media to compare, or the build says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.build import held_out_clips
from shards.errors import UserError
from tests.support.made_pool import MadePool, MadeSample, many, name_of


def test_clips_of_held_out_sets_go_by_the_name_of_their_set(tmp_path: Path) -> None:
    held_out = {"one": [MadeSample("what", ["x", "y"])], "two": [MadeSample("where", ["z"])]}
    pool = MadePool(sources={"a": many("a", 1)}, held_out=held_out).make(tmp_path)
    receipts = {one.parameters["source"]: one for one in pool.receipts("admit")}
    found = held_out_clips(pool, {name: receipts[name] for name in held_out})
    assert found == {name_of("x"): "one", name_of("y"): "one", name_of("z"): "two"}


def test_a_held_out_set_without_media_is_refused_by_name(tmp_path: Path) -> None:
    held_out = {"words": [MadeSample("what"), MadeSample("why")]}
    pool = MadePool(sources={"a": many("a", 1)}, held_out=held_out).make(tmp_path)
    receipts = {one.parameters["source"]: one for one in pool.receipts("admit")}
    with pytest.raises(UserError, match=r"words: none of its 2 samples has media.* leaks build"):
        held_out_clips(pool, {"words": receipts["words"]})
