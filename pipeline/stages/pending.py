"""What is done and what is still to do: read from receipts, never from the order of events."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.stages.media_rows import MediaRow
from shards.id_arrays import Ids, as_column, hex_of, ids_of, sha256_of, sorting
from shards.index import MEDIA, REFUSED
from shards.pool import Pool, Receipt
from shards.receipts import attempt_of

IMAGES_PER_PART = 128
VIDEOS_PER_PART = 16


AT_ONCE = 1 << 12
"""Clips of which there are objects at one time."""


class Wanted:
    """The media that admissions name, each once, in the order in which they are decoded.

    Columns of raw ids and addresses, some 200 bytes a row, which lie in the order of admission and
    are never copied: there is no object for each. Of several addresses of one clip the first
    admitted wins; of several sources all are its users.
    """

    def __init__(self, pool: Pool, admissions: Mapping[str, Receipt]) -> None:
        self._sources = list(admissions)
        self._rows = _joined(list(_media(pool, list(admissions.values()))))
        # equal ids lie beside each other, the first admitted first: the sort is stable
        ids = ids_of(self._rows["clip_id"])
        order = sorting(ids)
        first = _first(ids[order])
        self._ids = ids[order[first]].view("S16")
        # the users of clip n in the order of ids are user[ends[n]:ends[n + 1]]
        self._ends = np.append(first, len(ids))
        self._user = np.asarray(self._rows["user"], np.int32)[order]
        # an archive's members lie side by side, so that it is read once and in order
        keys = [(name, "ascending") for name in ("is_video", "address", "clip_id")]
        by_address = np.asarray(pc.sort_indices(self._rows, keys), np.int64)
        kept = np.zeros(len(ids), np.bool_)
        kept[order[first]] = True
        self._order = by_address[kept[by_address]]

    def __len__(self) -> int:
        return len(self._ids)

    def users(self, clip_id: str) -> set[str]:
        """The sources that name a clip."""
        place = int(np.searchsorted(self._ids, np.bytes_(bytes.fromhex(clip_id))))
        return {
            self._sources[user] for user in self._user[self._ends[place] : self._ends[place + 1]]
        }

    def clip_ids(self) -> Iterator[list[str]]:
        """Their ids in the order in which they are decoded, AT_ONCE of them at a time."""
        ids = ids_of(self._rows["clip_id"])
        for start in range(0, len(self), AT_ONCE):
            yield hex_of(ids[self._order[start : start + AT_ONCE]]).to_pylist()

    def units(self, left: NDArray[np.bool_]) -> Iterator[tuple[MediaRow, ...]]:
        """Those that are left, in units of work: one kind each, a bounded number of them."""
        rows = self._order[left]
        videos = np.asarray(self._rows["is_video"], np.bool_)[rows]
        for kind, some in (("image", rows[~videos]), ("video", rows[videos])):
            for start in range(0, len(some), per_part(kind)):
                unit = self._rows.take(some[start : start + per_part(kind)]).to_pylist()
                raw = ("clip_id", "media_digest")
                yield tuple(
                    MediaRow.of(row | {name: row[name].hex() for name in raw} | {"kind": kind})
                    for row in unit
                )


def wanted_media(pool: Pool, receipts: Sequence[Receipt]) -> list[MediaRow]:
    """The media that these admissions name, each once, in the order in which they are decoded."""
    wanted = Wanted(pool, {one.work_id: one for one in receipts})
    units = wanted.units(np.ones(len(wanted), np.bool_))
    return [row for unit in units for row in unit]


def _media(pool: Pool, receipts: Sequence[Receipt]) -> Iterator[pa.Table]:
    """Rows of MEDIA with raw ids, and the number of the receipt that they are of."""
    yield _raw(MEDIA.empty_table(), 0)
    for number, one in enumerate(receipts):
        for _, table in pool.tables("index/media", pool.files([one], "index/media")):
            yield _raw(table, number)


def _raw(table: pa.Table, user: int) -> pa.Table:
    return pa.table(
        {
            "clip_id": as_column(ids_of(table["clip_id"])),
            "is_video": pc.equal(table["kind"], "video"),
            "span": table["span"],
            "media_digest": sha256_of(table["media_digest"]),
            # more text than the 2 GB of a plain column
            "address": table["address"].cast(pa.large_string()),
            "user": pa.repeat(pa.scalar(user, pa.int32()), len(table)),
        }
    )


def _joined(tables: list[pa.Table]) -> pa.Table:
    """Tables one behind the other, in one chunk, from which rows are taken without a copy of all.

    Column by column, each let go of where it came from: `tables` is empty then.
    """
    schema = tables[0].schema
    columns = [dict(zip(schema.names, each.columns, strict=True)) for each in tables]
    tables.clear()
    found = {}
    for name in schema.names:
        chunks = [chunk for each in columns for chunk in each.pop(name).chunks]
        found[name] = pa.chunked_array(chunks, schema.field(name).type).combine_chunks()
    return pa.table(found)


def _first(ids: Ids) -> NDArray[np.int64]:
    """Where each distinct id of sorted ones begins."""
    return np.flatnonzero(np.append(True, ids[1:] != ids[:-1])[: len(ids)])


def clip_ids(pool: Pool, receipts: Sequence[Receipt]) -> list[str]:
    """The ids of the media that these admissions name, each once, ascending."""
    return list(hex_of(raw_ids(pool, receipts)).to_pylist())


def raw_ids(pool: Pool, receipts: Sequence[Receipt]) -> Ids:
    """The same as raw ids, 16 bytes each."""
    names = pool.files(receipts, "index/media")
    # a table in memory at a time: addresses are let go
    found = [ids_of(table["clip_id"]) for _, table in pool.tables("index/media", names)]
    ids = np.concatenate([np.empty(0, "V16"), *found])
    ids = ids[sorting(ids)]
    return ids[_first(ids)]


def outcomes(pool: Pool, receipt: Receipt) -> dict[str, str]:
    """Clip id -> the code of its refusal, or "" if it was decoded, under this receipt."""
    codes = dict.fromkeys(receipt.inputs, "")
    if receipt.counts["refused"]:
        # refusals are few: their table is read only where the receipt counts some
        table = pool.table([receipt], "refused", REFUSED)
        codes |= zip(table["key"].to_pylist(), table["code"].to_pylist(), strict=True)
    return codes


def _attempt(parameters: str) -> int:
    # most receipts are of a first attempt, which says nothing of it
    return attempt_of(json.loads(parameters)) if '"attempt"' in parameters else 0


class Known:
    """What became of media before, under receipts of a stage: some 20 bytes a clip.

    Tables of refusals are read when somebody asks for a clip of theirs. `attempts` is how often
    media of the stage were tried at most.
    """

    def __init__(self, pool: Pool, rows: pa.Table) -> None:
        """`rows` of RECEIPTS are those of the stage."""
        attempts = np.array([_attempt(each) for each in rows["parameters"].to_pylist()], np.int64)
        self.attempts = int(attempts.max(initial=-1)) + 1
        # of several receipts that name a clip the latest attempt comes first, and counts
        rows = rows.take(np.argsort(-attempts, kind="stable"))
        ids = ids_of(pc.list_flatten(rows["inputs"]))
        # 16 bytes an id instead of a string: ids sorted once, looked up by binary search
        order = sorting(ids)
        self._ids = ids[order].view("S16")
        self._rows = np.asarray(pc.list_parent_indices(rows["inputs"]), np.int32)[order]
        self._refusals = [
            json.loads(outputs)["refused"][0] if json.loads(counts)["refused"] else ""
            for outputs, counts in zip(
                rows["outputs"].to_pylist(), rows["counts"].to_pylist(), strict=True
            )
        ]
        self._pool = pool
        self._codes: dict[str, dict[str, str]] = {"": {}}

    def outcomes(self, clips: Sequence[str]) -> dict[str, str]:
        """As `outcomes`, of those of these clips that any receipt names."""
        wanted = ids_of(pa.array(clips, pa.string())).view("S16")
        # left and right ends of the range of equal ids; an empty range is unknown
        first, behind = (np.searchsorted(self._ids, wanted, side) for side in ("left", "right"))
        names = [self._refusals[row] for row in self._rows[first[first < behind]]]
        there = [clip for clip, known in zip(clips, first < behind, strict=True) if known]
        self._read(sorted({*names} - self._codes.keys()))
        return {
            clip: self._codes[name].get(clip, "") for clip, name in zip(there, names, strict=True)
        }

    def _read(self, names: Sequence[str]) -> None:
        for name, table in self._pool.tables("refused", names):
            keys, codes = table["key"].to_pylist(), table["code"].to_pylist()
            self._codes[name] = dict(zip(keys, codes, strict=True))


def units(clips: Iterable[MediaRow]) -> Iterator[tuple[MediaRow, ...]]:
    """Media in units of work: one kind each, media of one archive together, a bounded number."""
    # an archive's members lie side by side, so that it is read once and in order
    ordered = sorted(clips, key=lambda row: (row.kind, row.address, row.clip_id))
    for kind, group in groupby(ordered, key=lambda row: row.kind):
        while unit := tuple(islice(group, per_part(kind))):
            yield unit


def per_part(kind: str) -> int:
    """How many media of a kind are decoded together, into one part."""
    return IMAGES_PER_PART if kind == "image" else VIDEOS_PER_PART
