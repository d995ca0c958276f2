"""Published text, plain or compressed (`.gz`, `.zst`), as bytes whose number is bounded."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pyarrow as pa

from pipeline.untrusted import MAX_RATIO, SLACK
from shards.errors import UserError

COMPRESSED = {".gz": "gzip", ".zst": "zstd"}


def suffix_of(path: Path) -> str:
    """What is in a file, by its name: `.json` of `a.json.zst`."""
    return Path(path.stem).suffix if path.suffix in COMPRESSED else path.suffix


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The text's bytes; UserError where they cannot be unpacked, or unpack beyond the bound."""
    if path.suffix not in COMPRESSED:
        with path.open("rb") as plain:
            yield plain
        return
    with pa.OSFile(str(path)) as packed:
        # arrow's codecs: the standard library has no zstd
        stream = pa.CompressedInputStream(packed, COMPRESSED[path.suffix])
        with io.BufferedReader(_Unpacked(path, stream), 1 << 20) as file:
            yield file


class _Unpacked(io.RawIOBase):
    """What a compressed file unpacks to, up to the bound of archives."""

    def __init__(self, path: Path, stream: pa.CompressedInputStream) -> None:
        self._path = path
        self._stream = stream
        self._left = MAX_RATIO * path.stat().st_size + SLACK

    def readable(self) -> bool:
        """As io asks: True."""
        return True

    def readinto(self, room: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill the buffer with unpacked bytes; 0 at the end."""
        try:
            data = self._stream.read(len(room))
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{self._path}: cannot be unpacked: {error}; fetch it again") from error
        # a decompression bomb ends at the bound, not when memory does
        self._left -= len(data)
        if self._left < 0:
            raise UserError(
                f"{self._path}: unpacks to more than {MAX_RATIO} times its bytes; it is damaged or "
                "hostile, fetch it from its publisher"
            )
        room[: len(data)] = data
        return len(data)
