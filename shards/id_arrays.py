"""Ids as columns: 16 raw bytes each, sorted and searched without a Python object per row."""

from __future__ import annotations

import binascii

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

ID = pa.binary(16)
Ids = NDArray[np.void]


def ids_of(column: pa.ChunkedArray | pa.Array) -> Ids:
    """The raw ids of a column of 32-hex strings or of raw ids without nulls."""
    return _raw(column, 16)


def sha256_of(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column of digests in 64 hex as raw bytes."""
    raw = _raw(column, 32)
    data = [None, pa.py_buffer(raw.tobytes())]
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(32), len(raw), data)


def _raw(column: pa.ChunkedArray | pa.Array, nbytes: int) -> Ids:
    # one chunk: buffers are read directly
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    kind = f"V{nbytes}"
    if not len(array):
        return np.empty(0, kind)
    # raw ids: a view of the column's buffer, no copy
    if pa.types.is_fixed_size_binary(array.type):
        return np.frombuffer(array.buffers()[1], kind, len(array), array.offset * nbytes)
    # variable-length strings: offsets of 4 bytes, then the characters of all rows
    offsets = np.frombuffer(array.buffers()[1], np.int32, len(array) + 1, array.offset * 4)
    if (np.diff(offsets) != 2 * nbytes).any():
        raise ValueError(f"an id that is not {2 * nbytes} hex digits")
    raw = memoryview(array.buffers()[2])[int(offsets[0]) : int(offsets[-1])]
    return np.frombuffer(binascii.unhexlify(raw), kind)


def as_column(ids: Ids) -> pa.Array:
    """The inverse of `ids_of`, raw."""
    data = pa.py_buffer(np.ascontiguousarray(ids).tobytes())
    return pa.FixedSizeBinaryArray.from_buffers(ID, len(ids), [None, data])


def hex_of(ids: Ids) -> pa.Array:
    """Ids as a column of 32-hex strings."""
    data = binascii.hexlify(np.ascontiguousarray(ids).tobytes())
    offsets = np.arange(len(ids) + 1, dtype=np.int64) * 32
    return pa.LargeStringArray.from_buffers(
        len(ids), pa.py_buffer(offsets.tobytes()), pa.py_buffer(data)
    )


def halves(ids: Ids) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The first and the last 8 bytes of ids as numbers that sort as the ids do."""
    # big-endian: numbers then sort as bytes do
    both = np.ascontiguousarray(ids).view(">u8").reshape(-1, 2).astype(np.uint64)
    return both[:, 0].copy(), both[:, 1].copy()


def sorting(ids: Ids) -> NDArray[np.int64]:
    """The stable order that sorts ids by their bytes."""
    first, last = halves(ids)
    # numpy cannot sort void types; lexsort of the two halves does the same
    order: NDArray[np.int64] = np.lexsort((last, first))
    return order


def find(ids: Ids, wanted: Ids) -> NDArray[np.int64]:
    """Where each wanted id stands among sorted ids; -1 where it does not."""
    first, last = halves(ids)
    wanted_first, wanted_last = halves(wanted)
    # a binary search on the first halves, then a walk over those that share it
    at = np.searchsorted(first, wanted_first)
    behind = np.arange(len(wanted))
    while len(behind):
        behind = behind[at[behind] < len(ids)]
        here = at[behind]
        behind = behind[(first[here] == wanted_first[behind]) & (last[here] < wanted_last[behind])]
        at[behind] += 1
    inside = np.minimum(at, len(ids) - 1) if len(ids) else np.zeros_like(at)
    is_there = (at < len(ids)) & (ids[inside] == wanted) if len(ids) else np.zeros(len(at), bool)
    return np.where(is_there, at, -1)
