"""How this machine confines a child: which prefix stands before its command.

    namespaces   bubblewrap: mount, pid, ipc, network, user and uts namespaces of its own, a view
                 that is read-only and holds libraries and the one input, no capabilities
    landlock     the same child behind pipeline/media/launcher.py: Landlock for files, TCP, signals
                 and abstract sockets, where a machine or its container forbids namespaces

Both load the seccomp filter of pipeline.media.system_calls, and both die with their parent. What is
confined in the end is not believed but tried: pipeline.media.canary.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from pipeline.media import system_calls
from shards.errors import UserError

_ROOT = Path(__file__).resolve().parents[2]
_SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/alternatives")
_LIBRARY = re.compile(r"(/\S+) \(0x")
_PACKAGES = ("site-packages", "dist-packages")
_NAMESPACES = (
    "--unshare-user --unshare-ipc --unshare-pid --unshare-net --unshare-uts --unshare-cgroup-try "
    "--uid 65534 --gid 65534 --cap-drop ALL --die-with-parent --new-session"
).split()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one child may take: bytes of address space and of a file, CPU seconds, open files."""

    address_space: int
    written: int
    cpu_seconds: int
    open_files: int


@functools.cache
def tool(name: str) -> str:
    """The absolute path of a program; UserError if it is not installed."""
    found = shutil.which(name)
    if found is None:
        raise UserError(f"{name}: not found; install it (Debian, Ubuntu: apt-get install ffmpeg)")
    return str(Path(found).absolute())


@functools.cache
def kind() -> str:
    """ "namespaces" where bubblewrap can make them, else "landlock"; found once per process."""
    return "namespaces" if not why_no_namespaces() else "landlock"


@functools.cache
def why_no_namespaces() -> str:
    """What keeps this machine from them; "" if nothing does."""
    bwrap = shutil.which("bwrap")
    prlimit = shutil.which("prlimit")
    if bwrap is None or prlimit is None:
        return "bubblewrap is not installed" if bwrap is None else "prlimit is not installed"
    # the cheapest program there is, behind the real prefix: what fails here would fail for each
    # file
    trial = [bwrap, *_NAMESPACES, *_bound(_SYSTEM), "--remount-ro", "/", tool("true")]
    tried = subprocess.run(trial, capture_output=True, check=False, text=True)
    return tried.stderr.strip().splitlines()[-1][:200] if tried.returncode else ""


def input_name(descriptor: int) -> str:
    """What a program calls an open input: the same for every file, whatever strangers named it."""
    return f"/proc/self/fd/{descriptor}"


def prefix(
    program: str, limits: Limits, inputs: Sequence[int], filter_fd: int, info_fd: int
) -> list[str]:
    """What stands before the command of `program`; `inputs` are open and reach it by input_name.

    `info_fd` gets what bubblewrap says of its child, and nothing under Landlock.
    """
    if kind() == "landlock":
        return _launched(program, limits, inputs, filter_fd)
    # rlimits by prlimit, before bubblewrap: they are inherited by all that follows
    resources = [
        f"--as={limits.address_space}",
        f"--fsize={limits.written}",
        f"--cpu={limits.cpu_seconds}",
        f"--nofile={limits.open_files}",
        "--core=0",
    ]
    # the view first: later binds lay themselves over it
    words = [tool("prlimit"), *resources, tool("bwrap"), *_NAMESPACES, *_bound(view(program))]
    for descriptor in inputs:
        words += ["--ro-bind", f"/proc/self/fd/{descriptor}", input_name(descriptor)]
    # read-only once everything is bound; --info-fd tells which process to kill
    words += ["--remount-ro", "/", "--chdir", "/", "--info-fd", str(info_fd)]
    return [*words, *(["--seccomp", str(filter_fd)] if filter_fd >= 0 else []), "--"]


def _launched(program: str, limits: Limits, inputs: Sequence[int], filter_fd: int) -> list[str]:
    # resource names as Python's `resource` module has them: the launcher sets them itself
    resources = {
        "RLIMIT_AS": limits.address_space,
        "RLIMIT_FSIZE": limits.written,
        "RLIMIT_CPU": limits.cpu_seconds,
        "RLIMIT_NOFILE": limits.open_files,
        "RLIMIT_CORE": 0,
    }
    return [
        sys.executable,
        *("-I", "-S", str(Path(__file__).with_name("launcher.py"))),
        str(filter_fd),
        " ".join(f"{name}={value}" for name, value in resources.items()),
        "\n".join(view(program)),
        "\n".join(map(str, inputs)),
        "--",
    ]


@functools.cache
def view(program: str) -> tuple[str, ...]:
    """The folders and files that a program needs to start: the system's libraries, and its own."""
    real = os.path.realpath(program)
    # our own child: the interpreter, its virtual environment, and our sources
    if program == sys.executable:
        needed = [sys.prefix, sys.base_prefix, str(_ROOT / "pipeline"), str(_ROOT / "shards")]
        # an environment may see the packages of another one, by a line in a .pth file
        needed += [path for path in sys.path if Path(path).name in _PACKAGES]
    elif _is_system(program) and _is_system(real):
        needed = []
    else:
        # a program from elsewhere, such as a conda ffmpeg: with the folders of the libraries it
        # links
        linked = subprocess.run(
            [tool("ldd"), real], capture_output=True, check=False, text=True
        ).stdout
        needed = [program, *(str(Path(path).parent) for path in _LIBRARY.findall(linked))]
    # links and what they point to: the loader asks for either
    places = {place for path in needed for place in (path, os.path.realpath(path))}
    return (*_SYSTEM, *sorted(path for path in places if not _is_system(path)))


def _is_system(path: str) -> bool:
    return path.startswith(tuple(f"{folder}/" for folder in _SYSTEM))


def _bound(paths: Sequence[str]) -> Iterator[str]:
    """bubblewrap's words for places that may be read, those that are there."""
    for path in paths:
        yield from ("--ro-bind-try", path, path)


def filter_file() -> FileIO | None:
    """The seccomp filter as an open file, at its beginning; None without libseccomp."""
    program = system_calls.compiled()
    if not program:
        return None
    # memfd: an anonymous file, passed by its descriptor
    file = FileIO(os.memfd_create("filter"), "r+")
    file.write(program)
    file.seek(0)
    return file
