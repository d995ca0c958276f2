"""Zips, read by their directory; nothing is extracted.

Of several zips that were put behind each other zipfile sees the last: the others are found here.
"""

from __future__ import annotations

import io
import stat
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from pipeline.archives.member import (
    MAX_MEMBERS,
    ArchiveProblem,
    Member,
    MemberProblem,
    name_refusal,
    plain_name,
    typed,
)
from pipeline.archives.split_files import Concatenated
from pipeline.untrusted import MAX_RATIO, SLACK

MAX_DIRECTORY = 64 << 20  # bytes of a zip's directory, which its reader holds as a whole
MAX_ZIPS = 1_000  # put behind each other in one file
_ENTRY = b"PK\3\4"  # how an entry begins
_ZIP_END = 22  # bytes of the record that ends a zip
_ZIP64_END = 76  # bytes of the two records in front of it where it is large


# zip -------------------------------------------------------------------------------


class _Head(io.BufferedIOBase):
    """The first `nbytes` of a file, as a file: a zip that others follow."""

    def __init__(self, file: Concatenated, nbytes: int) -> None:
        self._file = file
        self.name = file.name
        self.nbytes = nbytes

    def readable(self) -> bool:
        """As io asks: True."""
        return True

    def seekable(self) -> bool:
        """As io asks: True."""
        return True

    def tell(self) -> int:
        """The position in the file."""
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; the end is that of the head."""
        if whence == io.SEEK_END:
            return self._file.seek(self.nbytes + offset)
        return self._file.seek(offset, whence)

    def read(self, size: int | None = -1) -> bytes:
        """At most `size` bytes up to the end of the head."""
        left = max(0, self.nbytes - self._file.tell())
        return self._file.read(left if size is None or size < 0 else min(size, left))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ends:
    """Where a zip begins, where its directory lies and how long it is, where the zip ends."""

    start: int
    directory: int
    nbytes: int
    stop: int


def _ends(head: _Head) -> _Ends | None:
    """The ends of the last zip in these bytes, found where zipfile looks; None if there is none."""
    # the end record is searched in the last 64 KB: a comment may follow it
    begin = max(0, head.nbytes - _ZIP64_END - _ZIP_END - (1 << 16))
    head.seek(begin)
    tail = head.read()
    at = len(tail) - _ZIP_END
    # without a comment the record is the last 22 bytes
    if tail[max(0, at) : at + 4] != b"PK\5\6" or tail[-2:] != b"\0\0":
        at = tail.rfind(b"PK\5\6", max(0, at - (1 << 16)))
    if at < 0:
        return None
    wide = tail[max(0, at - _ZIP64_END) : at]
    nbytes = tail[at + 12 :]
    offset = tail[at + 16 :]
    # zip64: sizes and offsets of 64 bits stand in two records before it
    if wide[-20:].startswith(b"PK\6\7") and wide.startswith(b"PK\6\6"):
        sizes = [int.from_bytes(wide[i : i + 8], "little") for i in (40, 48)]
        directory = begin + at - _ZIP64_END - sizes[0]
    else:
        sizes = [int.from_bytes(field[:4], "little") for field in (nbytes, offset)]
        directory = begin + at - sizes[0]
    stop = begin + at + _ZIP_END + int.from_bytes(tail[at + 20 : at + 22], "little")
    # where the directory says it begins, against where it lies: the difference is bytes in front of
    # this zip
    start = directory - sizes[1]
    return _Ends(start=start, directory=directory, nbytes=sizes[0], stop=stop)


def _zips(file: Concatenated) -> tuple[list[_Head], str]:
    """The zips that lie behind each other, in order, each with all in front of it; what is wrong
    with the bytes that belong to none of them, or "".
    """
    heads = [_Head(file, file.nbytes)]
    wrong = ""
    # from the last zip to the first: each one's start is the end of the one before
    while len(heads) <= MAX_ZIPS:
        ends = _ends(heads[0])
        if not ends:  # of the last one this is for zipfile to say
            break
        if ends.nbytes > MAX_DIRECTORY:
            detail = f"{file.name}: its directory has {ends.nbytes} bytes, at most {MAX_DIRECTORY}"
            raise ArchiveProblem("ARCHIVE_TOO_BIG", detail)
        if (at := _no_zeros(file, ends.stop, heads[0].nbytes)) is not None:
            wrong = f"{file.name}: bytes behind the end, from byte {at} on, that are no archive"
        before = _Head(file, max(0, ends.start))
        if not _is_zip(before):
            file.seek(0)
            if before.nbytes and file.read(4) == _ENTRY:
                wrong = f"{file.name}: no end of a zip before byte {before.nbytes}"
            return heads, wrong
        heads.insert(0, before)
    if len(heads) > MAX_ZIPS:
        raise ArchiveProblem("ARCHIVE_TOO_BIG", f"{file.name}: more than {MAX_ZIPS} zips")
    return heads, wrong


def _is_zip(head: _Head) -> bool:
    """Whether a zip lies at the end of these bytes; what unpacks itself has other bytes there."""
    ends = _ends(head) if head.nbytes >= _ZIP_END else None
    if ends is None or ends.start < 0 or not ends.nbytes:
        return False
    head.seek(ends.directory)
    return head.read(4) == b"PK\1\2"


def _no_zeros(file: Concatenated, start: int, stop: int) -> int | None:
    """The first byte in [start, stop) that is not zero."""
    file.seek(start)
    while file.tell() < stop:
        at = file.tell()
        data = file.read(min(1 << 20, stop - file.tell()))
        if left := data.lstrip(b"\0"):
            return at + len(data) - len(left)
    return None


def zip_members(file: Concatenated, start: int, stop: int | None) -> Iterator[Member]:
    """The entries in order of their place, after each central directory as a whole was judged."""
    heads, wrong = _zips(file)
    for head in heads:
        with zipfile.ZipFile(head) as archive:
            # in the order of the bytes, so that the file is read forth
            entries = sorted(archive.infolist(), key=lambda info: info.header_offset)
            _check_sizes(file, entries)
            for info in entries:
                inside = start <= info.header_offset < (file.nbytes if stop is None else stop)
                if inside and not info.is_dir():
                    yield _member(file, archive, info)
    if wrong and stop in (None, file.nbytes):
        raise ArchiveProblem("ARCHIVE_DAMAGED", wrong, ended=True)


def _check_sizes(file: Concatenated, entries: Sequence[zipfile.ZipInfo]) -> None:
    if len(entries) > MAX_MEMBERS:
        raise ArchiveProblem("ARCHIVE_TOO_BIG", f"more than {MAX_MEMBERS} members")
    # before anything is unpacked: the directory's own sums
    packed = sum(entry.compress_size for entry in entries)
    unpacked = sum(entry.file_size for entry in entries)
    if packed > file.nbytes or unpacked > MAX_RATIO * packed + SLACK:
        detail = f"{packed} bytes unpack to {unpacked}"
        raise ArchiveProblem("ARCHIVE_TOO_BIG", f"{file.name}: {detail}")


def _member(file: Concatenated, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    refusal = _entry_refusal(info) or name_refusal(info.filename)
    name = plain_name(info.filename)
    if refusal:
        return Member(name=name, refusal=refusal)
    return Member(name=name, nbytes=info.file_size, read=_reader(file, archive, info))


def _reader(
    file: Concatenated, archive: zipfile.ZipFile, info: zipfile.ZipInfo
) -> Callable[[int], bytes]:
    """How to read on in an entry, which is opened at the first call: most are passed over."""
    stream: IO[bytes] | None = None

    def read(size: int) -> bytes:
        """Read on in the entry; broken bytes are a MemberProblem."""
        nonlocal stream
        with typed(file, MemberProblem):
            stream = stream or archive.open(info)
            return stream.read(size)

    return read


def _entry_refusal(info: zipfile.ZipInfo) -> str:
    # Unix mode in the upper half: links and devices are members too
    mode = info.external_attr >> 16
    if mode and not stat.S_ISREG(mode) and stat.S_IFMT(mode):
        return "neither file nor folder"
    if info.flag_bits & 1:
        return "encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"compression {info.compress_type}"
    return ""


def zip_starts(file: Concatenated) -> list[int]:
    """Where each entry begins, of all zips in the file."""
    starts: list[int] = []
    for head in _zips(file)[0]:
        with zipfile.ZipFile(head) as archive:
            starts += (info.header_offset for info in archive.infolist())
    return sorted(starts)
