"""Run one program on hostile bytes in a cage: no network, no new rights, bounded in everything.

Layers, each used where the kernel and the machine allow it (`layers` finds out once per process):

    setpriv   dies with the thread that started it, gains no rights
    unshare   its own user and network namespaces: no network
    prlimit   address space, CPU seconds, file size, open files

Always: an empty environment, `/` as folder, no standard input, its own session, bounded standard
output, standard error in a temporary file, and SIGKILL to the whole group when time is up.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from shards.errors import UserError

STDERR_KEPT = 4096
MAX_ADDRESS_SPACE = 3_000_000_000  # measured: a bomb of 8192 x 8192 takes 0.7 GB resident
MAX_WRITTEN = 256_000_000  # the log of times: about 45 bytes for each of 240 x 4 x 3600 frames
MAX_OPEN_FILES = 64
_PIPE_BYTES = 1 << 20
_PROBES = {
    "setpriv": ("--pdeathsig", "KILL", "--no-new-privs"),
    "unshare": ("--user", "--map-root-user", "--net"),
    "prlimit": (f"--nofile={MAX_OPEN_FILES}",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a caged program ended. `stopped` is "", "time", or "output" (it said too much)."""

    status: int
    stopped: str
    stderr: str

    @property
    def out_of_memory(self) -> bool:
        return "Cannot allocate memory" in self.stderr or "ENOMEM" in self.stderr

    @property
    def out_of_time(self) -> bool:
        return self.stopped == "time" or -self.status in (signal.SIGXCPU, signal.SIGKILL)


@functools.cache
def tool(name: str) -> str:
    """The absolute path of a program; UserError if it is not installed."""
    found = shutil.which(name)
    if found is None:
        raise UserError(f"{name}: not found; install it (Debian, Ubuntu: apt-get install ffmpeg)")
    return str(Path(found).absolute())


@functools.cache
def layers() -> dict[str, tuple[str, ...]]:
    """The layers that work here: name -> command prefix. Found once per process."""
    found = {}
    for name, arguments in _PROBES.items():
        path = shutil.which(name)
        if path is None:
            continue
        trial = subprocess.run([path, *arguments, tool("true")], capture_output=True, check=False)
        if trial.returncode == 0:
            found[name] = (path, *arguments)
    return found


def caged(command: Sequence[str], cpu_seconds: int) -> list[str]:
    """The command line with every active layer in front of it: one process, a chain of execs."""
    prefix: list[str] = []
    for name, words in layers().items():
        prefix += words
        if name == "prlimit":
            prefix += [
                f"--as={MAX_ADDRESS_SPACE}",
                f"--fsize={MAX_WRITTEN}",
                f"--cpu={cpu_seconds}",
            ]
    return [*prefix, *command]


def run(
    command: Sequence[str],
    *,
    seconds: int,
    piece: int,
    max_bytes: int,
    sink: Callable[[bytes], None],
    pass_fds: Sequence[int] = (),
) -> Exit:
    """Run `command` in the cage; hand its standard output to `sink` in pieces of `piece` bytes.

    The last piece may be shorter. The group is killed after `seconds` of wall time, or when more
    than `max_bytes` came. Whatever happens, no process is left behind.
    """
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            caged(command, seconds),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd="/",
            env={},
            start_new_session=True,
            pass_fds=pass_fds,
            pipesize=_PIPE_BYTES,
        )
        deadline = time.monotonic() + seconds
        try:
            assert child.stdout is not None
            stopped = _drain(child.stdout, piece, max_bytes, deadline, sink)
            if not stopped:
                stopped = _wait(child, deadline)
        finally:
            _kill_group(child)
        return Exit(status=child.returncode, stopped=stopped, stderr=_tail(errors))


def _drain(
    pipe: IO[bytes], piece: int, max_bytes: int, deadline: float, sink: Callable[[bytes], None]
) -> str:
    """Feed the sink until the pipe closes; "time" or "output" if a bound was hit before."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN | select.POLLHUP)
    waiting, total = bytearray(), 0
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            return "time"
        data = os.read(pipe.fileno(), _PIPE_BYTES)
        total += len(data)
        if total > max_bytes:
            return "output"
        waiting += data
        while len(waiting) >= piece:
            sink(bytes(waiting[:piece]))
            del waiting[:piece]
        if not data:
            if waiting:
                sink(bytes(waiting))
            return ""


def _wait(child: subprocess.Popen[bytes], deadline: float) -> str:
    try:
        child.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return "time"
    return ""


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if child.stdout is not None:
        child.stdout.close()


def _tail(errors: IO[bytes]) -> str:
    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, size - STDERR_KEPT))
    return errors.read().decode(errors="replace").strip()
