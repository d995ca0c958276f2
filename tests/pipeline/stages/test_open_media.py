"""Scratch folders: gone afterwards, and gone at last where nobody could clean up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from pipeline.stages.open_media import scratch

HOLD = """
import sys, time
from pipeline.stages.open_media import scratch
with scratch(sys.argv[1]) as made:
    print(made, flush=True)
    time.sleep(60)
"""


def test_what_a_killed_worker_left_goes_and_what_is_held_stays(tmp_path: Path) -> None:
    held, killed = (
        subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    )
    assert held.stdout and killed.stdout
    theirs, left = (Path(one.stdout.readline().strip()) for one in (held, killed) if one.stdout)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    (left / "member").write_bytes(b"x")
    with scratch(str(tmp_path)) as made:
        assert left.exists() and theirs.exists()  # too new to judge
    for folder in (theirs, left):
        os.utime(folder, (0, 0))
    with scratch(str(tmp_path)) as made:
        assert theirs.exists() and made.exists() and not left.exists()
    assert not made.exists()
    held.kill()
    held.wait()
    for one in (held, killed):
        one.stdout.close()  # type: ignore[union-attr]
