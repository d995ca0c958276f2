"""Shards read by index and verified, against stock webdataset reading them unverified.

Both sides deliver every (key, bytes of json, bytes of mjpeg) of the demo's stage-2 shards; the
digests over what they delivered must be equal. Five runs each, interleaved; medians of CPU seconds.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from pathlib import Path

from rich.console import Console

from benchmarks.frame import Bar, at_least
from benchmarks.peers import PeerUnavailable, ask
from shards.errors import UserError
from shards.reader import ShardReader, read_extent
from shards.store import Store

SHARDS = Path("runs/demo/stage2/shards")
RUNS = 5
BAR = 1.0


def run(console: Console) -> list[Bar]:
    if not (SHARDS / "receipt.json").exists():
        raise UserError(f"{SHARDS}: no shards to read; run make demo first")
    what = "samples per CPU second, ours / webdataset's"
    ours, theirs = [], []
    try:
        for _ in range(RUNS):
            ours.append(read_ours())
            theirs.append(ask("webdataset", {"shards": sorted(map(str, SHARDS.glob("*.tar")))})[0])
    except PeerUnavailable as error:
        return [Bar(what=what, value=None, bar=f">= {BAR}", holds=False, why=str(error))]
    if len({(side["samples"], side["digest"]) for side in (*ours, *theirs)}) != 1:
        raise UserError(f"{SHARDS}: the two sides delivered different samples")
    mine, peer = (statistics.median(float(s["cpu_s"]) for s in side) for side in (ours, theirs))
    console.print(f"{ours[0]['samples']} samples: {mine:.3f} s ours, {peer:.3f} s webdataset")
    return [at_least(what, peer / mine, BAR)]


def read_ours() -> dict[str, float | int | str]:
    """Every sample by index, crc32 checked; CPU seconds of the reading alone."""
    start, digest = time.process_time(), hashlib.sha256()
    reader = ShardReader(Store(str(SHARDS)))
    rows = reader.rows.to_pylist()
    for row in rows:
        found = read_extent(reader.store, row["shard"], row)
        digest.update(f"{row['position']:012d}_{row['key']}".encode())
        digest.update(found["json"])
        digest.update(found["mjpeg"])
    return {
        "samples": len(rows),
        "digest": digest.hexdigest(),
        "cpu_s": time.process_time() - start,
    }
