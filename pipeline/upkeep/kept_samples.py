"""The conversations that a manifest keeps, out of a pool, in bounded memory.

Rows of samples are read some at a time; of all clips only ids and byte ranges, 48 bytes each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mixtures.manifest.manifest import Manifest
from shards.errors import MissingData
from shards.extents import ByteRange
from shards.id_arrays import Ids, find, ids_of, sorting
from shards.ids import sha256_file
from shards.index import SAMPLES
from shards.pool import Pool
from shards.receipts import Receipt

_PLACED = ["clip_id", "part", "offset", "extent", "crc32"]
_AT_ONCE = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A row of SAMPLES that the manifest keeps, and where the clips lie that it shows."""

    row: dict[str, Any]
    byte_ranges: list[ByteRange]

    @property
    def nbytes(self) -> int:
        """About the bytes that it takes, without a look at its frames."""
        return len(self.row["turns"]) + sum(byte_range.extent for byte_range in self.byte_ranges)


class ClipByteRanges:
    """Where every decoded clip of a pool lies."""

    def __init__(self, pool: Pool) -> None:
        self._url = pool.store.url
        self._parts: list[str] = []
        ids: list[Ids] = [np.empty(0, "V16")]
        rows: list[NDArray[np.int64]] = [np.empty((0, 4), np.int64)]
        names = pool.files(pool.receipts("decode"), "index/clips")
        for _, table in pool.tables("index/clips", names, _PLACED):
            ids.append(ids_of(table["clip_id"]))
            rows.append(self._rows(table))
        order = sorting(np.concatenate(ids))
        self._ids, self._rows_of = np.concatenate(ids)[order], np.concatenate(rows)[order]

    def _rows(self, table: pa.Table) -> NDArray[np.int64]:
        """(part, offset, extent, crc32) of each clip; a part by its number."""
        # one table is the index of one part
        parts = table["part"].unique().to_pylist()
        number = {part: len(self._parts) + i for i, part in enumerate(parts)}
        self._parts += parts
        columns = [[number[part] for part in table["part"].to_pylist()]]
        columns += [table[name].to_pylist() for name in _PLACED[2:]]
        return np.array(columns, np.int64).T

    def of(self, clip_ids: list[str]) -> list[ByteRange]:
        """The byte ranges of these clips; MissingData for one that is not decoded."""
        at = find(self._ids, ids_of(pa.array(clip_ids, pa.string())))
        if (at < 0).any():
            missing = clip_ids[int(np.flatnonzero(at < 0)[0])]
            raise MissingData(f"{self._url}: clip {missing} is not decoded; build it first")
        found = self._rows_of[at].tolist()
        return [ByteRange(f"clips/{self._parts[part]}", *rest) for part, *rest in found]


def kept_samples(pool: Pool, manifest: Manifest) -> Iterator[Kept]:
    """Each conversation once, source by source, sorted by key; joined ones apart, as admitted."""
    byte_ranges = ClipByteRanges(pool)
    admitted = {one.parameters["source"]: one for one in pool.admitted(manifest.provenance)}
    for number, source in enumerate(manifest.names):
        kept = _conversations(manifest, number)
        for row in _rows(pool, admitted[source], kept):
            shown = list(manifest.shown(row["clip_ids"]))
            yield Kept(row=row | {"clip_ids": shown}, byte_ranges=byte_ranges.of(shown))


def _conversations(manifest: Manifest, number: int) -> Ids:
    """The sorted keys of the conversations that are kept of a source."""
    if not manifest.members:
        return np.ascontiguousarray(manifest.tables[number]["key"])
    # a sample that is made of one conversation has no members
    joined = manifest.members[number]
    alone = manifest.tables[number]["key"]
    alone = alone[~np.isin(_bytes(alone), _bytes(joined["key"]))]
    keys = np.concatenate([alone, joined["member"]])
    return keys[sorting(keys)]


def _bytes(ids: Ids) -> NDArray[np.bytes_]:
    return np.ascontiguousarray(ids).view("S16")


def _rows(pool: Pool, admitted: Receipt, kept_keys: Ids) -> Iterator[dict[str, Any]]:
    """The rows of a source's samples with these keys."""
    for name in admitted.outputs["index/samples"]:
        for batch in _batches(pool, f"index/samples/{name}"):
            stays = find(kept_keys, ids_of(batch.column("key"))) >= 0
            yield from batch.filter(pa.array(stays)).to_pylist()


def _batches(pool: Pool, name: str) -> Iterator[pa.RecordBatch]:
    """A table of samples, some rows at a time; its digest is checked first."""
    if not pool.store.is_local:
        yield from pool.read(name).to_batches(_AT_ONCE)
        return
    path = pool.store.path(name)
    # what `Pool.read` checks of bytes in memory, without them
    if f"/{sha256_file(Path(path))}." not in path:
        pool.read(name)
    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(_AT_ONCE, columns=SAMPLES.names)
