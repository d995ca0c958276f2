"""(source, key) -> Sample and frames, verified on every read; one face for pool and shards.

A reader knows where bytes lie; they come straight from the store, or through a cache.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shards.errors import DamagedData, MissingData, UserError
from shards.extents import ByteRange, Extents, Fetch, pair
from shards.ids import short_hash
from shards.index import CLIPS, SAMPLES
from shards.key_index import (
    NO_SOURCE,
    SCORES_FOLDER,
    EntryIds,
    FrameScores,
    KeyIndex,
    entry_ids,
    frame_scores_table,
    indexed,
    numbers_of,
    scored_by,
    shared,
)
from shards.pool import Pool, Provenance, Receipt
from shards.sample import (
    Clip,
    ClipScores,
    Origin,
    Sample,
    clip_from_json,
    joined,
    key_of,
    sample_from_json,
    split_frames,
    turns_from_json,
)
from shards.store import Store
from shards.verify import read_index, read_receipt

_REMEDY = "remove the node_folder of this run, or restore the data"


class Composition(Protocol):
    """What a manifest makes of the samples of a pool, and of which of them."""

    @property
    def provenance(self) -> Mapping[str, Provenance] | None:
        """The one admission of each source that is read; None: whatever the pool holds."""
        ...

    def members_of(self, source: str, key: str) -> Sequence[str]:
        """The keys in the pool of the conversations that a sample is made of."""
        ...

    def shown(self, clip_ids: Sequence[str]) -> Sequence[str]:
        """The clips that stand for those that a conversation names."""
        ...

    @property
    def scored_by(self) -> str:
        """The digest of the scorer by whose scores frames are selected; "" where they are not."""
        ...

    def check_scores(self, frame_scores: FrameScores, where: str) -> None:
        """Raise UserError unless these are the scores that the manifest was planned by."""
        ...


class AsAdmitted:
    """Samples as they are in the pool: none is joined, each shows its own clips."""

    provenance = None
    scored_by = ""

    def members_of(self, source: str, key: str) -> Sequence[str]:  # noqa: ARG002
        return [key]

    def shown(self, clip_ids: Sequence[str]) -> Sequence[str]:
        return clip_ids

    def check_scores(self, frame_scores: FrameScores, where: str) -> None:
        """Nothing is selected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A sample and the JPEGs of its clips: frames[clip][frame]."""

    sample: Sample
    frames: Sequence[Sequence[bytes | memoryview]]


class Reader(Protocol):
    """Samples by (source, key), wherever their bytes lie."""

    extents: Extents

    def byte_ranges(self, source: str, key: str) -> list[ByteRange]:
        """What `read` of this sample will fetch."""
        ...

    def read(self, source: str, key: str, fetch: Fetch | None = None) -> Stored:
        """The sample; `fetch` brings verified bytes from elsewhere than the store."""
        ...


def open_data(url: str, folder: Path | None = None, made: Composition | None = None) -> Reader:
    """A reader for a pool or a folder of shards, told apart by what lies there.

    `folder` on this node's disk holds the memory-mapped index that its processes share; `made` says
    what becomes of a pool's samples (default: nothing).
    """
    store = Store(url)
    # told apart by the file that each writes last
    if store.exists("profile.json"):
        return PoolReader(Pool(url), folder, made)
    if store.exists("receipt.json"):
        return ShardReader(store, folder, made)
    raise UserError(f"{url}: neither a pool (profile.json) nor shards (receipt.json); check --data")


class _Places:
    """Where each id's extent lies: an index of file numbers, offsets, extents and checksums."""

    def __init__(self, table: pa.Table) -> None:
        self.index = KeyIndex(table)
        self.files: list[str] = json.loads(table.schema.metadata[b"files"])
        names = ("file", "offset", "extent", "crc32")
        self._columns = [self.index.numbers(name) for name in names]

    def at(self, numbers: NDArray[np.int64]) -> list[ByteRange]:
        """The byte ranges of these rows."""
        # columns of numbers are memory-mapped: only the rows asked for become Python objects
        file, *rest = (column[numbers].tolist() for column in self._columns)
        names = [self.files[number] for number in file]
        return list(map(ByteRange._make, zip(names, *rest, strict=True)))


def _places_table(
    ids: EntryIds, files: pa.ChunkedArray, rows: pa.Table, **metadata: Any
) -> pa.Table:
    # file names once, numbers in the rows
    coded = files.combine_chunks().dictionary_encode()
    columns = {name: rows[name].combine_chunks() for name in ("offset", "extent", "crc32")}
    table = indexed(ids, {"file": coded.indices, **columns})
    metadata["files"] = coded.dictionary.to_pylist()
    return table.replace_schema_metadata({k: json.dumps(v) for k, v in metadata.items()})


class ShardReader:
    """WebDataset shards made by `pipeline.jobs.write_shards`, read by index."""

    def __init__(
        self, store: Store, folder: Path | None = None, made: Composition | None = None
    ) -> None:
        self.store = store
        self._scored_by = (made or AsAdmitted()).scored_by
        self.extents = Extents(store)
        self.receipt = read_receipt(store)
        name = f"shards-{short_hash(store.url)}-{self.receipt['index'][:32]}"
        self._places = _Places(shared(folder, name, self._index))
        # sources are numbered as the index has them
        metadata = self._places.index.table.schema.metadata
        self._number = {name: i for i, name in enumerate(json.loads(metadata[b"sources"]))}

    def _index(self) -> pa.Table:
        columns = ["source", "key", "shard", "offset", "extent", "crc32"]
        rows = read_index(self.store, self.receipt["index"], columns)
        sources = rows["source"].combine_chunks().dictionary_encode()
        ids = entry_ids(rows["key"].to_pylist(), numbers_of(sources.indices))
        names = sources.dictionary.to_pylist()
        return _places_table(ids, rows["shard"], rows, sources=names)

    def members(
        self, sources: Sequence[str], keys: Sequence[str]
    ) -> Iterator[tuple[memoryview, memoryview]]:
        """The `.json` and the `.mjpeg` of each sample, verified and not copied.

        Shards lie in draw order, so a run of positions takes few reads.
        """
        byte_ranges = self.byte_ranges_of(sources, keys)
        for byte_range, extent in zip(byte_ranges, self.extents.read_all(byte_ranges), strict=True):
            yield pair(extent, byte_range.file)

    def byte_ranges_of(self, sources: Sequence[str], keys: Sequence[str]) -> list[ByteRange]:
        """Where these samples lie; MissingData names the first one that these shards lack."""
        # a source that the shards lack finds nothing
        numbers = [self._number.get(source, NO_SOURCE) for source in sources]
        rows = self._places.index.find(entry_ids(keys, numbers))
        if (rows < 0).any():
            first = int(np.flatnonzero(rows < 0)[0])
            raise MissingData(
                f"{self.store.url}: these shards end before sample {keys[first]} of "
                f"{sources[first]!r}; train from the pool (--data POOL) or pack a longer `length`"
            )
        return self._places.at(rows)

    def byte_ranges(self, source: str, key: str) -> list[ByteRange]:
        return self.byte_ranges_of([source], [key])

    def read(self, source: str, key: str, fetch: Fetch | None = None) -> Stored:
        (byte_range,) = self.byte_ranges(source, key)
        # what was read is held against what was asked for: an index may be of other shards
        where = self.extents.where(byte_range)
        stored = stored_in((fetch or self.extents.read)(byte_range), where)
        if (stored.sample.source, stored.sample.key) != (source, key):
            raise DamagedData(f"{where}: sample {stored.sample.key}, not {key}; {_REMEDY}")
        self._check_scored(stored.sample, where)
        return stored

    def _check_scored(self, sample: Sample, where: str) -> None:
        held = sample.frame_scores.scorer if sample.frame_scores else "none"
        if self._scored_by not in ("", held):
            raise UserError(
                f"{where}: the manifest selects frames by the scores {self._scored_by}, these "
                f"shards hold {held}; pack this manifest, or train from its pool (--data POOL)"
            )


def stored_in(extent: bytes, where: str) -> Stored:
    """The sample in a verified extent of a shard."""
    described, payload = pair(extent, where)
    sample = sample_from_json(bytes(described), where)
    return Stored(sample=sample, frames=split_frames(sample.clips, payload, where))


class PoolReader:
    """Conversations from the pool's index, clips from its parts."""

    def __init__(
        self, pool: Pool, folder: Path | None = None, made: Composition | None = None
    ) -> None:
        self.pool = pool
        self._made = made or AsAdmitted()
        self.extents = Extents(pool.store)
        # one admission a source: that of the manifest
        admitted = pool.admitted(self._made.provenance)
        decoded = pool.receipts("decode")
        samples = self._open(folder, admitted, "index/samples", self._sample_table)
        self._samples = KeyIndex(samples)
        self._clips = _Places(self._open(folder, decoded, "index/clips", self._clip_table))
        names = json.loads(self._samples.table.schema.metadata[b"sources"])
        self._number = {name: i for i, name in enumerate(names)}
        self._scores = self._frame_scores(folder) if self._made.scored_by else None

    def _frame_scores(self, folder: Path | None) -> FrameScores:
        """The column that the manifest names; UserError where the pool holds none, or another."""
        digest, where = self._made.scored_by, self.pool.store.url
        receipts = scored_by(self.pool, digest)
        if not receipts:
            raise UserError(
                f"{where}: the manifest selects frames by the scores {digest}, of which the pool "
                "holds none; run `python -m pipeline score` with that scorer, or plan again"
            )
        scores = FrameScores(self._open(folder, receipts, SCORES_FOLDER, self._scores_table))
        self._made.check_scores(scores, where)
        return scores

    def _open(
        self, folder: Path | None, receipts: list[Receipt], under: str, make: Any
    ) -> pa.Table:
        # the index is named by the files that it is made of: another build's is another file
        names = self.pool.files(receipts, under)
        what = f"{under.rpartition('/')[2]}-{short_hash(self.pool.store.url)}"
        return shared(folder, f"{what}-{short_hash(names)}", lambda: make(receipts, under))

    def _sample_table(self, receipts: list[Receipt], under: str) -> pa.Table:
        rows = self.pool.table(receipts, under, SAMPLES)
        sources = rows["source"].combine_chunks().dictionary_encode()
        ids = entry_ids(rows["key"].to_pylist(), numbers_of(sources.indices))
        kept = ("turns", "clip_ids", "dataset", "revision", "record", "licence")
        wide = {name: _wide(rows[name]) for name in kept}
        table = indexed(ids, wide)
        return table.replace_schema_metadata(
            {"sources": json.dumps(sources.dictionary.to_pylist())}
        )

    def _scores_table(self, receipts: list[Receipt], _: str) -> pa.Table:
        return frame_scores_table(self.pool, receipts)

    def _clip_table(self, receipts: list[Receipt], under: str) -> pa.Table:
        rows = self.pool.table(receipts, under, CLIPS)
        return _places_table(
            entry_ids(rows["clip_id"].to_pylist(), np.zeros(len(rows))), rows["part"], rows
        )

    def byte_ranges(self, source: str, key: str) -> list[ByteRange]:
        # a joined sample shows the clips of its first conversation
        first = self._made.members_of(source, key)[0]
        return self._clip_byte_ranges(self._made.shown(self._row(source, first)["clip_ids"]))

    def read(self, source: str, key: str, fetch: Fetch | None = None) -> Stored:
        # all conversations of a joined sample, the clips once
        rows = [self._told(source, member) for member in self._made.members_of(source, key)]
        clips = []
        frames = []
        shown = self._made.shown(rows[0]["clip_ids"])
        for clip_id, byte_range in zip(shown, self._clip_byte_ranges(shown), strict=True):
            where = self.extents.where(byte_range)
            described, payload = pair((fetch or self.extents.read)(byte_range), where)
            clips.append(clip_of(json.loads(bytes(described))))
            if clips[-1].clip_id != clip_id:
                raise DamagedData(f"{where}: clip {clips[-1].clip_id}, not {clip_id}; {_REMEDY}")
            frames += split_frames(clips[-1:], payload, where)
        conversations = [sample_of(row | {"key": key}, tuple(clips)) for row in rows]
        sample = joined(conversations, key)
        if self._scores is not None:
            sample = replace(sample, frame_scores=self._scored(self._scores, sample))
        return Stored(sample=sample, frames=frames)

    def _scored(self, scores: FrameScores, sample: Sample) -> ClipScores:
        values = scores.of(sample.key, len(sample.clips))
        counts = [len(clip.pts) for clip in sample.clips]
        if list(map(len, values)) != counts:
            raise DamagedData(
                f"{self.pool.store.url}: sample {sample.key} has scores of {list(map(len, values))}"
                f" frames, its clips have {counts}; run `python -m pipeline score` again"
            )
        return ClipScores(scorer=self._made.scored_by, values=values)

    def _row(self, source: str, key: str) -> dict[str, Any]:
        number = self._number.get(source, NO_SOURCE)
        at = int(self._samples.find(entry_ids([key], [number]))[0])
        if at < 0:
            raise MissingData(
                f"{self.pool.store.url}: no sample {key} of {source!r} at the "
                "revision, and under the licence, that is read; build it first"
            )
        return self._samples.row(at)

    def _told(self, source: str, key: str) -> dict[str, Any]:
        """A row of the samples with its turns read, if what it says is what its key is made of."""
        row = self._row(source, key) | {"source": source}
        # keys are content ids: what was read is hashed and compared
        try:
            row["turns"] = turns_from_json(json.loads(row["turns"]))
            found_key = key_of(row["turns"], row["clip_ids"])
        except (KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
            found_key = repr(error)
        if found_key != key:
            raise DamagedData(
                f"{self.pool.store.url}: the index holds another conversation for sample {key} of "
                f"{source!r} ({found_key}); {_REMEDY}"
            )
        return row

    def _clip_byte_ranges(self, clip_ids: Sequence[str]) -> list[ByteRange]:
        # clips have no source: the number 0 stands for it
        rows = self._clips.index.find(entry_ids(clip_ids, np.zeros(len(clip_ids))))
        if (rows < 0).any():
            clip_id = clip_ids[int(np.flatnonzero(rows < 0)[0])]
            raise MissingData(
                f"{self.pool.store.url}: clip {clip_id} is not decoded; build it first"
            )
        byte_ranges = self._clips.at(rows)
        return [byte_range._replace(file=f"clips/{byte_range.file}") for byte_range in byte_ranges]


def _wide(column: pa.ChunkedArray) -> pa.Array:
    """Strings with 64-bit offsets: a column of a large pool outgrows 2 GiB."""
    return column.cast(pa.large_string()) if pa.types.is_string(column.type) else column


def clip_of(row: dict[str, Any]) -> Clip:
    """The Clip of a row of the clip index, or of the description beside its frames."""
    return clip_from_json({name: row[name] for name in Clip.__slots__})


def sample_of(row: dict[str, Any], clips: tuple[Clip, ...]) -> Sample:
    """The Sample of a row of the sample index whose turns are read."""
    origin = Origin(
        dataset=row["dataset"],
        revision=row["revision"],
        record=row["record"],
        licence=row["licence"],
    )
    named = {name: row[name] for name in ("key", "source", "turns")}
    return Sample(**named, clips=clips, origin=origin)
