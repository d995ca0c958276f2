"""What code inside the sandbox can do to this machine: tried, not assumed.

A program of ours tries one escape after the other behind the very prefix that decoders get, once
per process of a build. What it reaches is `open`; a build where anything is open is refused unless
its user gives --no-sandbox.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.media import confinement, sandbox
from shards.errors import UserError

SECONDS = 30
ESCAPES: Mapping[str, str] = {
    "secrets": "reads a file of the user, such as a token",
    "system": "reads /etc/passwd or lists a home",
    "write": "writes to /tmp, /etc or the folder it is in",
    "network": "connects to a server of this machine by TCP",
    "socket": "connects to a socket of this machine by path or name",
    "signal": "signals a process of the same user",
    "fork": "starts a process",
    "session": "leaves the session in which it would be killed",
    "capability": "has a capability",
    "trace": "reads another process's memory",
    "namespace": "makes a namespace of its own",
    "calls": "may make any system call",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """How a machine confines, and which of ESCAPES are open on it."""

    kind: str
    open: tuple[str, ...]

    def __str__(self) -> str:
        held = len(ESCAPES) - len(self.open)
        lacking = f", open: {' '.join(self.open)}" if self.open else ""
        return f"{self.kind}, {held} of {len(ESCAPES)} escapes confined{lacking}"


@functools.cache
def found() -> Found:
    """What is open here; found once per process."""
    # targets that would be reached without a sandbox: each is checked to exist by its creation
    with _marks() as marks:
        output = bytearray()
        end = sandbox.run(
            [sys.executable, "-I", "-S", "-c", _PROGRAM, json.dumps(marks)],
            seconds=SECONDS,
            outlets=[sandbox.Outlet(output.extend, piece_nbytes=1 << 16, max_bytes=1 << 16)],
        )
    try:
        # one JSON object, written at the end: a canary that was killed says nothing
        opened = json.loads(output)
    except ValueError as error:
        raise UserError(
            f"the media sandbox ({confinement.kind()}) does not start: {end.stderr[-300:]}; "
            "install bubblewrap and libseccomp (Debian, Ubuntu: apt-get install bubblewrap "
            "libseccomp2)"
        ) from error
    if end.status != 0:  # it was ended in the middle of an escape
        raise UserError(f"the canary of the media sandbox ended with {end.status}: {end.stderr}")
    return Found(
        kind=confinement.kind(), open=tuple(escape for escape in ESCAPES if opened[escape])
    )


@contextlib.contextmanager
def _marks() -> Iterator[dict[str, object]]:
    """What the canary tries to reach: a token, a server, two sockets, a process; all are ours."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="canary-")))
        token = folder / "token"
        token.write_text("secret")
        sockets = []
        for family, address in (
            (socket.AF_INET, ("127.0.0.1", 0)),
            (socket.AF_UNIX, str(folder / "socket")),
            (socket.AF_UNIX, f"\0canary-{os.getpid()}-{folder.name}"),
        ):
            # a listening server of each kind: TCP, a path, the abstract namespace
            listener = stack.enter_context(socket.socket(family))
            listener.bind(address)
            listener.listen(8)
            sockets.append(listener.getsockname())
        # a sibling process of the same user, to be signalled and traced
        sibling = subprocess.Popen([confinement.tool("sleep"), str(2 * SECONDS)])
        stack.callback(sibling.wait)
        stack.callback(sibling.kill)
        yield {
            "token": str(token),
            "folders": [str(folder), tempfile.gettempdir(), "/etc", str(Path.home()), "/", "/usr"],
            "home": str(Path.home()),
            "server": sockets[0],
            "path": sockets[1],
            "abstract": os.fsdecode(sockets[2]),
            "sibling": sibling.pid,
        }


_PROGRAM = r"""
import ctypes, json, os, signal, socket, struct, sys

marks = json.loads(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
PR_GET_SECCOMP, CLONE_NEWUSER, PTRACE_ATTACH = 21, 0x10000000, 16


def writes():
    for folder in marks["folders"]:
        path = f"{folder}/.canary-{os.getpid()}"
        try:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        except OSError:
            continue
        os.unlink(path)
        return True


def connects(family, *addresses):
    for address in addresses:
        try:
            socket.socket(family).connect(address)
        except OSError:
            continue
        return True


def forks():
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    return True


def session():
    # the leader of a session cannot leave it: a child of it can
    if os.getsid(0) != os.getpid():
        os.setsid()
        return True
    return forks()


def capable():
    data = ctypes.create_string_buffer(24)
    if libc.capget(struct.pack("Ii", 0x20080522, 0), data) != 0:
        return False
    return any(struct.unpack("6I", data.raw))


TRIES = {
    "secrets": lambda: open(marks["token"]).read() == "secret",
    "system": lambda: bool(open("/etc/passwd").read() or os.listdir(marks["home"])),
    "write": writes,
    "network": lambda: connects(socket.AF_INET, tuple(marks["server"])),
    "socket": lambda: connects(socket.AF_UNIX, marks["path"], os.fsencode(marks["abstract"])),
    "signal": lambda: os.kill(marks["sibling"], signal.SIGCONT) is None,
    "fork": forks,
    "session": session,
    "capability": capable,
    "trace": lambda: libc.ptrace(PTRACE_ATTACH, marks["sibling"], 0, 0) == 0,
    "namespace": lambda: libc.unshare(CLONE_NEWUSER) == 0,
    "calls": lambda: libc.prctl(PR_GET_SECCOMP, 0, 0, 0, 0) != 2,
}
found = {}
for name, attempt in TRIES.items():
    try:
        found[name] = bool(attempt())
    except OSError:
        found[name] = False
print(json.dumps(found))
"""
