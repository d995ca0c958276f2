"""A pool's receipts read one after another, many at once, and from a snapshot.

10^5 receipts on a disk, 10^4 on an S3 server on loopback (moto's; a request costs some
milliseconds). Each names 64 clips. Asked is what decoding asks when it begins: which clips are in
the pool (`pipeline.stages.pending.Known`). The plain loop parses every receipt and does nothing
with it.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import fsspec
from rich.console import Console
from rich.table import Table

from benchmarks.frame import Bar, at_least, equal
from pipeline.stages.pending import Known
from shards.ids import sha256_hex
from shards.pool import Pool
from shards.profile import Profile
from shards.receipts import Work
from tests.support.s3_server import s3_server

HOME = Path("runs/benchmarks/receipts")
LOCAL, REMOTE = 10**5, 10**4
CLIPS = 64
THREADS = 16


def run(console: Console) -> list[Bar]:
    table = Table("receipts", "where", "plain loop s", "loose s", "compacting s", "snapshot s")
    shutil.rmtree(HOME, ignore_errors=True)
    bars = measure(table, "folder", str(HOME), LOCAL)
    shutil.rmtree(HOME)
    with lake() as url:
        bars += measure(table, "s3", url, REMOTE)
    console.print(table)
    return bars


def measure(table: Table, where: str, url: str, count: int) -> list[Bar]:
    pool = Pool(url, Profile())
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(lambda number: put(pool, number), range(count)))
    asked = [clip for number in range(0, count, 10) for clip in clips_of(number)]
    plain, _ = timed(lambda: read_all(pool))
    loose, _ = timed(lambda: found(url, asked))
    compacting, _ = timed(pool.ledger.compact)
    folded, there = timed(lambda: found(url, asked))
    seconds = (f"{each:.1f}" for each in (plain, loose, compacting, folded))
    table.add_row(f"{count:,}", where, *seconds)
    return [
        at_least(f"{where}: seconds, loose / snapshot", loose / folded, 1.0),
        equal(f"{where}: clips found", there, len(asked)),
    ]


def timed(work: Callable[[], int]) -> tuple[float, int]:
    """(wall seconds, what the work returned)."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def read_all(pool: Pool) -> int:
    names = pool.store.list("receipts")
    return sum(bool(json.loads(pool.store.get(f"receipts/{name}"))) for name in names)


def found(url: str, asked: list[str]) -> int:
    pool = Pool(url)
    return len(Known(pool, pool.ledger.table("decode")).outcomes(asked))


def clips_of(number: int) -> list[str]:
    bits = random.Random(number)
    return [f"{bits.getrandbits(128):032x}" for _ in range(CLIPS)]


def put(pool: Pool, number: int) -> None:
    """One receipt of a decode; the files that it names are not there."""
    work = Work("decode", "made", {"profile": pool.profile.profile_id}, clips_of(number))
    folders = ("clips", "index/clips", "index/fingerprints", "refused")
    outputs = {one: [f"{sha256_hex(f'{one}{number}'.encode())}.parquet"] for one in folders}
    pool.ledger.put(work, outputs, {"media": CLIPS, "refused": 0}, "")


@contextmanager
def lake() -> Iterator[str]:
    """A bucket on an S3 server of this process."""
    with s3_server() as variables, patch.dict(os.environ, variables):
        fsspec.filesystem("s3").mkdir("lake")
        yield "s3://lake/pool"
