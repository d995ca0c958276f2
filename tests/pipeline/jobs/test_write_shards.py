"""Packing over Ray: the same bytes with one worker, two and five."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shards.store import Store
from shards.verify import damage
from tests.support.tiny_pool import tiny_manifest

ROOT = Path(__file__).resolve().parents[3]
PACK = """
import os, sys
os.cpu_count = lambda: int(sys.argv[1])
from pipeline.jobs import write_shards
from pipeline.jobs.job import Job
from pipeline.jobs.ray_executor import connect
from pipeline.jobs.progress import steps
from shards.pool import Pool

write_shards.SHARD_BYTES = 20_000
with connect(None) as workers, steps() as bars:
    job = Job(pool=Pool(sys.argv[3]), workers=workers, bars=bars)
    write_shards.pack(sys.argv[2], sys.argv[4], job)
"""


@pytest.mark.timeout(300)
def test_the_number_of_workers_changes_no_byte(tmp_path: Path) -> None:
    manifest = tiny_manifest(tmp_path / "tiny", ratio=("repeat: 1", "repeat: 1"))
    pool = tmp_path / "tiny/pool"
    found = []
    for count in (1, 2, 5):
        out = tmp_path / f"out{count}"
        words = [str(count), str(manifest), str(pool), str(out)]
        done = subprocess.run(
            [sys.executable, "-c", PACK, *words],
            cwd=ROOT,
            env=os.environ,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert not list(damage(str(out)))
        names = [name for name in Store(out).list("") if name != "index"]
        found.append({name: Store(out).get(name) for name in names})
    assert found[0] == found[1] == found[2]
    assert len(found[0]) > 8
