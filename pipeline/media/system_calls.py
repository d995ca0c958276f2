"""What a decoder may ask of the kernel: a seccomp filter, compiled by libseccomp.

A list of what is allowed, not of what is not: reading, memory, threads, time. There are no sockets,
no children, no signals to anybody, no other programs' memory, no mounts, no namespaces. Everything
else answers ENOSYS, which a C library takes for an older kernel.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import functools
import os
import tempfile

_ALLOWED = """
read readv pread64 preadv preadv2 write writev pwrite64 lseek _llseek close close_range
open openat access faccessat faccessat2 readlink readlinkat getdents64 getcwd fadvise64 fadvise64_64
stat stat64 lstat lstat64 fstat fstat64 newfstatat fstatat64 statx statfs statfs64 fstatfs fstatfs64
fcntl fcntl64 dup dup2 dup3 pipe pipe2 poll ppoll ppoll_time64 select _newselect pselect6
mmap mmap2 munmap mremap mprotect madvise brk mincore msync membarrier
futex futex_time64 set_robust_list get_robust_list rseq set_tid_address set_thread_area arch_prctl
sched_yield sched_getaffinity sched_getparam sched_getscheduler sched_get_priority_max
sched_get_priority_min getcpu gettid getpid getppid getpgrp getpgid getsid getpriority
getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32 getgroups getresuid getresgid
mlock mlock2 munlock capget uname sysinfo getrandom getrlimit ugetrlimit getrusage times time
gettimeofday
clock_gettime clock_gettime64 clock_getres clock_getres_time64 clock_nanosleep
clock_nanosleep_time64 nanosleep setitimer getitimer
rt_sigaction rt_sigprocmask rt_sigreturn sigreturn sigaltstack rt_sigpending restart_syscall
execve exit exit_group wait4 waitid riscv_flush_icache cacheflush
""".split()
_TERMINAL_SIZE, _TERMINAL_MODE = 0x5413, 0x5401  # what isatty and curses ask of a descriptor
_CLONE_THREAD = 0x10000
_PRCTL = (1, 3, 15, 21, 0x53564D41)  # die with parent, dumpable?, name, seccomp?, name of memory
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_EQUAL, _MASKED_EQUAL = 4, 7


class _Compare(ctypes.Structure):
    """struct scmp_arg_cmp of <seccomp.h>."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


@functools.cache
def compiled() -> bytes:
    """The filter as an array of struct sock_filter; b"" where libseccomp is not installed."""
    library = _library()
    if library is None:
        return b""
    # the default of the filter: ENOSYS, not a kill, so that C libraries fall back to older calls
    state = library.seccomp_init(_ERRNO | errno.ENOSYS)
    try:
        for name in _ALLOWED:
            _allow(library, state, name)
        # threads may be made, processes not: clone with CLONE_THREAD set
        _allow(library, state, "clone", (0, _MASKED_EQUAL, _CLONE_THREAD, _CLONE_THREAD))
        # terminal questions, which C libraries ask of any output
        for request in (_TERMINAL_MODE, _TERMINAL_SIZE):
            _allow(library, state, "ioctl", (1, _EQUAL, request, 0))
        for option in _PRCTL:
            _allow(library, state, "prctl", (0, _EQUAL, option, 0))
        # limits may be read and lowered, of this process alone
        _allow(library, state, "prlimit64", (0, _EQUAL, 0, 0))
        with tempfile.TemporaryFile() as file:
            if library.seccomp_export_bpf(state, file.fileno()):
                return b""
            return os.pread(file.fileno(), 1 << 20, 0)
    finally:
        library.seccomp_release(state)


def _library() -> ctypes.CDLL | None:
    for name in ("libseccomp.so.2", ctypes.util.find_library("seccomp")):
        try:
            library = ctypes.CDLL(name) if name else None
        except OSError:  # not by this name: without any, the sandbox says what it lacks
            continue
        if library:
            # without a prototype ctypes cuts pointers to 32 bits
            library.seccomp_init.restype = ctypes.c_void_p
            library.seccomp_init.argtypes = [ctypes.c_uint32]
            library.seccomp_release.argtypes = [ctypes.c_void_p]
            library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
            library.seccomp_rule_add_array.argtypes = [
                ctypes.c_void_p,
                ctypes.c_uint32,
                ctypes.c_int,
                ctypes.c_uint,
                ctypes.POINTER(_Compare),
            ]
            return library
    return None


def _allow(
    library: ctypes.CDLL, state: int, name: str, compare: tuple[int, int, int, int] | None = None
) -> None:
    """Let a call pass, under a condition on an argument if one is given."""
    # libseccomp's number for another architecture's call is negative
    number = library.seccomp_syscall_resolve_name(name.encode())
    if number < 0:  # no call of this architecture
        return
    conditions = (_Compare(*compare),) if compare else ()
    array = (_Compare * max(1, len(conditions)))(*conditions)
    if library.seccomp_rule_add_array(state, _ALLOW, number, len(conditions), array):
        raise OSError(f"libseccomp does not take a rule for {name}")
