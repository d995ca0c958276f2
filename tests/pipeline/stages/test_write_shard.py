"""Shards of a manifest: the same bytes whoever writes them, in whatever order, however often."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixtures.manifest.files import load_manifest
from pipeline.jobs import write_shards
from pipeline.jobs.write_shards import plan_shards, publish
from pipeline.stages.write_shard import ShardUnit, write_shard
from shards.pool import Pool
from shards.store import Store
from shards.verify import damage
from tests.support.tiny_pool import tiny_manifest


def packed(path: Path, out: str, units: list[ShardUnit]) -> dict[str, bytes]:
    publish(Store(out), load_manifest(path), dict(map(write_shard, units)))
    store = Store(out)
    names = [name for name in store.list("") if name != "index"]
    return {name: store.get(name) for name in names}


def test_the_order_of_writing_and_what_was_there_before_change_no_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_shards, "SHARD_BYTES", 100_000)
    path = tiny_manifest(tmp_path / "tiny", ratio=("repeat: 1", "repeat: 1"))
    manifest, pool = load_manifest(path), Pool(str(tmp_path / "tiny/pool"))
    outs = [str(tmp_path / "one"), f"memory://{tmp_path.name}/two"]
    units = [plan_shards(str(path), manifest, pool, out)[0] for out in outs]
    assert len(units[0]) > 3
    one = packed(path, outs[0], units[0])
    assert one == packed(path, outs[1], units[1][::-1])
    assert not list(damage(outs[0])) and not list(damage(outs[1]))
    Store(outs[0]).remove(units[0][1].name)
    Store(outs[0]).remove("receipt.json")
    assert packed(path, outs[0], units[0][2:] + units[0][:2]) == one
