"""Extents: adjacent tar members in a stored file, read by byte range, verified on every read.

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
"""Adjacent ranges are read at once up to about this size, which still fits a core's cache."""
_BLOCK = tarfile.BLOCKSIZE


class ByteRange(NamedTuple):
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
    """Reads byte ranges of a store; threads may share it. At most `OPEN_FILES` files stay open."""

    def __init__(self, store: Store) -> None:
        self.store = store
        # least recently used descriptors are dropped, and close once no reader holds them
        self._open = lru_cache(OPEN_FILES)(lambda file: _Descriptor(store.path(file)))

    def read(self, byte_range: ByteRange) -> bytes:
        """The bytes of a range; DamagedData if they are not those that were written."""
        file, offset, extent, written = byte_range
        data = self.raw(file, offset, extent)
        # the checksum first: only what fails it is looked at closely
        if crc32(data) != written or len(data) != extent:
            self.check(byte_range, data)
        return data

    def read_all(self, byte_ranges: Iterable[ByteRange]) -> Iterator[memoryview]:
        """The bytes of each range as `read` gives them, in order; adjacent ones in one read."""
        # one read for ranges that follow each other: a run of positions in draw order
        for run in _adjacent(byte_ranges):
            file = run[0].file
            first = run[0].offset
            data = memoryview(self.raw(file, first, run[-1].offset + run[-1].extent - first))
            for byte_range in run:
                _, offset, extent, written = byte_range
                piece = data[offset - first : offset - first + extent]
                if crc32(piece) != written or len(piece) != extent:
                    self.check(byte_range, piece)
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

    def check(self, byte_range: ByteRange, data: bytes | memoryview) -> None:
        """Raise DamagedData unless `data` is what was written at `byte_range`."""
        # length before checksum: a cut file is told as cut
        if len(data) != byte_range.extent:
            raise DamagedData(
                f"{self.where(byte_range)}: {len(data)} of {byte_range.extent} bytes are there"
            )
        if crc32(data) != byte_range.crc32:
            raise DamagedData(
                f"{self.where(byte_range)}: {byte_range.extent} bytes are not those that were "
                "written; restore the file"
            )

    def where(self, byte_range: ByteRange) -> str:
        return f"{self.store.path(byte_range.file)} at byte {byte_range.offset}"


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


Fetch = Callable[[ByteRange], bytes]
"""Verified bytes of a range, wherever they come from: `Extents.read`, or a node's cache."""


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


def _adjacent(byte_ranges: Iterable[ByteRange]) -> Iterator[list[ByteRange]]:
    """Runs of ranges that follow one another in one file, of about `JOINED_BYTES` at most."""
    run: list[ByteRange] = []
    file = ""
    end = -1
    for byte_range in byte_ranges:
        # a gap, another file, or enough for one read
        if (
            byte_range.offset != end
            or byte_range.file != file
            or end - run[0].offset >= JOINED_BYTES
        ):
            if run:
                yield run
            run = []
            file = byte_range.file
        run.append(byte_range)
        end = byte_range.offset + byte_range.extent
    if run:
        yield run
