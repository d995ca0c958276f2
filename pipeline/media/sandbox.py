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
import fcntl
import functools
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import IO

from shards.errors import UserError

STDERR_KEPT = 4096
MAX_ADDRESS_SPACE = 3_000_000_000  # measured: a bomb of 8192 x 8192 takes 0.7 GB resident
MAX_WRITTEN = 256_000_000  # the log of times: about 45 bytes for each of 240 x 4 x 3600 frames
MAX_OPEN_FILES = 64
_PIPE_BYTES = 1 << 20
_ADDRESS = re.compile(r" @ 0x[0-9a-f]+")
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


class Outlet:
    """A pipe out of the cage, whose child's end is the descriptor `writer`.

    What comes is handed to `sink` in pieces of `piece` bytes (the last may be shorter), as a view
    that holds until the sink returns; more than `max_bytes` ends the run.
    """

    def __init__(self, sink: Callable[[memoryview], None], *, piece: int, max_bytes: int) -> None:
        reader, writer = os.pipe()
        self._reader, self._writer = FileIO(reader, "r"), FileIO(writer, "w")
        self.reader, self.writer = reader, writer
        with contextlib.suppress(PermissionError):  # a user's share of large pipes is bounded
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._sink, self._left = sink, max_bytes
        self._piece, self._filled = memoryview(bytearray(piece)), 0

    def take(self) -> bool:
        """Read once and feed the sink; False at the end. OverflowError beyond `max_bytes`."""
        count = os.readv(self.reader, [self._piece[self._filled :]])
        self._filled += count
        self._left -= count
        if self._left < 0:
            raise OverflowError
        if self._filled and (not count or self._filled == len(self._piece)):
            self._sink(self._piece[: self._filled])
            self._filled = 0
        return count > 0

    def close_writer(self) -> None:
        """The child has it now, or never will."""
        self._writer.close()

    def close(self) -> None:
        self._writer.close()
        self._reader.close()


def run(
    command: Sequence[str], *, seconds: int, outlets: Sequence[Outlet], pass_fds: Sequence[int] = ()
) -> Exit:
    """Run `command` in the cage until it ends, for at most `seconds` of wall time.

    Its standard output is the first outlet; it reaches every outlet by the descriptor's number.
    Whatever happens, no process is left behind, and the outlets are closed.
    """
    with contextlib.ExitStack() as stack:
        errors = stack.enter_context(tempfile.TemporaryFile())
        for outlet in outlets:
            stack.callback(outlet.close)
        child = subprocess.Popen(
            caged(command, seconds),
            stdin=subprocess.DEVNULL,
            stdout=outlets[0].writer,
            stderr=errors,
            cwd="/",
            env={},
            start_new_session=True,
            pass_fds=[*(outlet.writer for outlet in outlets), *pass_fds],
        )
        for outlet in outlets:
            outlet.close_writer()
        deadline = time.monotonic() + seconds
        try:
            stopped = _drain(outlets, deadline) or _wait(child, deadline)
        finally:
            _kill_group(child)
        return Exit(status=child.returncode, stopped=stopped, stderr=_tail(errors))


def _drain(outlets: Sequence[Outlet], deadline: float) -> str:
    """Empty the outlets until all are closed; "time" or "output" if a bound was hit before."""
    poll = select.poll()
    running = {outlet.reader: outlet for outlet in outlets}
    for reader in running:
        poll.register(reader, select.POLLIN | select.POLLHUP)
    while running:
        left = deadline - time.monotonic()
        ready = poll.poll(left * 1000) if left > 0 else []
        if not ready:
            return "time"
        for reader, _ in ready:
            try:
                more = running[reader].take()
            except OverflowError:
                return "output"
            if not more:
                poll.unregister(reader)
                del running[reader]
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


def _tail(errors: IO[bytes]) -> str:
    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, size - STDERR_KEPT))
    said = errors.read().decode(errors="replace").strip()
    return _ADDRESS.sub("", said)  # the same failure must read the same in every run
