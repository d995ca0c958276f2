"""The media that the records of one source name and that lie in archives or on the web."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.fetch import local_files
from pipeline.sources import records
from pipeline.sources.records import Columns, Record
from shards.ids import sha256_file
from shards.index import WANTED, table_of
from shards.pool import Pool, Receipt
from shards.receipts import Work

NAMES_VERSION = "3"
_FOLDED = 1 << 16
_NONE = -1
"""Where a medium has no span: it is wanted from its beginning to its end."""
_COLUMNS = pa.schema(
    [
        ("name", pa.string()),
        ("kind", pa.string()),
        ("fps", pa.int32()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("url", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NamesUnit:
    """The annotations of one source, as pinned addresses."""

    pool: str
    format: str
    annotations: tuple[str, ...]
    columns: Columns = ()


def names(unit: NamesUnit) -> Receipt:
    """The distinct media that the records of a source name, in order of their names.

    Files that records name pieces of are listed apart: they are never looked for in archives.
    """
    pool = Pool(unit.pool)
    work = work_of(unit)
    if done := pool.done(work):
        return done
    wanted, pieces = _Distinct(), _Distinct()
    paths = [local_files.local(address).path for address in unit.annotations]
    for item in records(unit.format, paths, unit.columns):
        for ref in item.media if isinstance(item, Record) else ():
            if ref.sizes:
                pieces.append((ref.name, ref.kind, 0, _NONE, _NONE, ""))
            elif ref.data is None:
                # an address stands for itself; a path may be published under several names
                for name in (ref.url,) if ref.url else (ref.name, *ref.also):
                    # distinct by all that makes another clip: name, kind, rate, span
                    start, end = ref.span or (_NONE, _NONE)
                    wanted.append((name, ref.kind, ref.fps or 0, start, end, ref.url))
    return pool.commit(work, {"index/wanted": wanted.table(), "index/pieces": pieces.table()})


def work_of(unit: NamesUnit) -> Work:
    """What names the receipt: the digests of the annotations, and how they are read."""
    files = [local_files.local(address) for address in unit.annotations]
    inputs = [file.digest or sha256_file(file.path) for file in files]
    columns = [[name, list(named)] for name, named in unit.columns]
    return Work("names", NAMES_VERSION, {"format": unit.format, "columns": columns}, inputs)


class _Distinct:
    """Rows of _COLUMNS, each once and in order: columns, not an object for each."""

    def __init__(self) -> None:
        self._rows: list[tuple[str | int, ...]] = []
        self._known = _COLUMNS.empty_table()

    def append(self, row: tuple[str | int, ...]) -> None:
        self._rows.append(row)
        # folded when there are as many new rows as known ones, so that rows are sorted O(log n)
        # times
        if len(self._rows) >= max(_FOLDED, len(self._known) // 8):
            self._fold()

    def _fold(self) -> None:
        fresh = (dict(zip(_COLUMNS.names, row, strict=True)) for row in self._rows)
        table = pa.concat_tables([self._known, table_of(_COLUMNS, fresh)])
        keys = _COLUMNS.names[:-1]
        table = table.sort_by([(name, "ascending") for name in keys]).combine_chunks()
        if len(table):
            columns = [table[name].chunk(0) for name in keys]
            again = functools.reduce(pc.and_, (pc.equal(each[:-1], each[1:]) for each in columns))
            table = table.filter(pa.concat_arrays([pc.invert(again), pa.array([True])]))
        self._known, self._rows = table, []

    def table(self) -> pa.Table:
        """Rows of shards.index.WANTED."""
        self._fold()
        start, end = (self._known[name].combine_chunks() for name in ("start", "end"))
        none = pc.equal(start, _NONE)
        spans = pa.ListArray.from_arrays(
            pa.array(np.arange(0, 2 * len(start) + 1, 2), pa.int32()),
            pa.array(np.stack([start, end], axis=1).ravel()),
        )
        columns = {name: self._known[name] for name in WANTED.names if name != "span"}
        fps = columns["fps"]
        columns["fps"] = pc.if_else(pc.equal(fps, 0), None, fps)
        columns["span"] = pc.if_else(none, None, spans)
        return pa.table([columns[name] for name in WANTED.names], schema=WANTED)
