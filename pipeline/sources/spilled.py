"""Rows of one table, more than memory may hold: on disk until they are read in order."""

from __future__ import annotations

import errno
import functools
import itertools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from shards.errors import UserError
from shards.index import table_of

IN_MEMORY = 1 << 14
"""Rows that wait before they are written down."""
TABLE = 1 << 16
"""Rows from which on a table is read on in another one."""
_BUCKETS = 256


class SpilledRows:
    """Rows that come in any order and leave as tables, in the order of `keys`, each key once.

    The first of the keys is a hash in hex: rows are put into buckets by its first byte, and one
    bucket is sorted at a time (a bucket sort). Without keys they leave in the order they came in.
    Which rows stand in which table depends on the rows alone.
    """

    def __init__(self, schema: pa.Schema, keys: Sequence[str] = ()) -> None:
        self._schema, self._keys = schema, tuple(keys)
        self._rows: list[Mapping[str, Any]] = []
        # unlinked: gone with the process, however that ends
        self._file = tempfile.TemporaryFile()
        self._places: list[list[tuple[int, int]]] = [[] for _ in range(_BUCKETS if keys else 1)]

    def __enter__(self) -> SpilledRows:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def append(self, row: Mapping[str, Any]) -> None:
        self._rows.append(row)
        if len(self._rows) >= IN_MEMORY:
            self._spill()

    def tables(self) -> Iterator[pa.Table]:
        """All rows, at least one table; what was read is not kept."""
        waiting: list[pa.Table] = [self._schema.empty_table()]
        for bucket in self._buckets():
            waiting.append(bucket)
            if sum(map(len, waiting)) >= TABLE:
                yield pa.concat_tables(waiting).combine_chunks()
                waiting = []
        if waiting:
            yield pa.concat_tables(waiting).combine_chunks()

    def _buckets(self) -> Iterator[pa.Table]:
        """The rows of each bucket, sorted; in one piece where all are in memory still."""
        if not any(self._places):
            yield self._sorted(table_of(self._schema, self._rows))
            return
        self._spill()
        for places in self._places:
            pieces = map(self._read, places)
            if not self._keys:
                yield from pieces
            elif places:
                yield self._sorted(pa.concat_tables(pieces))

    def _sorted(self, table: pa.Table) -> pa.Table:
        if not self._keys or not len(table):
            return table
        table = table.sort_by([(name, "ascending") for name in self._keys])
        # equal keys lie beside each other: the last of them stays
        columns = [table[name].combine_chunks() for name in self._keys]
        again = functools.reduce(pc.and_, (pc.equal(each[:-1], each[1:]) for each in columns))
        return table.filter(pa.concat_arrays([pc.invert(again), pa.array([True])]))

    def _spill(self) -> None:
        """Write down the rows that wait, each into its bucket."""
        rows = sorted(self._rows, key=self._bucket) if self._keys else self._rows
        for bucket, group in itertools.groupby(rows, self._bucket):
            data = _packed(table_of(self._schema, group))
            self._places[bucket].append((self._file.tell(), len(data)))
            try:
                self._file.write(data)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                where = tempfile.gettempdir()
                raise UserError(f"{where}: the disk is full; set TMPDIR elsewhere") from error
        self._rows = []

    def _bucket(self, row: Mapping[str, Any]) -> int:
        return int(row[self._keys[0]][:2], 16) if self._keys else 0

    def _read(self, extent: tuple[int, int]) -> pa.Table:
        end = self._file.tell()
        self._file.seek(extent[0])
        table = pa.ipc.open_stream(self._file.read(extent[1])).read_all()
        self._file.seek(end)
        return table


def _packed(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data
