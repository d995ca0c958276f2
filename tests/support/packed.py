"""The shards of a manifest over a tiny pool, without Ray's workers."""

from __future__ import annotations

from pathlib import Path

from mixtures.manifest.files import load_manifest
from pipeline.jobs.write_shards import plan_shards, publish
from pipeline.stages.write_shard import write_shard
from shards.pool import Pool
from shards.store import Store


def packed(path: Path) -> str:
    """The shards of a manifest, written beside it."""
    out, manifest = str(path.parent / "shards"), load_manifest(path)
    units, _ = plan_shards(str(path), manifest, Pool(str(path.parent.parent / "pool")), out)
    publish(Store(out), manifest, dict(map(write_shard, units)))
    return out
