"""The tables of a plan as `.npy` bytes: a fixed layout, so equal tables have equal digests."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.errors import DamagedData
from shards.ids import sha256_hex

ROW = np.dtype(
    [("key", "V16"), ("tokens", "<u4"), ("patches", "<u4"), ("clips", "<u2"), ("frames", "<u4")]
)
"""One kept sample: raw key bytes, tokens in all, patches through the tower, clips, frames."""


def npy_bytes(array: NDArray[Any]) -> bytes:
    """The `.npy` bytes of an array."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def read_npy(data: bytes) -> NDArray[Any]:
    """The array in `.npy` bytes; DamagedData if they are none."""
    try:
        array: NDArray[Any] = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except ValueError as error:
        raise DamagedData(f"a table of the plan is damaged ({error}); plan again") from error
    return array


def kept_table(rows: Sequence[tuple[str, int, int, int, int]]) -> NDArray[np.void]:
    """Rows of ROW from (key, tokens, patches, clips, frames), sorted by key."""
    return np.array([(bytes.fromhex(row[0]), *row[1:]) for row in sorted(rows)], ROW)


def content_id(table: NDArray[np.void]) -> str:
    """The id of a kept set: H over its sorted keys; what keys the order of a source."""
    return sha256_hex(np.ascontiguousarray(table["key"]).tobytes())[:32]


def npy_name(digest: str) -> str:
    return f"plan/{digest}.npy"


def tokenizer_name(digest: str) -> str:
    return f"plan/{digest}.json"
