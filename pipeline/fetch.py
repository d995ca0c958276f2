"""Address -> bytes: what lies in a source's media folder, and how to open one piece of media.

Addresses: "file:/abs/path", and "parquet:/abs/file.parquet#ROW/INDEX" for the INDEX-th image
embedded in row ROW (both from 0).
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.records import MediaRef, Problem
from shards.errors import MissingData, UserError
from shards.ids import sha256_file, sha256_hex


@dataclass(frozen=True, slots=True)
class Found:
    """Media that are there: sha256 of the bytes, and the address to open them."""

    digest: str
    address: str


@dataclass(frozen=True, slots=True)
class MediaTable:
    """The media of one source: regular files by relative name, and the names of all else."""

    files: dict[str, tuple[str, Path]]
    irregular: frozenset[str]

    def find(self, ref: MediaRef) -> Found | Problem:
        """Where the bytes of `ref` are, embedded or in the folder."""
        if ref.data is not None:
            return Found(sha256_hex(ref.data), ref.address)
        if ref.name in self.files:
            digest, path = self.files[ref.name]
            return Found(digest, f"file:{path}")
        if self._is_irregular(ref.name):
            return Problem("MEDIA_NOT_A_FILE", f"{ref.name} is a link, a pipe or a device")
        return Problem("MEDIA_MISSING", f"no file {ref.name}")

    def _is_irregular(self, name: str) -> bool:
        """Whether the name, or a folder on its way, is something that is never opened."""
        return any(str(part) in self.irregular for part in (name, *PurePosixPath(name).parents))


def resolve(path: str, key: str) -> Path:
    """The absolute local path of a recipe's file or folder; UserError says which `key` named it."""
    found = Path(path).expanduser().absolute()
    if not path or not found.exists():
        raise UserError(f"{found}: no such file or folder, named by {key}; correct the path")
    if not os.access(found, os.R_OK):
        raise UserError(f"{found}: not readable, named by {key}; give rights to read it")
    return found


def media_table(root: Path | None) -> MediaTable:
    """Every regular file under `root`, hashed; links, pipes and devices are never opened.

    None stands for a source without a media folder (embedded images, or text only).
    """
    files: dict[str, tuple[str, Path]] = {}
    irregular: set[str] = set()
    if root is None:
        return MediaTable({}, frozenset())
    if not root.is_dir():
        raise UserError(f"{root}: not a folder; set the source's key 'media' to its media folder")
    root = root.resolve()
    for path in _walk(root):
        name = path.relative_to(root).as_posix()
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode):
            files[name] = (sha256_file(path), path)
        elif not stat.S_ISDIR(mode):
            irregular.add(name)
    return MediaTable(files, frozenset(irregular))


def _walk(folder: Path) -> Iterator[Path]:
    """Everything below `folder` in order of names, links not followed."""
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        yield Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path))


@contextmanager
def open_address(address: str) -> Iterator[Path]:
    """A local file with the bytes at `address`: for embedded bytes, a temporary one."""
    scheme, _, place = address.partition(":")
    if scheme == "file":
        if not Path(place).is_file():
            raise MissingData(f"{place}: gone since the sources were read; run the build again")
        yield Path(place)
    elif scheme == "parquet":
        with tempfile.NamedTemporaryFile(prefix="slowfast-") as file:
            file.write(_embedded(place))
            file.flush()
            yield Path(file.name)
    else:
        raise UserError(f"{address!r}: an address starts with 'file:' or 'parquet:'")


def _embedded(place: str) -> bytes:
    """The bytes of one image in a Parquet file; only its row group is read."""
    path, _, spot = place.rpartition("#")
    row, index = (int(number) for number in spot.split("/"))
    try:
        with pq.ParquetFile(path) as file:
            column = "images" if "images" in file.schema_arrow.names else "image"
            group = 0
            while row >= file.metadata.row_group(group).num_rows:
                row -= file.metadata.row_group(group).num_rows
                group += 1
            value = file.read_row_group(group, columns=[column]).column(0)[row].as_py()
    except (pa.ArrowException, OSError, IndexError, KeyError) as error:
        raise MissingData(f"{place}: cannot be read again: {error}; run the build again") from error
    image = value[index] if isinstance(value, list) else value
    return bytes(image["bytes"])
