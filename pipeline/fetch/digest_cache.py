"""Digests of local files, remembered on this machine: media are hashed once, not at every build.

    CACHE/digests/<H(what they are of)>.json      path -> [what stat says of it, sha256]

A file is taken to be as it was if size, inode, modification time and change time are. Every write
moves the change time, and no program can set it. What was changed less than SETTLED before it was
hashed might change again within the same tick of its file system's clock: that is not remembered.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from shards.envelope import Envelope
from shards.errors import UserError
from shards.ids import sha256_file, short_hash
from shards.store import Store, private_folder

SETTLED = 10 * 10**9
"""Nanoseconds; the coarsest clocks of file systems tick every two seconds."""
_ENVELOPE = Envelope(
    schema="slowfast-mix/digests/2", if_damaged="remove it", if_outdated="remove it"
)


def cache() -> Path:
    """Where this machine keeps, for this user alone, what it fetched and what it knows of files."""
    named = os.environ.get("SLOWFAST_CACHE")
    return private_folder(Path(named) if named else Path.home() / ".cache/slowfast-mix")


class Digests:
    """sha256 of the files that belong to `what`; `save` keeps those that were asked for."""

    def __init__(self, what: Any) -> None:
        self._store, self._name = Store(cache() / "digests"), f"{short_hash(what)}.json"
        self._before: dict[str, list[Any]] = {}
        with suppress(OSError, UserError):  # of no use, not at fault: files are hashed again
            where = self._store.path(self._name)
            self._before = _ENVELOPE.unseal(self._store.get(self._name), where)["files"]
        self._now: dict[str, list[Any]] = {}

    def of(self, path: Path) -> str:
        """The sha256 of a file, whose bytes are read only if they may have changed."""
        begun, stat = time.time_ns(), path.stat()
        state = [stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]
        name = os.fsencode(path).decode(errors="backslashreplace")
        known, digest = self._before.get(name, (None, ""))
        if known != state:
            digest = sha256_file(path)
        if begun - stat.st_ctime_ns > SETTLED:
            self._now[name] = [state, digest]
        return str(digest)

    def save(self) -> None:
        if self._now != self._before:
            with suppress(OSError, UserError):  # a cache that cannot be written costs time only
                self._store.put(self._name, _ENVELOPE.seal({"files": self._now}))
