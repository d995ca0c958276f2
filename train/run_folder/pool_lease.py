"""What a run reads from a pool stays there while it trains, by a lease (shards.pool.reading)."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from shards.pool import reading
from shards.store import Store
from train import ranks

_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def pool_kept(data: str, manifest_id: str) -> Iterator[None]:
    """Inside, `pool gc` refuses to remove what this manifest needs from `data`, where that is a
    pool; UserError, on every rank, while it is being cleared."""
    store = Store(data)
    with ExitStack() as leases:
        # shards are one manifest's own: nobody clears them
        if store.exists("profile.json"):
            ranks.by_first(lambda: _hold(leases, store, manifest_id))
        yield


def _hold(leases: ExitStack, store: Store, manifest_id: str) -> None:
    try:
        leases.enter_context(reading(store, manifest_id))
    except OSError as error:
        if not (isinstance(error, PermissionError) or error.errno in _READ_ONLY):
            raise
        # a pool that may only be read serves as well
        sys.stderr.write(
            f"{store.url}: may only be read, so that `pool gc` does not see this run; it must be "
            "given its manifest by --keep\n"
        )
