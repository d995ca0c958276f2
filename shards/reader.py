"""(part, offset) -> Sample and frames, verified on every read; one face for pool and shards."""

from __future__ import annotations

import json
import tarfile
import zlib
from dataclasses import dataclass
from typing import Any, Protocol

from shards.errors import DamagedData, MissingData, UserError
from shards.index import CLIPS, SAMPLES, SHARD_INDEX, read_table
from shards.pool import Pool
from shards.sample import (
    Clip,
    Origin,
    Sample,
    clip_from_json,
    sample_from_json,
    split_frames,
    turns_from_json,
)
from shards.store import Store

_BLOCK = tarfile.BLOCKSIZE


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A sample and the JPEGs of its clips: frames[clip][frame]."""

    sample: Sample
    frames: list[list[bytes]]


class Reader(Protocol):
    """Samples by (source, key), wherever their bytes lie."""

    def read(self, source: str, key: str) -> Stored: ...


def open_data(url: str) -> Reader:
    """A reader for a pool or a folder of shards, told apart by what lies there."""
    store = Store(url)
    if store.exists("profile.json"):
        return PoolReader(Pool(url))
    if store.exists("receipt.json"):
        return ShardReader(store)
    raise UserError(f"{url}: neither a pool (profile.json) nor shards (receipt.json); check --data")


def members(extent: bytes, where: str) -> dict[str, bytes]:
    """The tar members in an extent, by suffix; DamagedData on a bad header."""
    found, at = {}, 0
    while at < len(extent):
        try:
            info = tarfile.TarInfo.frombuf(extent[at : at + _BLOCK], "utf-8", "strict")
        except tarfile.TarError as error:
            raise DamagedData(f"{where}: bad tar header at byte {at}: {error}") from error
        start = at + _BLOCK
        found[info.name.rsplit(".", 1)[-1]] = extent[start : start + info.size]
        at = start + -(-info.size // _BLOCK) * _BLOCK
    return found


def read_extent(store: Store, name: str, row: dict[str, Any]) -> dict[str, bytes]:
    """The members of one index row (offset, extent, crc32) of `name`, checksum verified."""
    where = f"{store.path(name)} at byte {row['offset']}"
    data = store.get(name, row["offset"], row["extent"])
    if len(data) != row["extent"] or zlib.crc32(data) != row["crc32"]:
        raise DamagedData(f"{where}: the bytes are not those that were written; restore the file")
    return members(data, where)


class ShardReader:
    """WebDataset shards made by `pipeline.pack`, read by index."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.receipt = json.loads(store.get("receipt.json"))
        table = read_table(store.get("index.parquet"), store.path("index.parquet"))
        self.rows = table.select(SHARD_INDEX.names)
        pairs = zip(table["source"].to_pylist(), table["key"].to_pylist(), strict=True)
        self._row_of: dict[tuple[str, str], int] = {}
        for row, pair in enumerate(pairs):
            self._row_of.setdefault(pair, row)

    def read(self, source: str, key: str) -> Stored:
        row = self._row_of.get((source, key))
        if row is None:
            raise MissingData(
                f"{self.store.url}: these shards end before sample {key} of {source!r}; "
                "train from the pool (--data POOL) or pack a longer `length`"
            )
        return self.read_row(row)

    def read_row(self, row: int) -> Stored:
        values = self.rows.slice(row, 1).to_pylist()[0]
        found = read_extent(self.store, values["shard"], values)
        where = f"{self.store.path(values['shard'])} at byte {values['offset']}"
        sample = sample_from_json(found["json"], where)
        return Stored(sample=sample, frames=split_frames(sample.clips, found["mjpeg"], where))


class PoolReader:
    """Samples from the pool's index, clips from its parts."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self._samples = pool.table(pool.receipts("admit"), "index/samples", SAMPLES)
        self._clips = pool.table(pool.receipts("decode"), "index/clips", CLIPS)
        pairs = zip(
            self._samples["source"].to_pylist(), self._samples["key"].to_pylist(), strict=True
        )
        self._sample_row = {pair: row for row, pair in enumerate(pairs)}
        self._clip_row = {clip: row for row, clip in enumerate(self._clips["clip_id"].to_pylist())}

    def read(self, source: str, key: str) -> Stored:
        row = self._sample_row.get((source, key))
        if row is None:
            raise MissingData(
                f"{self.pool.store.url}: no sample {key} of {source!r}; build it first"
            )
        values = self._samples.slice(row, 1).to_pylist()[0]
        stored = [self._read_clip(clip_id) for clip_id in values["clip_ids"]]
        sample = sample_of(values, tuple(clip for clip, _ in stored))
        return Stored(sample=sample, frames=[frames for _, frames in stored])

    def _read_clip(self, clip_id: str) -> tuple[Clip, list[bytes]]:
        row = self._clip_row.get(clip_id)
        if row is None:
            raise MissingData(
                f"{self.pool.store.url}: clip {clip_id} is not decoded; build it first"
            )
        values = self._clips.slice(row, 1).to_pylist()[0]
        name = f"clips/{values['part']}"
        found = read_extent(self.pool.store, name, values)
        clip = clip_of(values)
        return clip, split_frames([clip], found["mjpeg"], f"{name} of clip {clip_id}")[0]


def clip_of(row: dict[str, Any]) -> Clip:
    """The Clip of a row of the clip index."""
    return clip_from_json({name: row[name] for name in Clip.__slots__})


def sample_of(row: dict[str, Any], clips: tuple[Clip, ...]) -> Sample:
    """The Sample of a row of the sample index."""
    origin = Origin(
        dataset=row["dataset"],
        revision=row["revision"],
        record=row["record"],
        licence=row["licence"],
    )
    turns = turns_from_json(json.loads(row["turns"]))
    return Sample(key=row["key"], source=row["source"], turns=turns, clips=clips, origin=origin)
