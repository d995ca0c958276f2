"""Extents: adjacent tar members inside a stored file, read by place and verified on every read.

The same members give the same bytes, always.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from isal.isal_zlib import crc32

from shards.errors import DamagedData, MissingData
from shards.store import Store

OPEN_FILES = 64
JOINED_BYTES = 256 << 10
"""Adjacent places are read at once up to about this size, which still fits a core's cache."""
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
        # the attribute first: __del__ runs also where opening fails
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)


class Extents:
    """Reads places of a store; threads may share it. At most `OPEN_FILES` files stay open."""

    def __init__(self, store: Store) -> None:
        self.store = store
        # least recently used descriptors are dropped, and close once no reader holds them
        self._open = lru_cache(OPEN_FILES)(lambda file: _Descriptor(store.path(file)))

    def read(self, place: Place) -> bytes:
        """The bytes of a place; DamagedData if they are not those that were written."""
        file, offset, extent, written = place
        data = self.raw(file, offset, extent)
        # the checksum first: only what fails it is looked at closely
        if crc32(data) != written or len(data) != extent:
            self.check(place, data)
        return data

    def read_all(self, places: Iterable[Place]) -> Iterator[memoryview]:
        """The bytes of each place as `read` gives them, in order; adjacent ones in one read."""
        # one read for places that follow each other: a run of positions in draw order
        for run in _adjacent(places):
            file = run[0].file
            first = run[0].offset
            data = memoryview(self.raw(file, first, run[-1].offset + run[-1].extent - first))
            for place in run:
                _, offset, extent, written = place
                piece = data[offset - first : offset - first + extent]
                if crc32(piece) != written or len(piece) != extent:
                    self.check(place, piece)
                yield piece

    def raw(self, file: str, offset: int, nbytes: int) -> bytes:
        """Unverified bytes: one `pread`, or one ranged request; short at the end of the file."""
        if not self.store.is_local:
            return self.store.get(file, offset, nbytes)
        # pread moves no file offset, so that threads share the descriptor
        try:
            held = self._open(file)  # the name keeps it open while it is read
            return os.pread(held.number, nbytes, offset)
        except FileNotFoundError as error:
            raise MissingData(
                f"{self.store.path(file)}: not there; restore it, or build again what it is part of"
            ) from error

    def check(self, place: Place, data: bytes | memoryview) -> None:
        """Raise DamagedData unless `data` is what was written at `place`."""
        # length before checksum: a cut file is told as cut
        if len(data) != place.extent:
            raise DamagedData(f"{self.where(place)}: {len(data)} of {place.extent} bytes are there")
        if crc32(data) != place.crc32:
            raise DamagedData(
                f"{self.where(place)}: {place.extent} bytes are not those that were written; "
                "restore the file"
            )

    def where(self, place: Place) -> str:
        return f"{self.store.path(place.file)} at byte {place.offset}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """The bytes of one group of adjacent members: headers, payloads and padding."""

    offset: int
    extent: int
    crc32: int


def tar_bytes(groups: Iterable[Sequence[tuple[str, bytes]]]) -> tuple[bytes, list[Extent]]:
    """A USTAR archive of the groups' members in order, and the extent of each group.

    Times, owners and modes are fixed, so bytes depend on names and payloads only.
    """
    buffer = io.BytesIO()
    extents = []
    # USTAR: no extended headers, whose times and ids would differ from run to run
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for group in groups:
            start = buffer.tell()
            for name, payload in group:
                tar.addfile(_member(name, len(payload)), io.BytesIO(payload))
            extents.append((start, buffer.tell()))
    # crc32 over headers, payloads and padding: all that a reader fetches
    data = buffer.getvalue()
    return data, [
        Extent(offset=start, extent=end - start, crc32=crc32(data[start:end]))
        for start, end in extents
    ]


def _member(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mtime = 0
    info.mode = 0o644
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info


Fetch = Callable[[Place], bytes]
"""Verified bytes of a place, wherever they come from: `Extents.read`, or a node's cache."""


def pair(extent: bytes | memoryview, where: str) -> tuple[memoryview, memoryview]:
    """The `.json` and the `.mjpeg` member of a verified extent, not copied.

    DamagedData unless they are all there is. Header checksums are not looked at again: the crc32 of
    the extent covers them.
    """
    view = memoryview(extent)
    try:
        # ustar: the size field, octal, at byte 124 of a header
        described = int(bytes(view[124:135]), 8)
        # payloads are padded to whole blocks
        second = _BLOCK + (described + _BLOCK - 1 & -_BLOCK)
        start = second + _BLOCK
        end = start + int(bytes(view[second + 124 : second + 135]), 8)
    except ValueError as error:
        raise DamagedData(f"{where}: no tar headers ({error}); pack it again") from error
    if (end + _BLOCK - 1 & -_BLOCK) != len(view):
        raise DamagedData(f"{where}: not one .json and one .mjpeg member; pack it again")
    return view[_BLOCK : _BLOCK + described], view[start:end]


def _adjacent(places: Iterable[Place]) -> Iterator[list[Place]]:
    """Runs of places that follow one another in one file, of about `JOINED_BYTES` at most."""
    run: list[Place] = []
    file = ""
    end = -1
    for place in places:
        # a gap, another file, or enough for one read
        if place.offset != end or place.file != file or end - run[0].offset >= JOINED_BYTES:
            if run:
                yield run
            run = []
            file = place.file
        run.append(place)
        end = place.offset + place.extent
    if run:
        yield run
