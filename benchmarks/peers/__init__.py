"""Peers: other people's libraries, each in its own virtual environment, speaking JSON lines.

A peer is `NAME.txt` (its pinned packages) and the scripts `NAME_read.py` and `NAME_order.py`, which
read one JSON request from standard input and answer with JSON lines. Several peers need packages
that we do not want.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE.parent.parent / ".venv-peers"


class PeerUnavailable(Exception):
    """The peer is not installed, or failed; the message is what a bar shows."""


def names() -> list[str]:
    return sorted(path.stem for path in HERE.glob("*.txt"))


def install(name: str) -> None:
    """Make `.venv-peers/NAME` and install the peer's pinned file; PeerUnavailable says why not."""
    home = ENVIRONMENTS / name
    venv.create(home, with_pip=True, clear=True)
    command = [
        str(home / "bin/python"),
        "-m",
        "pip",
        "install",
        "--quiet",
        "-r",
        f"{HERE}/{name}.txt",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PeerUnavailable(done.stderr.strip().splitlines()[-1])
    (home / "ready").touch()


def ask(
    name: str, request: dict[str, Any], what: str = "read", timeout: float = 900
) -> list[dict[str, Any]]:
    """Run the peer's script `NAME_WHAT.py` on one request; its answers, one a line."""
    home = ENVIRONMENTS / name
    if not (home / "ready").exists():
        raise PeerUnavailable(f"{name} is not installed; run make bench-setup")
    return _run(name, [str(home / "bin/python"), str(HERE / f"{name}_{what}.py")], request, timeout)


def ask_ours(request: dict[str, Any], timeout: float = 600) -> dict[str, Any]:
    """Our own side under the same harness: `benchmarks/loading/ours.py` in a process of its own."""
    return _run("ours", [sys.executable, "-m", "benchmarks.loading.ours"], request, timeout)[0]


def _run(
    name: str, command: list[str], request: dict[str, Any], timeout: float
) -> list[dict[str, Any]]:
    try:
        done = subprocess.run(
            command,
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise PeerUnavailable(f"{name}: no answer in {timeout:.0f} s") from error
    if done.returncode:
        said = done.stderr.strip() or f"status {done.returncode}"
        raise PeerUnavailable(f"{name}: {said.splitlines()[-1]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def install_all() -> None:
    for name in names():
        try:
            install(name)
            sys.stdout.write(f"{name}: ready\n")
        except PeerUnavailable as error:
            sys.stdout.write(f"{name}: cannot be installed: {error}\n")
