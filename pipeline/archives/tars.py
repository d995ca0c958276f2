"""Tars, plain or compressed, read as a stream; nothing is extracted.

Headers are walked here, for the standard library takes a damaged header for the end of a tar, and
reads extended headers of any length. An end mark ends one tar, not the file: tars that were put
behind each other (`cat a.tar b.tar`, or parts that are each whole) are read to the end of the last.
"""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.archives.member import (
    MAX_MEMBERS,
    ArchiveProblem,
    BehindEndError,
    Member,
    name_refusal,
    plain_name,
    typed,
)
from pipeline.archives.split_files import Concatenated
from pipeline.untrusted import MAX_RATIO, SLACK

MAX_EXTRA = 1 << 20  # bytes of an extended header
BLOCK = 512
_GZIP = b"\x1f\x8b"  # how a stream begins
_PACKED = 1 << 17  # packed bytes that are unpacked at a time
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)


# tar -------------------------------------------------------------------------------


def unpacked_members(file: Concatenated) -> Iterator[Member]:
    """The members of a tar.gz; what unpacks beyond the bound ends it."""
    unpacked = 0
    with io.BufferedReader(_Gunzip(file), _PACKED) as stream:

        def read(size: int) -> bytes:
            """Unpacked bytes, counted against the bound."""
            nonlocal unpacked
            # decompression bomb: the bound holds at every read, not once at the end
            data = stream.read(size)
            unpacked += len(data)
            if unpacked > MAX_RATIO * file.nbytes + SLACK:
                detail = f"{file.name}: more than {MAX_RATIO} times its {file.nbytes} bytes"
                raise ArchiveProblem("ARCHIVE_TOO_BIG", detail)
            return data

        yield from tar_members(file, read, lambda: unpacked, None)


class _Gunzip(io.RawIOBase):
    """The bytes that were packed by gzip, of one stream after the other, checksums compared.

    The standard library's reader says neither where damage is nor that zeros may lie between.
    """

    def __init__(self, file: Concatenated) -> None:
        self._file = file
        self._packed = b""
        self._stream = zlib.decompressobj(wbits=31)

    def readable(self) -> bool:
        """As io asks: True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with unpacked bytes; 0 at the end of the last stream."""
        data = b""
        # until there are bytes or the file ends: a stream may begin with empty blocks
        while not data:
            if self._stream.eof and not self._next():
                return 0
            # what the last call left undecoded comes first
            packed = self._packed or self._file.read(_PACKED)
            data = self._unpack(packed, len(buffer))
            if not packed and not data and not self._stream.eof:
                raise EOFError(f"ends at byte {self._file.tell()}, within packed bytes")
        buffer[: len(data)] = data
        return len(data)

    def _unpack(self, packed: bytes, size: int) -> bytes:
        try:
            data = self._stream.decompress(packed, size)
        except zlib.error as error:
            at = self._file.tell() - len(packed)
            raise EOFError(f"damaged behind byte {at}: {error}") from error
        self._packed = self._stream.unconsumed_tail or self._stream.unused_data
        return data

    def _next(self) -> bool:
        """Begin the stream behind the one that ended, and behind zeros; False if there is none."""
        # zeros between streams are padding of a tape or of a block device
        while not (packed := self._packed.lstrip(b"\0")):
            self._packed = self._file.read(_PACKED)
            if not self._packed:
                return False
        at = self._file.tell() - len(packed)
        # the magic is two bytes long, of which one may lie behind the buffer's end
        packed += b"" if len(packed) > 1 else self._file.read(1)
        if not packed.startswith(_GZIP):
            raise BehindEndError(f"bytes behind the end, from byte {at} on, that are no archive")
        self._packed = packed
        self._stream = zlib.decompressobj(wbits=31)
        return True


def tar_members(
    file: Concatenated, read: Callable[[int], bytes], tell: Callable[[], int], stop: int | None
) -> Iterator[Member]:
    """Walk the headers from here to the end of the file, or to `stop`."""
    count = 0
    # ustar: 512-byte headers, bodies padded to blocks, extended headers before the one they
    # describe
    while header := _header(read, tell, stop):
        info = header.info
        count += 1
        if count > MAX_MEMBERS:
            raise ArchiveProblem("ARCHIVE_TOO_BIG", f"more than {MAX_MEMBERS} members")
        # whatever the reader leaves of a member is skipped: headers are found by counting bytes
        rest = _Rest(read, header.nbytes)

        def piece(size: int, rest: _Rest = rest) -> bytes:
            """Read on in this member; broken bytes are an ArchiveProblem."""
            with typed(file, ArchiveProblem):
                return rest.read(size)

        if info.type != tarfile.DIRTYPE:
            refusal = header.refusal or _type_refusal(info) or name_refusal(info.name)
            yield Member(name=plain_name(info.name), nbytes=info.size, read=piece, refusal=refusal)
        rest.skip()


_EMPTY = (
    tarfile.DIRTYPE,
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.FIFOTYPE,
)


class _Rest:
    """What is left of one member, whose padding is skipped at its end."""

    def __init__(self, read: Callable[[int], bytes], nbytes: int) -> None:
        self._read = read
        self._left = nbytes
        self._padding = -nbytes % BLOCK

    def read(self, size: int) -> bytes:
        """At most `size` bytes of the member; EOFError where it ends early."""
        data = self._read(min(size, self._left))
        self._left -= len(data)
        if not data and self._left and size:
            raise EOFError(f"ends {self._left} bytes before the end of a member")
        return data

    def skip(self) -> None:
        """Pass over the rest, and its padding."""
        while self._left:
            self.read(1 << 20)
        self._read(self._padding)


@dataclass(frozen=True, slots=True)
class _Header:
    """A member's header: where it begins, its extended headers included, and why it is refused."""

    at: int
    info: tarfile.TarInfo
    refusal: str

    @property
    def nbytes(self) -> int:
        """Bytes of the member behind its header, without what pads them."""
        return 0 if self.info.type in _EMPTY else self.info.size


def _header(
    read: Callable[[int], bytes], tell: Callable[[], int], stop: int | None
) -> _Header | None:
    """The next member's header with its extended headers applied; None at the end or at `stop`.

    An end mark is passed over, with all zeros behind it: another tar may follow.
    """
    extra: dict[str, str] = {}
    refusal = ""
    # a range ends where the next one's first header begins
    if stop is not None and tell() >= stop:
        return None
    at = tell()
    block = _exactly(read, BLOCK)
    behind = False
    # an end mark is two blocks of zeros
    if block == bytes(BLOCK):
        if _exactly(read, BLOCK) != bytes(BLOCK):
            raise EOFError(f"a header of zeros at byte {at}, and no end behind it")
        at, block, behind = *_behind_mark(read, tell, stop), True
        if not block:
            return None
    start = at
    while True:
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            if behind:
                raise BehindEndError(f"bytes behind the end mark, from byte {at} on") from error
            raise EOFError(f"no header at byte {at}: {error}") from error
        if info.size < 0:
            raise EOFError(f"a negative size at byte {at}")
        # pax (x, g) and GNU (L, K) headers speak of the member behind them; K, a link's target, is
        # not needed
        if info.type not in (b"x", b"g", b"L", b"K"):
            return _Header(start, _extended(info, extra), refusal or _sparse(extra))
        body = _Rest(read, info.size)
        if info.size > MAX_EXTRA:
            refusal = f"an extended header of {info.size} bytes"
        elif info.type == b"x":
            extra |= _pax(_exactly(body.read, info.size))
        elif info.type == b"L":
            name = _exactly(body.read, info.size).rstrip(b"\0")
            extra["path"] = name.decode("utf-8", "surrogateescape")
        body.skip()
        at = tell()
        block = _exactly(read, BLOCK)
        behind = False


def _behind_mark(
    read: Callable[[int], bytes], tell: Callable[[], int], stop: int | None
) -> tuple[int, bytes]:
    """Place and bytes of the first block behind zeros; b"" at the end of the file or at `stop`."""
    while stop is None or tell() < stop:
        at = tell()
        block = _upto(read, BLOCK)
        if block.strip(b"\0"):
            if len(block) < BLOCK:
                raise BehindEndError(f"bytes behind the end mark, from byte {at} on")
            return at, block
        if len(block) < BLOCK:
            break
    return tell(), b""


def _exactly(read: Callable[[int], bytes], size: int) -> bytes:
    data = _upto(read, size)
    if len(data) < size:
        raise EOFError(f"ends where {size - len(data)} more bytes should be")
    return data


def _upto(read: Callable[[int], bytes], size: int) -> bytes:
    """As many bytes, or fewer at the end of the file."""
    data = b""
    while len(data) < size and (piece := read(size - len(data))):
        data += piece
    return data


def _pax(data: bytes) -> dict[str, str]:
    """The records `<length> <key>=<value>\\n` of an extended header."""
    # the length counts the whole record, its own digits included
    records = {}
    while data.strip(b"\0"):
        length, _, _ = data.partition(b" ")
        if not length.isdigit() or not len(length) < int(length[:9]) <= len(data):
            raise EOFError("a broken extended header")
        record = data[len(length) + 1 : int(length) - 1]
        data = data[int(length) :]
        key, _, value = record.partition(b"=")
        records[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
    return records


def _extended(info: tarfile.TarInfo, extra: dict[str, str]) -> tarfile.TarInfo:
    info.name = extra.get("path", info.name)
    size = extra.get("size", "")
    if size:
        if not size.isascii() or not size.isdigit() or len(size) > 18:
            raise EOFError("a broken size in an extended header")
        info.size = int(size)
    return info


def _sparse(extra: dict[str, str]) -> str:
    return "a sparse file" if any(key.startswith("GNU.sparse") for key in extra) else ""


def _type_refusal(info: tarfile.TarInfo) -> str:
    if info.type in _PLAIN:
        # hard and symbolic links and devices are never followed
        return ""
    kinds = {b"1": "a hard link", b"2": "a symbolic link", b"S": "a sparse file"}
    return kinds.get(info.type, f"neither file nor folder (type {info.type!r})")


def tar_starts(file: Concatenated) -> Iterator[int]:
    """Where each member of a plain tar begins, its extended headers included; only headers read."""
    file.seek(0)
    while header := _header(file.read, file.tell, None):
        yield header.at
        # bodies are passed over: this reads 512 bytes a member
        file.seek(file.tell() + header.nbytes + -header.nbytes % BLOCK)
