"""Table A: archives that reach outside, lie about themselves, or unpack without end."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from tests.hostile.images import jpeg

GOOD = jpeg()  # what good members hold
CANARY = Path(tempfile.gettempdir()) / "slowfast-mix-canary"  # what a pickle makes if it is run


def entry(name: str, data: bytes = b"data", kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data) if kind == tarfile.REGTYPE else 0
    return info


def packed(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of a good member, these, and another good one."""
    out = io.BytesIO()
    first, last = entry("first.jpg", GOOD), entry("last.jpg", GOOD)
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for info, data in ((first, GOOD), *members, (last, GOOD)):
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def linked(kind: bytes, target: str) -> bytes:
    info = entry("bad.jpg", kind=kind)
    info.linkname = target
    return packed((info, b""))


def with_header(records: dict[str, str]) -> bytes:
    info = entry("bad.jpg")
    info.pax_headers = records
    return packed((info, b"data"))


def sparse() -> bytes:
    """A member of GNU tar's old sparse type, as `tar -S` writes it for a file with a hole."""
    data = bytearray(packed((entry("bad.jpg"), b"data")))
    at = data.index(b"bad.jpg")
    data[at + 156 : at + 157] = b"S"
    header = data[at : at + 512]
    header[148:156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(header)
    return bytes(data)


def empties(count: int) -> bytes:
    """`count` empty members with names of their own."""
    block = entry("0" * 8, b"").tobuf(tarfile.USTAR_FORMAT)
    out = io.BytesIO()
    for number in range(count):
        name = b"%08d" % number
        checksum = sum(block[:148]) - 8 * 48 + sum(name) + 8 * 32 + sum(block[156:])
        out.write(name + block[8:148] + b"%06o\0 " % checksum + block[156:])
    out.write(bytes(1024))
    return out.getvalue()


REFUSED_MEMBERS: dict[str, Callable[[], bytes]] = {
    "climbing name": lambda: packed((entry("../x.jpg"), b"data")),
    "absolute name": lambda: packed((entry("/etc/x.jpg"), b"data")),
    "symbolic link out": lambda: linked(tarfile.SYMTYPE, "/etc/passwd"),
    "hard link": lambda: linked(tarfile.LNKTYPE, "first.jpg"),
    "device": lambda: linked(tarfile.CHRTYPE, ""),
    "fifo": lambda: linked(tarfile.FIFOTYPE, ""),
    "nested tar": lambda: packed((entry("inner.tar"), b"data")),
    "sparse": sparse,
    "sparse by extended header": lambda: with_header({"GNU.sparse.major": "1"}),
    "extended header of 10 MB": lambda: with_header({"comment": "x" * (10 << 20)}),
    "GNU long name": lambda: packed((entry("x" * 10_000), b"data"), form=tarfile.GNU_FORMAT),
    "control character": lambda: packed((entry("a\nb.jpg"), b"data")),
}


def zipped(entries: dict[str, bytes], mode: int = 0) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = mode << 16
            archive.writestr(info, data)
    return out.getvalue()


def crowded(count: int) -> bytes:
    """A zip64 of `count` empty entries that share their one place."""
    place = struct.pack("<4s5H3L2H", b"PK\3\4", 20, *[0] * 7, 8, 0) + b"00000000"
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, *[0] * 7, 8, *[0] * 6)
    directory = b"".join(entry + b"%08d" % number for number in range(count))
    size, at = len(directory), len(place)
    record = struct.pack("<4sQHHLLQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, at)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, at + size, 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, (1 << 32) - 1, (1 << 32) - 1, 0)
    return place + directory + record + locator + end


def encrypted() -> bytes:
    """A zip whose entry claims to be encrypted."""
    data = bytearray(zipped({"bad.jpg": b"data"}))
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + at] |= 1
    return bytes(data)


def pickled() -> bytes:
    """A member that is a pickle, which makes CANARY when it is loaded."""
    program = f"cposix\nsystem\n(S'touch {CANARY}'\ntR.".encode()
    return packed((entry("bad.pyd", program), program))


LINK_MODE = stat.S_IFLNK | 0o777


def bomb() -> bytes:
    """A tar.gz of 64 MB of zeros: more than 100 to 1."""
    info = entry("bad.jpg", bytes(64 << 20))
    return gzip.compress(packed((info, bytes(64 << 20))))


def bomb_behind_the_end() -> bytes:
    """A small tar.gz whose stream goes on behind the end mark, where no member is."""
    return gzip.compress(packed() + bytes(64 << 20))


_GOOD = {"first.jpg": "kept", "last.jpg": "kept"}
_BAD = _GOOD | {"bad.jpg": "ARCHIVE_MEMBER_REFUSED"}

ARCHIVES: dict[str, tuple[dict[str, str], Callable[[], bytes]]] = {
    name: (_BAD if b"bad.jpg" in make() else _GOOD, make) for name, make in REFUSED_MEMBERS.items()
} | {
    "second of a name": (
        _GOOD | {"first.jpg": "MEDIA_AMBIGUOUS"},
        lambda: packed((entry("first.jpg"), b"other")),
    ),
    "second of a name with the same bytes": (
        _GOOD,
        lambda: packed((entry("first.jpg", GOOD), GOOD)),
    ),
    "not UTF-8": (
        _GOOD,
        lambda: packed((entry("caf\udce9.jpg"), b"data"), form=tarfile.GNU_FORMAT),
    ),
    "bytes behind the end": (
        _GOOD | {"bad.jpg": "ARCHIVE_DAMAGED"},
        lambda: packed() + b"<html>429</html>" * 64,
    ),
    "another tar behind the end": (
        _GOOD | {"bad.jpg": "MEDIA_UNREADABLE"},
        lambda: packed() + packed((entry("bad.jpg"), b"data")),
    ),
    "pickle": (_GOOD | {"bad.pyd": "MEDIA_UNREADABLE"}, pickled),
    "more than 100 to 1": (
        {"first.jpg": "kept", "bad.jpg": "ARCHIVE_TOO_BIG", "last.jpg": "ARCHIVE_TOO_BIG"},
        bomb,
    ),
    "no end behind the end": (_GOOD | {"bad.jpg": "ARCHIVE_TOO_BIG"}, bomb_behind_the_end),
    "cut": (
        {"first.jpg": "kept", "last.jpg": "ARCHIVE_DAMAGED"},
        lambda: packed()[: 1024 + len(GOOD)],
    ),
    "a web page": ({"first.jpg": "ARCHIVE_DAMAGED"}, lambda: b"<html>429</html>" * 64),
    "zip with a climbing name": (
        _GOOD,
        lambda: zipped({"first.jpg": GOOD, "../../evil.jpg": b"data", "last.jpg": GOOD}),
    ),
    "zip of a link": (
        {"bad.jpg": "ARCHIVE_MEMBER_REFUSED"},
        lambda: zipped({"bad.jpg": b"/etc/passwd"}, LINK_MODE),
    ),
    "encrypted zip": ({"bad.jpg": "ARCHIVE_MEMBER_REFUSED"}, encrypted),
    "zip of more than 100 to 1": (
        {"first.jpg": "ARCHIVE_TOO_BIG", "bad.jpg": "ARCHIVE_TOO_BIG"},
        lambda: zipped({"first.jpg": GOOD, "bad.jpg": bytes(64 << 20)}),
    ),
}
"""Each archive, and what must become of records that name these members of it."""
