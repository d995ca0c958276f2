"""Run one program on hostile bytes in a sandbox: it sees its libraries and the one input, and
nothing of this machine answers it.

How it is confined: pipeline.media.confinement. Always: an empty environment, `/` as folder, no
standard input, bounded memory, CPU seconds and output, standard error in a temporary file, and
SIGKILL to all of it when time is up. Inputs are opened here, by the rights of the user who runs the
build, and reach the program under a name that says nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import select
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import IO

from pipeline.media import confinement
from pipeline.media.confinement import Limits, input_name, tool
from pipeline.media.decoded import Broken
from shards.errors import UserError, escaped

__all__ = ["Exit", "Outlet", "input_name", "opened", "run", "tool"]

STDERR_KEPT = 4096
MAX_ADDRESS_SPACE = 3_000_000_000  # measured: a bomb of 8192 x 8192 takes 0.7 GB resident
MAX_WRITTEN = 256_000_000  # the log of times: about 45 bytes for each of 240 x 4 x 3600 frames
MAX_OPEN_FILES = 64  # besides the inputs
_PIPE_BYTES = 1 << 20
_ADDRESS = re.compile(r" @ 0x[0-9a-f]+")
_INPUT = re.compile(r"(?:file:)?/proc/self/fd/[0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a confined program ended: `status` is negative for a signal, as subprocess has it.

    `stopped` is "", "time", or "output" (it said too much).
    """

    status: int
    stopped: str
    stderr: str

    @property
    def out_of_memory(self) -> bool:
        """Whether an allocation failed under the bound of address space."""
        return "Cannot allocate memory" in self.stderr or "ENOMEM" in self.stderr

    @property
    def out_of_time(self) -> bool:
        """Whether wall or CPU time ran out."""
        return self.stopped == "time" or -self.status in (
            signal.SIGXCPU,
            signal.SIGKILL,
            signal.SIGPROF,
        )


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    """The descriptor of a regular file, not even of a link to one; raises Broken.

    UserError for a file that this user may not read.
    """
    try:
        # O_NONBLOCK: opening a FIFO would wait for its writer; O_NOFOLLOW: no link is followed,
        # checked and opened at once
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise Broken("MISSING", f"{path.name} is not there") from error
    except PermissionError as error:
        raise _unreadable(path) from error
    except OSError as error:
        raise Broken("NOT_A_FILE", f"{path.name} is no regular file") from error
    try:
        # checked on the descriptor, not on the path: what was checked is what is read
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Broken("NOT_A_FILE", f"{path.name} is no regular file")
        if os.geteuid() == 0 and not (status.st_uid == 0 or status.st_mode & stat.S_IROTH):
            raise _unreadable(path)  # inside, root has no rights but those of the file's mode
        yield descriptor
    finally:
        os.close(descriptor)


def _unreadable(path: Path) -> UserError:
    return UserError(f"{path}: not readable; give rights to the user who runs the build")


class Outlet:
    """A pipe out of the sandbox, whose child's end is the descriptor `writer`.

    What comes is handed to `sink` in pieces of `piece` bytes (the last may be shorter), as a view
    that holds until the sink returns; more than `max_bytes` ends the run.
    """

    def __init__(
        self, sink: Callable[[memoryview], None], *, piece_nbytes: int, max_bytes: int
    ) -> None:
        reader, writer = os.pipe()
        # FileIO objects own the descriptors, so that an exception closes them
        self._reader, self._writer = FileIO(reader, "r"), FileIO(writer, "w")
        self.reader, self.writer = reader, writer
        with contextlib.suppress(PermissionError):  # a user's share of large pipes is bounded
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._sink = sink
        self._left = max_bytes
        self._piece = memoryview(bytearray(piece_nbytes))
        self._filled = 0

    def take(self) -> bool:
        """Read once and feed the sink; False at the end. OverflowError beyond `max_bytes`."""
        # read into what is left of the piece: no bytes are copied between the pipe and the sink
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
        """Close both ends."""
        self._writer.close()
        self._reader.close()


def run(
    command: Sequence[str],
    *,
    seconds: int,
    outlets: Sequence[Outlet],
    pass_fds: Sequence[int] = (),
    inputs: Sequence[int] = (),
) -> Exit:
    """Run `command` in the sandbox until it ends, for at most `seconds` of wall time.

    Its standard output is the first outlet; it reaches every outlet by the descriptor's number, and
    every file of `inputs` by `input_name`. Whatever happens, no process is left behind, and the
    outlets are closed.
    """
    with contextlib.ExitStack() as stack:
        errors = stack.enter_context(tempfile.TemporaryFile())
        info = stack.enter_context(tempfile.TemporaryFile())
        for outlet in outlets:
            # closed in any case: an outlet belongs to one run
            stack.callback(outlet.close)
        calls = confinement.filter_file()
        filters = [stack.enter_context(calls).fileno()] if calls else []
        # besides rlimits, memory is bounded by pixels (pipeline.media.probe) and by the decoders'
        # own checks
        limits = Limits(
            address_space=MAX_ADDRESS_SPACE,
            written=MAX_WRITTEN,
            cpu_seconds=seconds,
            open_files=MAX_OPEN_FILES + len(inputs) + len(pass_fds),
        )
        before = confinement.prefix(command[0], limits, inputs, (*filters, -1)[0], info.fileno())
        writers = [outlet.writer for outlet in outlets]
        # a session of its own: the whole process group can be killed by one number
        child = subprocess.Popen(
            [*before, *command],
            stdin=subprocess.DEVNULL,
            stdout=writers[0],
            stderr=errors,
            cwd="/",
            env={},
            start_new_session=True,
            pass_fds=[*writers, *pass_fds, *inputs, *filters, info.fileno()],
        )
        # the parent's copies: an outlet ends when the child's last copy is closed
        for outlet in outlets:
            outlet.close_writer()
        deadline = time.monotonic() + seconds
        try:
            stopped = _drain(outlets, deadline) or _wait(child, deadline)
        finally:
            _kill(child, info)
        end = Exit(status=_status(child), stopped=stopped, stderr=_tail(errors))
    _check_start(end)
    return end


def _status(child: subprocess.Popen[bytes]) -> int:
    """The program's own exit status: bubblewrap says 128 and the signal's number."""
    status = child.returncode
    # a shell's convention, which bubblewrap follows
    is_signal = confinement.kind() == "namespaces" and 128 < status <= 128 + signal.NSIG
    return 128 - status if is_signal else status


def _check_start(end: Exit) -> None:
    """UserError if this machine has no namespaces left; words of strangers do not decide that."""
    if end.status == 1 and end.stderr.startswith("bwrap: "):
        confinement.why_no_namespaces.cache_clear()
        if why := confinement.why_no_namespaces():
            raise UserError(f"the media sandbox does not start any more: {why}")


def _drain(outlets: Sequence[Outlet], deadline: float) -> str:
    """Empty the outlets until all are closed; "time" or "output" if a bound was hit before."""
    poll = select.poll()
    running = {outlet.reader: outlet for outlet in outlets}
    for reader in running:
        poll.register(reader, select.POLLIN | select.POLLHUP)
    while running:
        # one deadline for all reads, not a timeout per read: a trickle of bytes cannot prolong a
        # run
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


def _kill(child: subprocess.Popen[bytes], info: IO[bytes]) -> None:
    """End all of it: the first process of a namespace takes the others along, and is waited for."""
    if child.poll() is None:
        # bubblewrap writes the pid of the namespace's first process; killing that one ends all
        # inside
        info.seek(0)
        with contextlib.suppress(ValueError, KeyError, ProcessLookupError):
            os.kill(json.loads(info.read())["child-pid"], signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(5)
    # without namespaces, or where bubblewrap wrote nothing yet: the process group
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _tail(errors: IO[bytes]) -> str:
    # the last bytes: a flood of warnings stands before what ended the program
    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, size - STDERR_KEPT))
    message = errors.read().decode(errors="replace").strip()
    # addresses and descriptors differ from run to run, details of refusals must not
    message = _INPUT.sub("the file", _ADDRESS.sub("", message))  # the same in every run
    return "\n".join(map(escaped, message.splitlines()))
