"""Tars, plain or compressed, read as a stream; nothing is extracted.

Headers are walked here, for the standard library takes a damaged header for the end of a tar, and
reads extended headers of any length.
"""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Callable, Iterator

from pipeline.archives.member import (
    MAX_MEMBERS,
    ArchiveProblem,
    Member,
    name_refusal,
    plain_name,
    typed,
)
from pipeline.archives.split_files import Concatenated
from pipeline.untrusted import MAX_RATIO, SLACK

MAX_EXTRA = 1 << 20  # bytes of an extended header
BLOCK = 512
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)


# tar -------------------------------------------------------------------------------


def unpacked_members(file: Concatenated) -> Iterator[Member]:
    """The members of a tar.gz; what unpacks beyond the bound ends it."""
    unpacked = 0
    with gzip.GzipFile(fileobj=file) as stream:

        def read(size: int) -> bytes:
            nonlocal unpacked
            data = stream.read(size)
            unpacked += len(data)
            if unpacked > MAX_RATIO * file.nbytes + SLACK:
                detail = f"{file.name}: more than {MAX_RATIO} times its {file.nbytes} bytes"
                raise ArchiveProblem("ARCHIVE_TOO_BIG", detail)
            return data

        yield from tar_members(file, read, lambda: unpacked, None)
        while read(1 << 20):  # to the end, so that gzip's checksum is compared
            pass


def tar_members(
    file: Concatenated, read: Callable[[int], bytes], tell: Callable[[], int], stop: int | None
) -> Iterator[Member]:
    """Walk the headers from here to the end mark, or to `stop`."""
    seen: set[str] = set()
    count = 0
    while stop is None or tell() < stop:
        header = _header(read, tell)
        if header is None:
            return
        info, refusal = header
        count += 1
        if count > MAX_MEMBERS:
            raise ArchiveProblem("ARCHIVE_TOO_BIG", f"more than {MAX_MEMBERS} members")
        rest = _Rest(read, info.size if info.type not in _EMPTY else 0)

        def piece(size: int, rest: _Rest = rest) -> bytes:
            with typed(file, ArchiveProblem):
                return rest.read(size)

        if info.type != tarfile.DIRTYPE:
            refusal = refusal or _type_refusal(info) or name_refusal(info.name, seen)
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
        self._read, self._left, self._padding = read, nbytes, -nbytes % BLOCK

    def read(self, size: int) -> bytes:
        data = self._read(min(size, self._left))
        self._left -= len(data)
        if not data and self._left and size:
            raise EOFError(f"ends {self._left} bytes before the end of a member")
        return data

    def skip(self) -> None:
        while self._left:
            self.read(1 << 20)
        self._read(self._padding)


def _header(
    read: Callable[[int], bytes], tell: Callable[[], int]
) -> tuple[tarfile.TarInfo, str] | None:
    """The next member's header with its extended headers applied; None at the end mark."""
    extra: dict[str, str] = {}
    refusal = ""
    while True:
        at, block = tell(), _exactly(read, BLOCK)
        if block == bytes(BLOCK):
            if _exactly(read, BLOCK) != bytes(BLOCK):
                raise EOFError(f"a header of zeros at byte {at}, and no end behind it")
            return None
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise EOFError(f"no header at byte {at}: {error}") from error
        if info.size < 0:
            raise EOFError(f"a negative size at byte {at}")
        if info.type not in (b"x", b"g", b"L", b"K"):
            return _extended(info, extra), refusal or _sparse(extra)
        body = _Rest(read, info.size)
        if info.size > MAX_EXTRA:
            refusal = f"an extended header of {info.size} bytes"
        elif info.type == b"x":
            extra |= _pax(_exactly(body.read, info.size))
        elif info.type == b"L":
            name = _exactly(body.read, info.size).rstrip(b"\0")
            extra["path"] = name.decode("utf-8", "surrogateescape")
        body.skip()


def _exactly(read: Callable[[int], bytes], size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = read(size - len(data))
        if not piece:
            raise EOFError(f"ends where {size - len(data)} more bytes should be")
        data += piece
    return data


def _pax(data: bytes) -> dict[str, str]:
    """The records `<length> <key>=<value>\\n` of an extended header."""
    found = {}
    while data.strip(b"\0"):
        length, _, _ = data.partition(b" ")
        if not length.isdigit() or not len(length) < int(length[:9]) <= len(data):
            raise EOFError("a broken extended header")
        record, data = data[len(length) + 1 : int(length) - 1], data[int(length) :]
        key, _, value = record.partition(b"=")
        found[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
    return found


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
        return ""
    kinds = {b"1": "a hard link", b"2": "a symbolic link", b"S": "a sparse file"}
    return kinds.get(info.type, f"neither file nor folder (type {info.type!r})")


def tar_starts(file: Concatenated) -> Iterator[int]:
    """Where each member of a plain tar begins, its extended headers included; only headers read."""
    at = 0
    while True:
        file.seek(at)
        header = _header(file.read, file.tell)
        if header is None:
            return
        yield at
        info, _ = header
        size = info.size if info.type not in _EMPTY else 0
        at = file.tell() + size + -size % BLOCK
