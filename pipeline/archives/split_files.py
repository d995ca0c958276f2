"""Files that were split for publishing, read as the one file that they are parts of."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from pipeline.names import printable

_PIECE = 1 << 20


class Concatenated(io.BufferedIOBase):
    """A readable, seekable file out of parts; counts what it read, and hashes it on request.

    The sha256 is that of the bytes in order from the first on; it stands for the file only when
    all of it was read without seeking (`digest`).
    """

    def __init__(self, paths: Sequence[Path], *, hashed: bool = False) -> None:
        self.name = printable(paths[0].name)
        self._files = [path.open("rb") for path in paths]
        sizes = [path.stat().st_size for path in paths]
        # prefix sums: part i holds the bytes up to ends[i]
        self._ends = list(accumulate(sizes))
        self.nbytes = self._ends[-1]
        self.bytes_read = 0
        self._at = 0
        self._hash = hashlib.sha256() if hashed else None

    def readable(self) -> bool:
        """As io asks: True."""
        return True

    def seekable(self) -> bool:
        """As io asks: True."""
        return True

    def tell(self) -> int:
        """The position in all parts together."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move in all parts together; a seek gives up the running hash."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.nbytes}[whence]
        if base + offset < 0:
            raise OSError("seek before the start")
        # after a seek, bytes in order are no longer those of the file
        if base + offset != self._at:
            self._hash = None
        self._at = base + offset
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """At most `size` bytes, across parts; EOFError where a part is shorter than it was."""
        left = self.nbytes - self._at if size is None or size < 0 else size
        pieces = []
        while left > 0 and self._at < self.nbytes:
            piece = self._piece(left)
            if not piece:
                # a part that shrinks while it is read would end the file early
                raise EOFError(f"{self.name}: a part lost bytes while it was read")
            pieces.append(piece)
            left -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _piece(self, size: int) -> bytes:
        """At most `size` bytes from the part in which the position lies."""
        number = next(i for i, end in enumerate(self._ends) if self._at < end)
        begin = self._ends[number - 1] if number else 0
        file = self._files[number]
        if file.tell() != self._at - begin:
            file.seek(self._at - begin)
        piece = file.read(min(size, self._ends[number] - self._at))
        self._at += len(piece)
        self.bytes_read += len(piece)
        if self._hash is not None:
            self._hash.update(piece)
        return piece

    def digest(self, span: tuple[int, int] | None = None) -> str:
        """sha256 of the whole, reading on to its end, or from its start if it was sought in.

        With `span`, of the bytes [start, stop).
        """
        if span is not None:
            # a range is hashed by itself: the bytes that one unit of work read
            self.seek(span[0])
            part = hashlib.sha256()
            while self._at < span[1]:
                part.update(self.read(min(_PIECE, span[1] - self._at)))
            return part.hexdigest()
        # sought in before: read once more from the start
        if self._hash is None:
            self.seek(0)
            self._hash = hashlib.sha256()
        while self.read(_PIECE):
            pass
        return self._hash.hexdigest()

    def close(self) -> None:
        """Close every part."""
        for file in self._files:
            file.close()
        super().close()
