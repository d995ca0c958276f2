"""The tables of a plan: their columns, and arrays as `.npy` bytes.

The layout of the bytes is fixed, so equal tables have equal digests.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.errors import DamagedData, MissingData
from shards.ids import sha256_file, sha256_hex
from shards.store import Store

ROW = np.dtype(
    [
        ("key", "V16"),
        ("tokens", "<u4"),
        ("patches", "<u4"),
        ("clips", "<u2"),
        ("frames", "<u4"),
        ("millis", "<u4"),
        ("nbytes", "<u4"),
    ]
)
"""One kept sample: raw key bytes, tokens in all, patches and frames through the tower, clips,
milliseconds of video and bytes of frames that its clips hold."""
MEMBER = np.dtype([("key", "V16"), ("member", "V16")])
"""One conversation of a joined sample: the sample's key, and the conversation's own."""
SHOWN = np.dtype([("clip", "V16"), ("shown", "V16")])
"""A clip that samples name, and the clip that is shown in its place."""
NONE_SHOWN: NDArray[np.void] = np.empty(0, SHOWN)


def npy_bytes(array: NDArray[Any]) -> bytes:
    """The `.npy` bytes of an array."""
    buffer = io.BytesIO()
    # version 1.0 of the format: its header depends on dtype and shape alone
    np.lib.format.write_array(buffer, array, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def open_npy(store: Store, name: str) -> NDArray[Any]:
    """The array in a stored `.npy` file, mapped into memory where the store is a local folder.

    DamagedData unless its bytes are those that `name` (folder/<sha256>.npy) says.
    """
    where = store.path(name)
    digest = name.rsplit("/", 1)[-1].partition(".")[0]
    if not store.exists(name):
        raise MissingData(f"{where}: not there; restore it, or plan again")
    data = b"" if store.is_local else store.get(name)
    if (sha256_file(Path(where)) if store.is_local else sha256_hex(data)) != digest:
        raise DamagedData(f"{where}: its bytes are damaged; restore it, or plan again")
    if store.is_local:
        # mapped, so that processes of one machine share the pages
        mapped: NDArray[Any] = np.lib.format.open_memmap(where, mode="r")
        return mapped
    array: NDArray[Any] = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    return array


def content_id(table: NDArray[np.void]) -> str:
    """The id of a kept set: of the sha256 of its sorted keys the first 32 hex."""
    return sha256_hex(np.ascontiguousarray(table["key"]).tobytes())[:32]


def npy_name(digest: str) -> str:
    """Where a table with this sha256 lies beside a manifest."""
    return f"plan/{digest}.npy"


def tokenizer_name(digest: str) -> str:
    """Where a tokenizer with this sha256 lies beside a manifest."""
    return f"plan/{digest}.json"
