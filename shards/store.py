"""The only door to storage: put_once, put, get and list, on a folder or an fsspec address.

A name either holds all its bytes or does not exist: locally by unique temporary name, flush, fsync,
rename and fsync of the folder; on object stores by one conditional put.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from shards.errors import MissingData, UserError
from shards.retry import Patience, of_store, patiently

TEMPORARY = ".tmp"
PATIENCE = Patience(pause=0.1)
"""With a store that is busy or gone for a while; short, for whoever reads has work waiting."""
AT_A_TIME = 32
"""Remote reads under way at once."""
_AHEAD = 8 * AT_A_TIME


class Store:
    """A root under which names (relative, `/`-separated) hold immutable bytes."""

    def __init__(self, url: str | Path) -> None:
        self.url = str(url)
        # other processes write here: a listing that is remembered hides what they wrote
        filesystem, root = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
        self.filesystem: Any = filesystem
        self.root: str = root
        self.is_local = isinstance(filesystem, LocalFileSystem)

    def path(self, name: str) -> str:
        """The name as the file system has it."""
        return f"{self.root.rstrip('/')}/{name}"

    def check_writable(self) -> None:
        """Raise UserError before any work if nothing can be written here; makes no folder."""
        try:
            # the nearest folder that exists: nothing is made to find out
            store = self
            if self.is_local:
                root = Path(self.root)
                store = Store(next(path for path in (root, *root.parents) if path.exists()))
            # object stores tell rights only when they are used
            name = f"write-test-{secrets.token_hex(4)}"
            store.put(name, b"")
            store.remove(name)
        except Exception as error:  # every file system has errors of its own
            why = getattr(error, "strerror", None) or error
            remedy = "" if self.is_local else "; check its credentials and endpoint"
            raise UserError(f"{self.url}: cannot write here: {why}{remedy}") from error

    def put_once(self, name: str, data: bytes) -> bool:
        """Write `name` unless it exists; True if this call wrote it. The first writer wins."""
        if self.exists(name):
            return False
        if self.is_local:
            return self._commit(name, data, replace=False)
        try:
            # mode "create": a conditional put, so that no writer replaces another's bytes
            self._ask("written", "pipe_file", name, data, mode="create")
        except FileExistsError:
            return False
        return True

    def put(self, name: str, data: bytes) -> None:
        """Write or replace `name` in one step."""
        if self.is_local:
            self._commit(name, data, replace=True)
        else:
            self._ask("written", "pipe_file", name, data)

    def get(self, name: str, offset: int = 0, nbytes: int | None = None) -> bytes:
        """The bytes of `name`, or `nbytes` of them from `offset`; MissingData if it is gone."""
        try:
            if self.is_local:
                # pread of a range: no more is read than was asked for
                with Path(self.path(name)).open("rb") as file:
                    size = os.fstat(file.fileno()).st_size - offset if nbytes is None else nbytes
                    return os.pread(file.fileno(), size, offset)
            end = None if nbytes is None else offset + nbytes
            data: bytes = self._ask("read", "cat_file", name, start=offset, end=end)
            return data
        except FileNotFoundError as error:
            raise MissingData(f"{self.path(name)}: not there") from error

    def get_all(self, names: Sequence[str]) -> Iterator[bytes]:
        """The bytes of each name, in turn; from afar many are asked for at a time."""
        if self.is_local:
            yield from map(self.get, names)
        else:
            with ThreadPoolExecutor(AT_A_TIME) as threads:
                for start in range(0, len(names), _AHEAD):  # a slow reader must not be overrun
                    yield from threads.map(self.get, names[start : start + _AHEAD])

    def _ask(self, done: str, method: str, name: str, *values: object, **options: object) -> Any:
        """What a method of the file system gives for a name; one far away is waited for.

        What is not there, or is already, is said at once; UserError for a store that fails.
        """
        call, path = partial(getattr(self.filesystem, method), self.path(name)), self.path(name)

        def attempt() -> Any:
            """One request, whose failure is told as the store's or as somebody's mistake."""
            try:
                return call(*values, **options)
            # these do not pass by waiting
            except (FileNotFoundError, FileExistsError, PermissionError):
                raise
            except Exception as error:  # every file system has errors of its own
                problem = UserError(f"{path}: cannot be {done}: {error!r}")
                raise of_store(problem, error) from error

        return call(*values, **options) if self.is_local else patiently(attempt, PATIENCE)

    def exists(self, name: str) -> bool:
        """Whether the name is there; a store that does not answer is no store without it."""
        if self.is_local:
            return Path(self.path(name)).exists()
        try:
            self._ask("looked up", "info", name)
        except FileNotFoundError:
            return False
        return True

    def remove(self, name: str) -> None:
        """Remove `name` if it is there."""
        with suppress(FileNotFoundError):
            self._ask("removed", "rm_file", name)

    def list(self, folder: str) -> list[str]:
        """Names directly under `folder`, sorted; empty if it is not there."""
        try:
            # no details: one listing, not a request for each name
            found = self._ask("listed", "ls", folder, detail=False)
        except FileNotFoundError:
            return []
        names = (path.rsplit("/", 1)[-1] for path in found)
        return sorted(name for name in names if not name.endswith(TEMPORARY))

    def sizes(self) -> dict[str, int]:
        """Every name under the root, at any depth, and its bytes; unfinished writes among them."""
        try:
            found = self._ask("listed", "find", "", detail=True)
        except FileNotFoundError:
            return {}
        start = len(self.path(""))
        return {path[start:]: int(each["size"]) for path, each in sorted(found.items())}

    def modified(self, name: str) -> float:
        """When the name was last written, in seconds by the store's own clock."""
        return float(self._ask("looked up", "modified", name).timestamp())

    def _commit(self, name: str, data: bytes, *, replace: bool) -> bool:
        final = Path(self.path(name))
        final.parent.mkdir(parents=True, exist_ok=True)
        # unique per process and call: two writers never share a temporary file
        temporary = final.with_name(
            f".{final.name}.{os.getpid()}.{secrets.token_hex(4)}{TEMPORARY}"
        )
        try:
            # data to the disk before the name can be seen
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if replace:
                temporary.replace(final)
            else:
                # a hard link fails where the name exists: the first one wins, atomically
                final.hardlink_to(temporary)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise UserError(
                    f"{final}: the disk is full; make room for {len(data)} bytes"
                ) from error
            raise
        finally:
            temporary.unlink(missing_ok=True)
        # the name to the disk: a rename is durable only once the folder is
        _fsync_folder(final.parent)
        return True


def remove_all(store: Store, names: Sequence[str]) -> dict[str, str]:
    """Remove these names, from afar many at a time; those that stay, and why."""

    def why(name: str) -> str:
        """Remove one; why it stays, or nothing."""
        try:
            store.remove(name)
        except (OSError, UserError) as error:
            return str(getattr(error, "strerror", None) or error)
        return ""

    if store.is_local:
        reasons = list(map(why, names))
    else:
        with ThreadPoolExecutor(AT_A_TIME) as threads:
            reasons = list(threads.map(why, names))
    return {name: reason for name, reason in zip(names, reasons, strict=True) if reason}


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def private_folder(path: Path) -> Path:
    """The folder, made if it is not there: a real one, of this user, that nobody else may enter.

    What caches and scratch hold is believed later on, so nobody else may have put anything there.
    One that others could read is closed to them; UserError for one that others could write to, for
    a link, and for somebody else's.
    """
    remedy = "name a folder of your own, or remove this one"
    try:
        # opened, then judged by its descriptor: nobody can swap it in between
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        held = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise UserError(f"{path}: no folder for you alone: {error.strerror}; {remedy}") from error
    try:
        found = os.fstat(held)
        if found.st_uid != os.geteuid():
            raise UserError(f"{path}: belongs to somebody else; {remedy}")
        if found.st_mode & 0o022:
            raise UserError(f"{path}: other users may write there; {remedy}")
        os.fchmod(held, 0o700)
    finally:
        os.close(held)
    return path
