"""The address of one medium in the pool's index -> its bytes as a local file, while it is decoded.

    file:PLACE                   a file of a media folder
    copy:PLACE#[.gif]            one whose name tells what its path does not, or is no text
    folder:PLACE@FPS             a folder of pictures
    range:PLACE#AT:N,N,...[@FPS] pieces of a file: one picture, or a video of pictures
    parquet:PLACE#ROW/INDEX      the INDEX-th media of a row; /COLUMN may follow
    member:PLACE#NAME[@FPS]      a member of an archive: there only while the archive is streamed

PLACE is a local path or the pinned address of a fetched file (pipeline.fetch.local_files). In a
path HOME//REST no link leads out of HOME (pipeline.fetch.links). Behind `copy`, `folder%` and
`range%` the bytes of a place are spelled as in addresses of the web.
"""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.fetch import links, local_files
from pipeline.media.image_sequences import Stills
from pipeline.names import in_order, is_junk
from pipeline.sources.parquet_rows import by_pages
from shards.errors import MissingData, UserError
from shards.ids import short_hash
from shards.index import UNREADABLE
from shards.store import private_folder

ROOM = 1 << 30  # bytes that must be free in memory; containers often have 64 MB there
_SCRATCH = "slowfast-scratch-"
_NEW_SECONDS = 60
BATCH_BYTES = 256 << 20  # of embedded media, unpacked, that are in memory at once
EMBEDDED_IN = ("images", "image", "mp4")  # the columns of published bytes


@contextmanager
def open_address(address: str, members: Path | None = None) -> Iterator[Path | Stills]:
    """A local file, or pictures that make up a video; temporary ones are gone afterwards.

    `members` is the scratch folder of an archive that is being streamed.
    """
    scheme, _, locator = address.partition(":")
    # these are read out of a file: into memory where there is room, copies of whole files onto disk
    if scheme in ("parquet", "range", "range%", "copy"):
        read = {"parquet": _embedded, "copy": _copied}.get(scheme, _pieces)
        with scratch(memory() if scheme != "copy" else disk()) as within:
            yield read(plain(address), within)
        return
    fps = 0
    home = ""
    if scheme == "member":
        path = _there(spooled(members or Path("/nowhere"), address).resolve())
        fps = _with_fps(locator)[1]
    elif scheme in ("folder", "folder%"):
        locator, fps = _with_fps(plain(address))
        path = _local(locator)
        home = locator.rpartition("//")[0]
    elif scheme == "file":
        path = _local(locator)
    else:
        raise UserError(f"{address!r}: not an address of the pool's index")
    # a folder is a video of pictures; a link to one is not followed
    if not path.is_dir() or path.is_symlink():
        yield path
        return
    pictures = pictures_in(path, home)
    # a picture that is a link is handed on as what it is: the door refuses it by code
    not_a_file = next((each for each in pictures if each.is_symlink() or not each.is_file()), None)
    yield not_a_file or Stills(files=pictures, fps=fps)


def plain(address: str) -> str:
    """The place of an address without quotes."""
    scheme, _, place = address.partition(":")
    quoted = scheme == "copy" or scheme.endswith("%")
    return os.fsdecode(unquote_to_bytes(place)) if quoted else place


def _local(locator: str) -> Path:
    """The file of a locator; the link that leads out of its folder where one was put there."""
    is_address = not locator.startswith("/") and (
        local_files.is_remote(locator) or local_files.is_quoted(locator)
    )
    return _there(local_files.local(locator).path if is_address else links.opened(locator))


def _there(path: Path) -> Path:
    if not path.exists() and not path.is_symlink():
        raise MissingData(f"{path}: gone since the sources were read; run the build again")
    return path


def pictures_in(folder: Path, home: str = "") -> tuple[Path, ...]:
    """What lies in a folder, but folders and junk, in the order of the numbers: its pictures.

    Links are followed within `home` and the hub's cache; others are there as what they are.
    """
    within = links.homes(folder, [home] if home else [])
    entries = {entry.name: entry for entry in os.scandir(folder) if not is_junk(entry.name)}
    # in the order of the numbers in their names, not of their bytes
    paths = (_followed(entries[name], within) for name in in_order(entries))
    return tuple(path for path in paths if path.is_symlink() or not path.is_dir())


def _followed(entry: os.DirEntry[str], within: Sequence[Path]) -> Path:
    path = Path(entry.path)
    return (links.target(path, within) or path) if entry.is_symlink() else path


def memory() -> str:
    """A folder in memory where the machine has room in one, for bytes that are decoded at once."""
    folder = Path("/dev/shm")  # noqa: S108
    # /dev/shm is tmpfs: memory, bounded by the container
    if folder.is_dir() and shutil.disk_usage(folder).free > ROOM:
        with suppress(UserError):  # somebody else sits on the name
            return _own(folder)
    return disk()


def disk() -> str:
    """A folder on disk for scratch, of this user alone."""
    return _own(Path(tempfile.gettempdir()))


def _own(folder: Path) -> str:
    return str(private_folder(folder / f"{_SCRATCH}{os.geteuid()}"))


@contextmanager
def scratch(root: str) -> Iterator[Path]:
    """A folder that is gone afterwards; what killed workers left behind there goes before."""
    # killed workers leave folders behind: those whose lock nobody holds
    for left in Path(root).glob(f"{_SCRATCH}*"):
        _sweep(left)
    with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=root) as made:
        descriptor = os.open(made, os.O_RDONLY)
        try:
            # flock belongs to the open file: the kernel lets go of it when the process dies
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # let go when this process ends, however it ends
            yield Path(made)
        finally:
            os.close(descriptor)


def _sweep(left: Path) -> None:
    """Remove a folder that nobody holds; a new one is given a minute to be taken hold of."""
    with suppress(OSError):
        # between making and locking a folder there is a moment in which it looks left
        if time.time() - left.stat().st_mtime < _NEW_SECONDS:
            return
        descriptor = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)
        finally:
            os.close(descriptor)


def spooled(scratch: Path, address: str) -> Path:
    """Where a member's bytes lie in a scratch folder; a video's ending says if it is a GIF."""
    # the sandbox tells a GIF by its suffix; nothing else of a member's name is kept
    return scratch / (short_hash(address) + (".gif" if address.lower().endswith(".gif") else ""))


def drop(path: Path) -> None:
    """Remove a spooled member or folder, and what it points to on disk."""
    target = path.resolve()
    if target.is_dir():
        shutil.rmtree(target)
    # the link and what it points to: large members lie on disk, linked from memory
    for left in (target, path):
        left.unlink(missing_ok=True)


def _with_fps(place: str) -> tuple[str, int]:
    head, _, tail = place.rpartition("@")
    return (head, int(tail)) if head and tail.isdigit() else (place, 0)


def _pieces(place: str, home: Path) -> Path | Stills:
    place, fps = _with_fps(place)
    where, _, pieces = place.rpartition("#")
    start, _, sizes = pieces.partition(":")
    files = []
    source = _local(where)
    if source.is_symlink():
        return source
    with source.open("rb") as file:
        file.seek(int(start))
        for number, size in enumerate(sizes.split(",")):
            files.append(home / f"{number:06d}")
            files[-1].write_bytes(file.read(int(size)))
    return Stills(files=tuple(files), fps=fps) if fps else files[0]


def _copied(place: str, home: Path) -> Path:
    where, _, suffix = place.rpartition("#")
    source = _local(where)
    if source.is_symlink():
        return source
    shutil.copyfile(source, home / f"medium{suffix}")
    return home / f"medium{suffix}"


def _embedded(locator: str, home: Path) -> Path:
    """The bytes of one medium in a Parquet file."""
    where, _, spot = locator.rpartition("#")
    # ROW/INDEX, or ROW/INDEX/COLUMN where the column is not one of EMBEDDED_IN
    row, index, name = (*spot.split("/", 2), "")[:3]
    try:
        path = local_files.local(where).path
    except UserError as error:
        gone = f"{locator}: gone since the sources were read: {error}"
        raise MissingData(f"{gone}; run the build again") from error
    try:
        starts = _group_starts(path)
        # the row group whose first row is the last one not behind the row
        group = max(i for i, start in enumerate(starts) if start <= int(row))
        value = _column(path, group, name).value(int(row) - starts[group])
        medium = value[int(index)] if isinstance(value, list) else value
        data = medium["bytes"] if isinstance(medium, dict) else medium
        (home / "medium").write_bytes(data)
    # whatever a file that changed makes arrow or the indexing raise
    except (*UNREADABLE, LookupError, TypeError) as error:
        raise MissingData(
            f"{locator}: not what was read when its records were admitted: {error!r}; fetch the "
            "file again, or leave it out of the recipe"
        ) from error
    return home / "medium"


@functools.lru_cache(maxsize=16)
def _group_starts(path: Path) -> list[int]:
    with pq.ParquetFile(path) as file:
        counts = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    return [sum(counts[:i]) for i in range(len(counts))]


@functools.lru_cache(maxsize=1)
def _column(path: Path, group: int, name: str) -> _Column:
    """The embedded media of one row group; the next medium asked for is most often in it too."""
    return _Column(path, group, name)


class _Column:
    """One column of a row group, a batch of about BATCH_BYTES at a time, for rows in any order.

    A row group may hold more than memory, and more than 2 GB, which arrow reads of no list at once.
    Rows are asked for in their order (pipeline.stages.pending), so each batch is read once.
    """

    _batches: Iterator[pa.RecordBatch]
    _batch: pa.Array
    _start: int

    def __init__(self, path: Path, group: int, name: str) -> None:
        self._path = path
        self._group = group
        with pq.ParquetFile(path) as file:
            self._name = name or next(c for c in EMBEDDED_IN if c in file.schema_arrow.names)
            group_metadata = file.metadata.row_group(group)
        # rows a batch, by the group's mean row size: batches of about BATCH_BYTES
        self._rows = max(
            group_metadata.num_rows * BATCH_BYTES // max(group_metadata.total_byte_size, 1), 1
        )
        self._begin()

    def value(self, row: int) -> Any:
        """The cell of a row of the group; IndexError beyond its end."""
        # an earlier row: the batches begin anew
        if row < self._start:
            self._begin()
        while row >= self._start + len(self._batch):
            self._start += len(self._batch)
            self._batch = self._next()
        return self._batch[row - self._start].as_py()

    def _begin(self) -> None:
        self._batches = self._read()
        self._start, self._batch = 0, self._next()

    def _next(self) -> pa.Array:
        for batch in self._batches:
            return batch.column(0)
        raise IndexError(f"row group {self._group} has no further row")

    def _read(self) -> Iterator[pa.RecordBatch]:
        with by_pages(self._path) as file:
            yield from file.iter_batches(
                batch_size=self._rows, row_groups=[self._group], columns=[self._name]
            )
