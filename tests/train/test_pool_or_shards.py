"""Training from the pool and from the shards of one manifest is the same training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from shards.errors import MissingData
from tests.support.packed import packed
from tests.support.tiny_pool import tiny_manifest
from tests.support.tiny_run import TINY, exact, metrics
from train.__main__ import parser
from train.config import Stop
from train.loop import run
from train.named_files import default_data

SHORT = replace(TINY, stop=Stop(steps=4), global_batch=2, micro_batch=1)


def test_a_folder_stands_for_its_manifest_and_for_what_lies_beside_that(tmp_path: Path) -> None:
    path = tiny_manifest(tmp_path, ratio=("repeat: 1", "repeat: 1.5"))
    words = ["run", "config.yaml", "--manifest", str(path.parent)]
    named = parser().parse_args(words).manifest
    assert named == path and default_data(named) == default_data(path)
    packed(path)
    assert default_data(named) == str(path.parent / "shards")


@pytest.mark.parametrize("join", ["", "max_turns: 4, max_tokens: 200"])
def test_the_losses_are_the_same_from_the_pool_and_from_shards(tmp_path: Path, join: str) -> None:
    ratio = ("repeat: 1", "repeat: 1.5")
    path = tiny_manifest(tmp_path, timestamps="per_frame_text", ratio=ratio, join=join)
    run(SHORT, path, str(tmp_path / "pool"), tmp_path / "from_pool")
    run(SHORT, path, packed(path), tmp_path / "from_shards")
    ours, theirs = (exact(metrics(tmp_path / name)) for name in ("from_pool", "from_shards"))
    assert ours == theirs and len(ours) == SHORT.stop.steps
    assert len({row[1] for row in ours}) == SHORT.stop.steps


def test_a_part_of_the_pool_that_is_gone_is_named_with_what_to_do(tmp_path: Path) -> None:
    path = tiny_manifest(tmp_path)
    for part in (tmp_path / "pool/clips").glob("*.tar"):
        part.unlink()
    with pytest.raises(MissingData, match=r"clips/\w+\.tar: not there; restore it, or build again"):
        run(SHORT, path, str(tmp_path / "pool"), tmp_path / "out")
