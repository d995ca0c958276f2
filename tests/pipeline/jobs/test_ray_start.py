"""A Ray that does not start is one line, not a traceback: real Ray, whose raylet never answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SILENT = """
import sys, time, types
import ray._private.node as node, ray._private.services as services
from pipeline.jobs.ray_executor import connect
from shards.errors import run_command

class Hasty(types.ModuleType):
    monotonic = staticmethod(lambda: 30 * time.monotonic())
    __getattr__ = staticmethod(lambda name: getattr(time, name))

def unknown(*_):
    time.sleep(0.1)
    raise RuntimeError("no such node")

node.time = Hasty("time")  # Ray's 30 seconds pass in one
services.get_node = unknown  # which waits for as long by itself
services.RAYLET_EXECUTABLE = sys.argv[1]

def main():
    with connect(None):
        print("it started")

run_command(main)
"""


def test_a_node_that_times_out_is_said_in_one_line(tmp_path: Path) -> None:
    raylet = tmp_path / "raylet"
    raylet.write_text("#!/bin/sh\nexec sleep 60\n")
    raylet.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", SILENT, str(raylet)], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = [each for each in done.stderr.splitlines() if each.startswith("error: ")]
    assert "Ray did not start on this machine: The current node timed out" in line
    assert "what was finished is not repeated" in line and "Traceback" not in done.stderr
