"""Before any work: --out can be written, and what rank 0 writes there every rank can read."""

from __future__ import annotations

import secrets
import socket
import time
from pathlib import Path

from shards.errors import UserError
from shards.store import Store
from train import ranks

SIZE = 1 << 20
"""Bytes of the probe: a disk without so much room holds no checkpoint either."""
PATIENCE = 10.0
"""Seconds in which other nodes may not see a new file yet (NFS: `acdirmax` and its like)."""


def check_shared(out: Path) -> None:
    """Raise UserError, on every rank, where one cannot read what rank 0 just wrote into `out`."""
    host, name = ranks.by_first(lambda: (socket.gethostname(), _write(out)))
    try:
        ranks.by_each(lambda: _read(out, name, host))
    finally:
        if ranks.rank() == 0:
            Store(out).remove(name)


def _write(out: Path) -> str:
    # a name of its own: an old probe must not pass for this one
    name = f".probe-{secrets.token_hex(8)}"
    Store(out).put(name, bytes(SIZE))
    return name


def _read(out: Path, name: str, writer: str) -> None:
    deadline = time.monotonic() + PATIENCE
    # whole, and not only there: NFS shows a name before its bytes
    while not (out / name).is_file() or (out / name).stat().st_size != SIZE:
        if time.monotonic() > deadline:
            raise UserError(
                f"{out}: rank {ranks.rank()} on {socket.gethostname()} cannot read there what rank "
                f"0 wrote on {writer}; give an --out that all nodes share"
            )
        time.sleep(0.2)
