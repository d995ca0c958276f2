"""Tables sorted by (key, source) and memory-mapped: one copy for all processes of a node.

An entry's id is its 16 key bytes and its source's number in 2, so that a lookup is one binary
search and an index costs a process no memory of its own.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shards.errors import DamagedData
from shards.id_arrays import Ids
from shards.ids import sha256_file
from shards.store import Store, private_folder

EntryIds = NDArray[np.bytes_]
_ID = np.dtype("S18")
NO_SOURCE = 0xFFFF
"""A number that no source has: its ids are not found."""
_DIGEST = ".sha256"
_log = logging.getLogger(__name__)


def entry_ids(keys: Sequence[str], sources: Sequence[int] | NDArray[Any]) -> EntryIds:
    """Ids of keys (32 hex) in the sources with these numbers, S18."""
    return numbered_ids(np.frombuffer(bytes.fromhex("".join(keys)), "V16"), sources)


def numbered_ids(keys: Ids, numbers: Sequence[int] | NDArray[Any]) -> EntryIds:
    """Ids of raw keys, each with a number below 2^16, S18."""
    # fixed width, so that numpy searches it without a Python object per entry
    rows = np.empty((len(keys), _ID.itemsize), np.uint8)
    rows[:, :16] = np.ascontiguousarray(keys).view(np.uint8).reshape(-1, 16)
    # big-endian numbers: entries sort by (key, number)
    rows[:, 16:] = np.asarray(numbers, ">u2").reshape(-1, 1).view(np.uint8)
    return rows.view(_ID).ravel()


def indexed(ids: EntryIds, columns: dict[str, pa.Array]) -> pa.Table:
    """A table of `id` and these columns, sorted by id; of equal ids the first stays."""
    # np.unique sorts and keeps the first of equal ids
    _, first = np.unique(ids, return_index=True)
    id_array = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(_ID.itemsize), len(ids), [None, pa.py_buffer(np.ascontiguousarray(ids))]
    )
    table = pa.table({"id": id_array, **columns})
    # a view of numpy's memory, not a copy
    rows = pa.Array.from_buffers(pa.int64(), len(first), [None, pa.py_buffer(first)])
    return table.take(rows).combine_chunks()


def numbers_of(column: pa.Array) -> NDArray[Any]:
    """An array over the memory of numbers without nulls (`to_numpy` would import pandas: 0.3 s)."""
    dtype = np.dtype(column.type.to_pandas_dtype())
    if not len(column):
        return np.empty(0, dtype)
    return np.frombuffer(column.buffers()[1], dtype, len(column), column.offset * dtype.itemsize)


class KeyIndex:
    """Rows of an `indexed` table by id; columns of numbers as arrays, without a copy."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        ids = table["id"]
        self._ids = (
            np.frombuffer(ids.chunk(0).buffers()[1], _ID, len(ids))
            if len(ids)
            else np.empty(0, _ID)
        )

    def find(self, ids: EntryIds) -> NDArray[np.int64]:
        """The row of each id, -1 where there is none."""
        if not len(self._ids):
            return np.full(len(ids), -1)
        # binary search, clamped: an id behind the last is compared with the last, and differs
        at = np.minimum(self._ids.searchsorted(ids), len(self._ids) - 1)
        return np.where(self._ids[at] == ids, at, -1)

    def numbers(self, name: str) -> NDArray[Any]:
        """A column of numbers as an array over the table's own memory."""
        chunks = self.table[name].chunks
        return numbers_of(chunks[0]) if chunks else np.empty(0, np.int64)

    def row(self, at: int) -> dict[str, Any]:
        """One row as Python values."""
        row: dict[str, Any] = self.table.slice(at, 1).to_pylist()[0]
        return row


def shared(folder: Path | None, name: str, make: Callable[[], pa.Table]) -> pa.Table:
    """The table `name`, memory-mapped from `folder`; the first process that asks makes it.

    `name` is `<what>-<content>`: other contents of the same thing are removed. A file whose bytes
    are not those that were written is made again. Without a folder the table is made in this
    process's own memory.
    """
    if folder is None:
        return make()
    path = folder / f"{name}.arrow"
    # outside the lock: most processes find the table there
    table = _opened(path)
    if table is None:
        with _one_at_a_time(folder):
            table = _opened(path)  # another process may have made it meanwhile
            if table is None:
                # an index of other contents of the same thing: nobody reads it any more
                for old in folder.glob(f"{name.rpartition('-')[0]}-*.*"):
                    old.unlink()
                _write(path, make())
                table = _opened(path)
    if table is None:
        raise DamagedData(f"{path}: not the bytes that were written just now; check this disk")
    return table


def _opened(path: Path) -> pa.Table | None:
    """The table in a file, if its bytes are those whose sha256 lies beside it, and sound."""
    # flock orders the processes of a node, not threads
    try:
        if sha256_file(path).encode() != path.with_suffix(_DIGEST).read_bytes():
            _log.warning("%s: not as it was written; it is made again", path)
            return None
        # memory-mapped: the page cache holds one copy for all processes
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
        table.validate(full=True)
    except FileNotFoundError:
        return None
    except pa.ArrowException as error:
        _log.warning("%s: %s; it is made again", path, error)
        return None
    return table


def _write(path: Path, table: pa.Table) -> None:
    """The table, and beside it the digest of its bytes, last; both are on the disk then."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        # one chunk, so that a column is one buffer
        writer.write_table(table, max_chunksize=max(1, len(table)))
    # the digest of what was written, taken before it can be read by others
    digest = sha256_file(temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    Store(path.parent).put(path.with_suffix(_DIGEST).name, digest.encode())


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    private_folder(folder)
    descriptor = os.open(folder / "lock", os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
