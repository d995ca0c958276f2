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
    # a shard that a killed run finished is kept, once it was read and found whole
    if digest := _written(out, unit.name, drawn):
        return unit.name, digest
    reader = _reader(unit.manifest, unit.pool)
    stored = [reader.read(reference.source, reference.key) for reference in drawn]
    data, index = shard_of(unit.name, drawn, stored)
    digest = sha256_hex(data)
    # the shard first, then the part of the index that vouches for it
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
        index = read_table(written, out.path(part_of(name)))
    except DamagedData:
        return ""
    # Parquet's page checksums do not cover the footer: the file must be what writing it again gives
    if write_table(index) != written:  # what no checksum of a page covers, as its footer
        return ""
    digest = (index.schema.metadata or {}).get(DIGEST, b"").decode()
    data = out.get(name)
    if sha256_hex(data) != digest or index.schema != SHARD_INDEX:
        return ""
    columns = {name: index[name].to_pylist() for name in ("position", "source", "key", "epoch")}
    listed = [[getattr(reference, name) for reference in drawn] for name in columns]
    # columns side by side: the samples that the manifest draws here, in this order
    return digest if list(columns.values()) == listed and _crc32s_hold(index, data) else ""


def _crc32s_hold(shard_index: pa.Table, data: bytes) -> bool:
    """Whether the shard's bytes are at every extent those that its part of the index says."""
    view = memoryview(data)
    rows = zip(
        *(shard_index[name].to_pylist() for name in ("offset", "extent", "crc32")), strict=True
    )
    return all(zlib.crc32(view[at : at + size]) == crc for at, size, crc in rows)


def shard_of(
    name: str, drawn: Sequence[SampleReference], stored: Sequence[Stored]
) -> tuple[bytes, pa.Table]:
    """The tar of these samples in draw order, and one index row for each."""
    data, extents = tar_bytes(
        sample_members(reference.position, reference.epoch, sample.sample, sample.frames)
        for reference, sample in zip(drawn, stored, strict=True)
    )
    rows = (
        {
            "position": reference.position,
            "source": reference.source,
            "key": reference.key,
            "epoch": reference.epoch,
            "shard": name,
            "offset": extent.offset,
            "extent": extent.extent,
            "crc32": extent.crc32,
        }
        for reference, extent in zip(drawn, extents, strict=True)
    )
    return data, table_of(SHARD_INDEX, rows)


def part_of(name: str) -> str:
    """Where the part of the index that belongs to a shard is written."""
    return f"index/{name.removesuffix('.tar')}.parquet"


@lru_cache(maxsize=1)
def _manifest(path: str) -> Manifest:
    return load_manifest(path)


@lru_cache(maxsize=1)
def _reader(manifest_path: str, pool: str) -> PoolReader:
    return PoolReader(Pool(pool), made=_manifest(manifest_path))
