"""Tables sorted by (key, number) and memory-mapped: one copy for all processes of a node.

An entry's id is its 16 key bytes and a number in 2, of its source or of a clip in a sample, so that
a lookup is one binary search and an index costs a process no memory of its own.
"""

from __future__ import annotations

import fcntl
import hashlib
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

from shards.errors import DamagedData, MissingData
from shards.id_arrays import Ids, ids_of
from shards.ids import sha256_file
from shards.index import FRAME_SCORES
from shards.pool import Pool, Receipt
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


# scores of frames, by sample and clip ------------------------------------------------

SAMPLE_FRAME = "sample_frame"
"""What a scorer of such a column gives an integer for."""
SCORES_FOLDER = "scores/frames"
"""Where a pool keeps them."""


class FrameScores:
    """One column: a row for each clip of each sample, `values` for its frames."""

    def __init__(self, table: pa.Table) -> None:
        """`table` is one of `frame_scores_table`."""
        self._index = KeyIndex(table)
        lists = table["values"]
        # a table of no rows has no chunk
        rows = lists.chunk(0) if lists.num_chunks else pa.array([], lists.type)
        # views of the table's own memory, which processes of a node may share
        self.values = numbers_of(rows.values)
        self.ends = numbers_of(rows.offsets)

    def rows(self, ids: EntryIds) -> NDArray[np.int64]:
        """The row of each (sample, number of the clip); -1 where there is none."""
        return self._index.find(ids)

    def at(self, row: int) -> tuple[int, ...]:
        """The scores of a row, one per stored frame."""
        return tuple(self.values[self.ends[row] : self.ends[row + 1]].tolist())

    def of(self, key: str, count: int) -> tuple[tuple[int, ...], ...]:
        """The scores of each of the clips of a sample; MissingData where there are none."""
        rows = self.rows(entry_ids([key] * count, np.arange(count)))
        if (rows < 0).any():
            raise MissingData(f"sample {key}: its frames have no scores")
        return tuple(self.at(row) for row in rows.tolist())

    def digest(self, keys: Ids, clip_counts: NDArray[np.int64]) -> str:
        """sha256 over the scores of samples with these sorted keys, each of so many clips.

        MissingData names the first that has none.
        """
        ids = clip_ids_of(keys, clip_counts)
        rows = self.rows(ids)
        if (rows < 0).any():
            raise MissingData(
                f"{int((rows < 0).sum())} clips of samples have no scores, the first of sample "
                f"{ids[rows < 0][0][:16].ljust(16, bytes(1)).hex()}"
            )
        # lengths, then values: equal digests are equal scores of equal frames
        digest = hashlib.sha256(np.diff(self.ends)[rows].astype("<i8").tobytes())
        for row in rows.tolist():
            digest.update(self.values[self.ends[row] : self.ends[row + 1]].tobytes())
        return digest.hexdigest()


def clip_ids_of(keys: Ids, clip_counts: NDArray[np.int64]) -> EntryIds:
    """The ids of all clips of samples with these keys, each of so many clips, in their order."""
    before = np.cumsum(clip_counts) - clip_counts
    # the number of a clip in its sample: its place less that of the sample's first
    numbers = np.arange(int(clip_counts.sum())) - np.repeat(before, clip_counts)
    return numbered_ids(np.repeat(np.ascontiguousarray(keys), clip_counts), numbers)


def scored_by(pool: Pool, digest: str) -> list[Receipt]:
    """The receipts of the column whose scorer has this digest."""
    return [
        receipt
        for receipt in pool.receipts("score")
        if receipt.parameters["per"] == SAMPLE_FRAME and receipt.parameters["digest"] == digest
    ]


def frame_scores_table(pool: Pool, receipts: list[Receipt]) -> pa.Table:
    """The rows that these receipts name, sorted by (sample, number of the clip), each once."""
    rows = pool.table(receipts, SCORES_FOLDER, FRAME_SCORES).combine_chunks()
    ids = numbered_ids(ids_of(rows["key"]), rows["clip"].to_numpy())
    # of a sample that several sources hold the first row stays
    lists = rows["values"].cast(pa.large_list(pa.int32())).combine_chunks()
    return indexed(ids, {"values": lists})
