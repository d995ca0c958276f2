"""Commands in PID, network and mount namespaces of their own.

`ray stop` ends every Ray process that it can see, whoever started it, and kills at random must not
meet strangers: what needs either runs here. When the command ends, all it started ends with it.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INIT = """
[ "$$" = 1 ] || { echo "not the first process of a private namespace" >&2; exit 99; }
[ "$(ps -e -o pid= | wc -l)" -lt 8 ] || { echo "foreign processes are visible" >&2; exit 98; }
ip link set lo up
mkdir -p /tmp/ray && mount -t tmpfs tmpfs /tmp/ray || exit 97
"$@"
exit $?
"""
"""The shell stays the first process, because that one has to reap orphans."""


@functools.cache
def why_not() -> str:
    """Why this machine cannot make such namespaces; "" if it can."""
    done = subprocess.run(["unshare", *_FLAGS, "true"], capture_output=True, text=True, check=False)
    return done.stderr.strip() and f"no private namespaces here: {done.stderr.strip()}"


def run(
    command: Sequence[str], home: Path, environment: Mapping[str, str], seconds: float
) -> subprocess.CompletedProcess[str]:
    """Run the command with its own home (Ray's token, keys) and this interpreter's PATH first.

    What Ray keeps in /tmp/ray is its own as well.
    """
    home.mkdir(parents=True, exist_ok=True)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    own = {"HOME": str(home), "PATH": path, "RAY_USAGE_STATS_ENABLED": "0"}
    return subprocess.run(
        ["unshare", *_FLAGS, "sh", "-c", INIT, "private", *command],
        cwd=ROOT,
        env=kept | own | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )


_FLAGS = ("-n", "-m", "-p", "-f", "--mount-proc", "--kill-child")
