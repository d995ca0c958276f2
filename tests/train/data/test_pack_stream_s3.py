"""Training data in an object store: a real S3 protocol server on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import s3fs

from mixtures.manifest.files import load_manifest
from mixtures.manifest.manifest import Manifest
from pipeline.jobs.write_shards import plan_shards, publish
from pipeline.stages.write_shard import write_shard
from shards.errors import MissingData
from shards.pool import Pool
from shards.store import Store
from tests.support.s3_server import s3_server
from tests.support.tiny_pool import tiny_manifest
from train.data.collate import Pack
from train.data.node_cache import Node
from train.data.pack_stream import Stream


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[s3fs.S3FileSystem]:
    with s3_server() as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()  # of servers that are gone
        filesystem = s3fs.S3FileSystem()
        filesystem.makedirs("data", exist_ok=True)
        yield filesystem
        s3fs.S3FileSystem.clear_instance_cache()


def taken(manifest: Manifest, data: str, node: Node | None = None) -> list[tuple[Any, ...]]:
    """What the packs of four steps hold."""
    stream = Stream(manifest, data, workers=2, global_batch=4, node=node)
    packs: list[Pack] = [pack for step in islice(stream.steps(), 4) for pack in step]
    assert stream.replaced == 0
    return [(pack.keys, pack.tokens.tobytes(), pack.patches.tobytes()) for pack in packs]


def test_a_pool_and_shards_in_an_object_store_give_the_same_packs(
    bucket: s3fs.S3FileSystem, tmp_path: Path
) -> None:
    path = tiny_manifest(tmp_path / "tiny", ratio=("repeat: 1", "repeat: 1"))
    manifest, pool = load_manifest(path), tmp_path / "tiny/pool"
    bucket.put(str(pool), "data/pool", recursive=True)
    units, _ = plan_shards(str(path), manifest, Pool(str(pool)), "s3://data/shards")
    publish(Store("s3://data/shards"), manifest, dict(map(write_shard, units)))
    wanted = taken(manifest, str(pool))
    assert len({key for keys, *_ in wanted for key in keys}) > 10
    for data in ("s3://data/pool", "s3://data/shards"):
        node = Node(folder=tmp_path / data.rpartition("/")[2], limit=1 << 20, ranks=range(1))
        assert taken(manifest, data) == wanted
        assert taken(manifest, data, node) == wanted
        assert any((node.folder / "extents").iterdir())


def test_an_object_that_is_gone_is_named(bucket: s3fs.S3FileSystem, tmp_path: Path) -> None:
    path = tiny_manifest(tmp_path / "tiny")
    bucket.put(str(tmp_path / "tiny/pool"), "data/gone", recursive=True)
    manifest = load_manifest(path)
    stream = Stream(manifest, "s3://data/gone", global_batch=4)
    for part in bucket.ls("data/gone/clips", detail=False):
        bucket.rm_file(part)
    with pytest.raises(MissingData, match=r"data/gone/clips/\w+.tar: not there"):
        next(stream.steps())
