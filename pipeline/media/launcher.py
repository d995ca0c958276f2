"""Confines itself, then becomes the program: the sandbox where namespaces are not to be had.

    python -I -S launcher.py FILTER_FD LIMITS READABLE INPUTS -- PROGRAM ARGUMENTS

FILTER_FD is an open file with the seccomp filter (-1: none), LIMITS are resource=value, READABLE
folders and files that may be read and run, INPUTS open descriptors whose files may be read; each a
list with newlines. It uses nothing but the standard library, because it is run alone. What does not
work on this kernel is left out: the canary (pipeline.media.canary) finds out what that leaves open.
"""

from __future__ import annotations

import ctypes
import os
import resource
import stat
import struct
import sys

CREATE = 444  # landlock_*: the same numbers on every architecture
ADD = 445
RESTRICT = 446
RULE_PATH = 1
EXECUTE = 1 << 0
READ_FILE = 1 << 2
READ_DIR = 1 << 3
RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # ABI -> how many rights on files it knows
PDEATHSIG = 1
CAPBSET_DROP = 24
NO_NEW_PRIVS = 38
SECCOMP = 22
LAST_CAPABILITY = 63

libc = ctypes.CDLL(None, use_errno=True)


def restrict_files(readable: list[str], descriptors: list[int]) -> None:
    """Landlock: read and run what is listed; write, connect by TCP and signal nothing."""
    # the version call: which Landlock this kernel has, -1 for none
    abi = libc.syscall(CREATE, None, 0, 1)
    if abi < 1:
        return
    # every right this ABI knows is handled, and so denied unless a rule gives it
    handled = (1 << RIGHTS.get(abi, 16)) - 1
    # ABI 4 adds TCP bind and connect, ABI 6 abstract sockets and signals
    network = 3 if abi >= 4 else 0
    scopes = 3 if abi >= 6 else 0
    known = 24 if abi >= 6 else 16 if abi >= 4 else 8
    # struct landlock_ruleset_attr, as long as this ABI knows it
    ruleset = libc.syscall(CREATE, struct.pack("QQQ", handled, network, scopes)[:known], known, 0)
    rules = [(path, EXECUTE | READ_FILE | READ_DIR) for path in readable]
    for path, rights in rules:
        try:
            at = os.open(path, os.O_PATH)
        except OSError:  # not on this machine
            continue
        add_rule(ruleset, at, rights if stat.S_ISDIR(os.fstat(at).st_mode) else rights & ~READ_DIR)
        os.close(at)
    for descriptor in descriptors:
        add_rule(ruleset, descriptor, READ_FILE)
    # needs no-new-privileges, which `main` has set
    libc.syscall(RESTRICT, ruleset, 0)
    os.close(ruleset)


def add_rule(ruleset: int, at: int, rights: int) -> None:
    """Allow rights beneath an open file or folder (struct landlock_path_beneath_attr)."""
    libc.syscall(ADD, ruleset, RULE_PATH, struct.pack("=Qi", rights, at), 0)


def drop_capabilities() -> None:
    """Nothing left to regain: not by root, and not by a program with file capabilities."""
    for number in range(LAST_CAPABILITY + 1):
        libc.prctl(CAPBSET_DROP, number, 0, 0, 0)
    # version 3 of the capability header, the calling process
    header = struct.pack("Ii", 0x20080522, 0)
    libc.capset(header, struct.pack("6I", 0, 0, 0, 0, 0, 0))


def filter_calls(descriptor: int) -> None:
    """seccomp: what the filter allows, until the process ends."""
    program = os.pread(descriptor, 1 << 20, 0)
    os.close(descriptor)
    held = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: a count of 8-byte instructions, and where they are
    head = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(held))
    libc.prctl(SECCOMP, 2, ctypes.create_string_buffer(head, len(head)), 0, 0)


def main() -> None:
    """Give up rights one after the other, then become the program."""
    descriptor, limits, readable, inputs, _, *command = sys.argv[1:]
    # SIGKILL when the parent dies
    libc.prctl(PDEATHSIG, 9, 0, 0, 0)
    for limit in limits.split():
        name, _, value = limit.partition("=")
        resource.setrlimit(getattr(resource, name), (int(value), int(value)))
    # before anything is given up: Landlock and seccomp ask for it where there are no capabilities
    libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0)
    drop_capabilities()
    restrict_files(readable.splitlines(), [int(word) for word in inputs.split()])
    if int(descriptor) >= 0:
        filter_calls(int(descriptor))
    os.execve(command[0], command, {})  # noqa: S606


if __name__ == "__main__":
    main()
