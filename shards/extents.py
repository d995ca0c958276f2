"""Extents: adjacent tar members inside a stored file, read by place and verified on every read."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from isal.isal_zlib import crc32

from shards.errors import DamagedData, MissingData
from shards.store import Store

OPEN_FILES = 64
_BLOCK = tarfile.BLOCKSIZE


class Place(NamedTuple):
    """`extent` bytes of `file` from `offset` on, and the crc32 that they had when written."""

    file: str
    offset: int
    extent: int
    crc32: int


class _Descriptor:
    """An open file; closed when nobody holds it, so never under another thread's read."""

    def __init__(self, path: str) -> None:
        self.number = -1
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)


class Extents:
    """Reads places of a store; threads may share it. At most `OPEN_FILES` files stay open."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._open = lru_cache(OPEN_FILES)(lambda file: _Descriptor(store.path(file)))

    def read(self, place: Place) -> bytes:
        """The bytes of a place; DamagedData if they are not those that were written."""
        file, offset, extent, written = place
        data = self.raw(file, offset, extent)
        if crc32(data) != written or len(data) != extent:
            self.check(place, data)
        return data

    def raw(self, file: str, offset: int, nbytes: int) -> bytes:
        """Unverified bytes: one `pread`, or one ranged request; short at the end of the file."""
        if not self.store.is_local:
            return self.store.get(file, offset, nbytes)
        try:
            held = self._open(file)  # the name keeps it open while it is read
            return os.pread(held.number, nbytes, offset)
        except FileNotFoundError as error:
            raise MissingData(f"{self.store.path(file)}: not there") from error

    def check(self, place: Place, data: bytes | memoryview) -> None:
        """Raise DamagedData unless `data` is what was written at `place`."""
        if len(data) != place.extent:
            raise DamagedData(f"{self.where(place)}: {len(data)} of {place.extent} bytes are there")
        if crc32(data) != place.crc32:
            raise DamagedData(
                f"{self.where(place)}: {place.extent} bytes are not those that were written; "
                "restore the file"
            )

    def where(self, place: Place) -> str:
        return f"{self.store.path(place.file)} at byte {place.offset}"


Fetch = Callable[[Place], bytes]
"""Verified bytes of a place, wherever they come from: `Extents.read`, or a node's cache."""


def pair(extent: bytes, where: str) -> tuple[memoryview, memoryview]:
    """The `.json` and the `.mjpeg` member of a verified extent, not copied.

    DamagedData unless they are all there is. Header checksums are not looked at again: the crc32 of
    the extent covers them.
    """
    try:
        described = int(extent[124:135], 8)
        second = _BLOCK + (described + _BLOCK - 1 & -_BLOCK)
        frames = int(extent[second + 124 : second + 135], 8)
    except ValueError as error:
        raise DamagedData(f"{where}: no tar headers ({error}); pack it again") from error
    start = second + _BLOCK
    if start + (frames + _BLOCK - 1 & -_BLOCK) != len(extent):
        raise DamagedData(f"{where}: not one .json and one .mjpeg member; pack it again")
    view = memoryview(extent)
    return view[_BLOCK : _BLOCK + described], view[start : start + frames]
