"""Asks a peer for its order: `peers/NAME_order.py` in the peer's own environment."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from benchmarks.peers import ENVIRONMENTS, HERE, PeerUnavailable


def ask_order(name: str, request: dict[str, Any], timeout: float = 900) -> list[dict[str, Any]]:
    """The JSON lines that the peer answers; PeerUnavailable says why it does not."""
    home = ENVIRONMENTS / name
    if not (home / "ready").exists():
        raise PeerUnavailable(f"{name} is not installed; run make bench-setup")
    done = subprocess.run(
        [str(home / "bin/python"), f"{HERE}/{name}_order.py"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode:
        raise PeerUnavailable(f"{name}: {done.stderr.strip().splitlines()[-1]}")
    return [json.loads(line) for line in done.stdout.splitlines()]
