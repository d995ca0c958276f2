"""Zips, read by their directory; nothing is extracted."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Callable, Iterator
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
_ZIP_END = 22  # bytes of the record that ends a zip
_ZIP64_END = 76  # bytes of the two records in front of it where it is large


# zip -------------------------------------------------------------------------------


def _directory_nbytes(file: Concatenated) -> int:
    """Bytes of the central directory, found where zipfile looks; 0 where there is none."""
    file.seek(max(0, file.nbytes - _ZIP64_END - _ZIP_END - (1 << 16)))
    tail = file.read()
    at = len(tail) - _ZIP_END
    if tail[max(0, at) : at + 4] != b"PK\5\6" or tail[-2:] != b"\0\0":
        at = tail.rfind(b"PK\5\6", max(0, at - (1 << 16)))
    if at < 0:
        return 0
    wide = tail[max(0, at - _ZIP64_END) : at]
    if wide[-20:].startswith(b"PK\6\7") and wide.startswith(b"PK\6\6"):
        return int.from_bytes(wide[40:48], "little")
    return int.from_bytes(tail[at + 12 : at + 16], "little")


def _opened(file: Concatenated) -> zipfile.ZipFile:
    nbytes = _directory_nbytes(file)
    if nbytes > MAX_DIRECTORY:
        detail = f"{file.name}: its directory has {nbytes} bytes, at most {MAX_DIRECTORY}"
        raise ArchiveProblem("ARCHIVE_TOO_BIG", detail)
    return zipfile.ZipFile(file)


def zip_members(file: Concatenated, start: int, stop: int | None) -> Iterator[Member]:
    """The entries in order of their place, after the central directory as a whole was judged."""
    with _opened(file) as archive:
        entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
        if len(entries) > MAX_MEMBERS:
            raise ArchiveProblem("ARCHIVE_TOO_BIG", f"more than {MAX_MEMBERS} members")
        packed = sum(entry.compress_size for entry in entries)
        unpacked = sum(entry.file_size for entry in entries)
        if packed > file.nbytes or unpacked > MAX_RATIO * packed + SLACK:
            detail = f"{packed} bytes unpack to {unpacked}"
            raise ArchiveProblem("ARCHIVE_TOO_BIG", f"{file.name}: {detail}")
        seen: set[str] = set()
        for entry in entries:
            inside = start <= entry.header_offset and (stop is None or entry.header_offset < stop)
            if not inside or entry.is_dir():
                continue
            refusal = _entry_refusal(entry) or name_refusal(entry.filename, seen)
            name = plain_name(entry.filename)
            if refusal:
                yield Member(name=name, refusal=refusal)
                continue
            yield Member(name=name, nbytes=entry.file_size, read=_reader(file, archive, entry))


def _reader(
    file: Concatenated, archive: zipfile.ZipFile, entry: zipfile.ZipInfo
) -> Callable[[int], bytes]:
    """How to read on in an entry, which is opened at the first call: most are passed over."""
    stream: IO[bytes] | None = None

    def read(size: int) -> bytes:
        nonlocal stream
        with typed(file, MemberProblem):
            stream = stream or archive.open(entry)
            return stream.read(size)

    return read


def _entry_refusal(entry: zipfile.ZipInfo) -> str:
    mode = entry.external_attr >> 16
    if mode and not stat.S_ISREG(mode) and stat.S_IFMT(mode):
        return "neither file nor folder"
    if entry.flag_bits & 1:
        return "encrypted"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"compression {entry.compress_type}"
    return ""


def zip_starts(file: Concatenated) -> list[int]:
    with _opened(file) as archive:
        return sorted(entry.header_offset for entry in archive.infolist())
