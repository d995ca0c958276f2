"""One shard: positions of a manifest as one tar, the same bytes whoever writes it.

The other stages leave receipts in a pool; a folder of shards has one receipt for all of them, which
pipeline.jobs.write_shards publishes last.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa

from mixtures.manifest.draws import Draws, SampleReference
from mixtures.manifest.files import load_manifest
from mixtures.manifest.manifest import Manifest
from shards.errors import DamagedData
from shards.extents import tar_bytes
from shards.ids import sha256_hex
from shards.index import SHARD_INDEX, read_table, table_of, write_table
from shards.pool import Pool
from shards.reader import PoolReader, Stored
from shards.sample import sample_members
from shards.store import Store

DIGEST = b"shard_sha256"
"""In a part of the index: the digest of the shard that it describes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardUnit:
    """Positions start..stop-1 of a manifest, to become one tar."""

    manifest: str
    pool: str
    out: str
    name: str
    start: int
    stop: int


def write_shard(unit: ShardUnit) -> tuple[str, str]:
    """Write one tar and, after it, its part of the index, unless both are there and whole.

    Its name and the sha256 of its bytes.
    """
    out = Store(unit.out)
    drawn = Draws(_manifest(unit.manifest)).samples(unit.start, unit.stop)
    if digest := _written(out, unit.name, drawn):
        return unit.name, digest
    reader = _reader(unit.manifest, unit.pool)
    stored = [reader.read(each.source, each.key) for each in drawn]
    data, index = shard_of(unit.name, drawn, stored)
    digest = sha256_hex(data)
    out.put(unit.name, data)
    out.put(part_of(unit.name), write_table(index.replace_schema_metadata({DIGEST: digest})))
    return unit.name, digest


def _written(out: Store, name: str, drawn: Sequence[SampleReference]) -> str:
    """The sha256 of a shard that is there as its part of the index says, else "".

    The part is written last and names the shard's digest; it lists these samples, and none else.
    """
    if not (out.exists(name) and out.exists(part_of(name))):
        return ""
    written = out.get(part_of(name))
    try:
        part = read_table(written, out.path(part_of(name)))
    except DamagedData:
        return ""
    if write_table(part) != written:  # what no checksum of a page covers, as its footer
        return ""
    digest, data = (part.schema.metadata or {}).get(DIGEST, b"").decode(), out.get(name)
    if sha256_hex(data) != digest or part.schema != SHARD_INDEX:
        return ""
    columns = {name: part[name].to_pylist() for name in ("position", "source", "key", "epoch")}
    listed = [[getattr(each, name) for each in drawn] for name in columns]
    return digest if list(columns.values()) == listed and _crc32s_hold(part, data) else ""


def _crc32s_hold(part: pa.Table, data: bytes) -> bool:
    """Whether the shard's bytes are at every extent those that its part of the index says."""
    view = memoryview(data)
    rows = zip(*(part[name].to_pylist() for name in ("offset", "extent", "crc32")), strict=True)
    return all(zlib.crc32(view[at : at + size]) == crc for at, size, crc in rows)


def shard_of(
    name: str, drawn: Sequence[SampleReference], stored: Sequence[Stored]
) -> tuple[bytes, pa.Table]:
    """The tar of these samples in draw order, and one index row for each."""
    data, extents = tar_bytes(
        sample_members(each.position, each.epoch, item.sample, item.frames)
        for each, item in zip(drawn, stored, strict=True)
    )
    rows = (
        {
            "position": each.position,
            "source": each.source,
            "key": each.key,
            "epoch": each.epoch,
            "shard": name,
            "offset": extent.offset,
            "extent": extent.extent,
            "crc32": extent.crc32,
        }
        for each, extent in zip(drawn, extents, strict=True)
    )
    return data, table_of(SHARD_INDEX, rows)


def part_of(name: str) -> str:
    return f"index/{name.removesuffix('.tar')}.parquet"


@lru_cache(maxsize=1)
def _manifest(path: str) -> Manifest:
    return load_manifest(path)


@lru_cache(maxsize=1)
def _reader(manifest_path: str, pool: str) -> PoolReader:
    return PoolReader(Pool(pool), made=_manifest(manifest_path))
