"""The members of a published archive, in the order in which they lie, each read at most once.

tar, tar.gz (whole, or split into parts) and zip. Nothing is extracted, no name reaches the file
system, links and devices are never followed: a member is a name and a bounded stream of bytes, or
the reason why it is refused. Headers are walked here, for the standard library takes a damaged
header for the end of a tar, and reads extended headers of any length.
"""

from __future__ import annotations

import gzip
import io
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath
from typing import IO

from pipeline.concatenated import Concatenated
from pipeline.records import path_problems
from shards.errors import UserError

MAX_MEMBERS = 900_000
MAX_DIRECTORY = 64 << 20  # bytes of a zip's directory, which its reader holds as a whole
MAX_RATIO = 100  # unpacked to packed bytes
SLACK = 10 << 20  # bytes that any archive may unpack to
MAX_EXTRA = 1 << 20  # bytes of an extended header
BLOCK = 512
_ZIP_END = 22  # bytes of the record that ends a zip
_ZIP64_END = 76  # bytes of the two records in front of it where it is large
_KIND = re.compile(r"\.(tar\.gz|tgz|tar|zip)(?:[._-]?part[._-]?\w+|[._][a-z]{2}|[._]\d{2,3})?$")
_VOLUME = re.compile(r"\.z\d\d$")
_NESTED = (".tar", ".gz", ".tgz", ".zip", ".7z", ".rar", ".bz2", ".xz", ".zst")
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)


class ArchiveProblem(Exception):
    """Why an archive cannot be read on: a code of shards.outcome.CODES and what was seen."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)
        self.code, self.detail = code, detail


class MemberProblem(ArchiveProblem):
    """The same of one entry of a zip; those behind it can still be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member: its name and size in bytes, and how to read on in it; or why it is refused."""

    name: str
    nbytes: int = 0
    read: Callable[[int], bytes] = io.BytesIO().read
    refusal: str = ""


def kind_of(name: str) -> str:
    """ "tar", "tar.gz" or "zip" by the name of a file, or of one part of it; UserError if none."""
    lowered = name.lower()
    if _VOLUME.search(lowered):
        raise UserError(
            f"{name}: a part of a multi-volume zip; join it with `zip -s 0 NAME.zip --out ONE.zip`"
        )
    found = _KIND.search(lowered)
    if not found:
        raise UserError(f"{name}: not a .tar, .tar.gz or .zip, nor a part of one")
    return "tar.gz" if found[1] == "tgz" else found[1]


def whole_name(name: str) -> str:
    """The name of the archive that a part belongs to; another name is its own."""
    found = _KIND.search(name.lower())
    return name[: found.end(1)] if found else name


def members(
    file: Concatenated, kind: str, start: int = 0, stop: int | None = None
) -> Iterator[Member]:
    """Every member but folders; with `start` and `stop`, those of a byte range of a tar or zip.

    Raises ArchiveProblem where it cannot be read on; what came before is good.
    """
    with typed(file, ArchiveProblem):
        if kind == "zip":
            yield from zip_members(file, start, stop)
        elif kind == "tar":
            file.seek(start)
            last = stop is None or stop >= file.nbytes  # which must end with an end mark
            yield from tar_members(file, file.read, file.tell, None if last else stop)
        else:
            yield from unpacked_members(file)


@contextmanager
def typed(file: Concatenated, problem: type[ArchiveProblem]) -> Iterator[None]:
    """What the decoders raise over broken bytes, as an ArchiveProblem; faults of the disk stay."""
    try:
        yield
    except (EOFError, OSError, zlib.error, zipfile.BadZipFile, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise problem("ARCHIVE_DAMAGED", f"{file.name}: {error}"[:200]) from error


def ranges(file: Concatenated, kind: str, nbytes: int) -> list[tuple[int, int]]:
    """Byte ranges [start, stop) of about `nbytes`, each beginning at a member; one for a tar.gz.

    Where the archive is damaged, the last range holds the damage.
    """
    cuts = [0]
    if kind == "tar.gz" or file.nbytes <= nbytes:
        return [(0, file.nbytes)]
    with suppress(ArchiveProblem), typed(file, ArchiveProblem):
        for start in zip_starts(file) if kind == "zip" else tar_starts(file):
            if start - cuts[-1] >= nbytes:
                cuts.append(start)
    return list(pairwise([*cuts, file.nbytes]))


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


# names -----------------------------------------------------------------------------


def plain_name(name: str) -> str:
    return str(PurePosixPath(name)) if name else name


def name_refusal(name: str, seen: set[str]) -> str:
    """Why a member of this name is refused; names of plain members are added to `seen`."""
    problem = next(path_problems(name), None)
    if problem is not None:
        return problem.detail
    plain = plain_name(name)
    if plain.lower().endswith(_NESTED):
        return "an archive within the archive"
    if plain in seen:
        return "a second member of this name"
    seen.add(plain)
    return ""
