"""One run owns its --out: OUT/owner.json says which process, and is renewed while that lives.

Ages are told by the clock of the disk it lies on, which all nodes share, not by their own.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from shards.envelope import Envelope
from shards.errors import UserError
from shards.store import Store

OWNER = "owner.json"
_LOCK = ".owner.lock"
RENEWED, STALE = 30.0, 300.0
"""Seconds between two renewals, and the age from which an owner is taken for gone."""
ENVELOPE = Envelope(
    schema="slowfast-mix/owner/1",
    if_damaged="remove it if no run writes there",
    if_outdated="remove it if no run writes there",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The process of a run: `start` is in clock ticks since its host was booted, and tells it from
    another that got its number later; `since` is for people."""

    host: str
    pid: int
    start: int
    since: str

    def __str__(self) -> str:
        return f"{self.host}, pid {self.pid}, since {self.since}"


class Claim:
    """This process's hold on a run's folder; `lost` says who has it since, if it was taken."""

    def __init__(self, out: Path) -> None:
        self.store = Store(out)
        self.path = out / OWNER
        pid = os.getpid()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self.owner = Owner(
            host=socket.gethostname(), pid=pid, start=process_start(pid) or 0, since=now
        )
        self.lost = ""

    def take(self) -> str:
        """Become the owner; whom this took over from, if anybody. UserError names a live one."""
        with _one_at_a_time(self.path.parent) as lock_file:
            held = self._held()
            if held is not None:
                # both ages by the clock of the disk
                os.utime(lock_file)
                age = lock_file.stat().st_mtime - self.path.stat().st_mtime
                self._check_gone(held, age)
            self.store.put(OWNER, ENVELOPE.seal(asdict(self.owner)))
        return "" if held is None else str(held)

    def renew(self) -> None:
        """Say that this process lives; `lost` is set where another one has the folder."""
        held = self._held()
        if held == self.owner:
            os.utime(self.path)
        elif held is not None:
            self.lost = str(held)
        elif not self.store.put_once(OWNER, ENVELOPE.seal(asdict(self.owner))):
            # another process wrote between our two looks
            self.renew()

    def release(self) -> None:
        """Leave the folder to others."""
        if self._held() == self.owner:
            self.path.unlink()

    def _held(self) -> Owner | None:
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        return Owner(**ENVELOPE.unseal(data, str(self.path)))

    def _check_gone(self, held: Owner, age: float) -> None:
        # pids are used again: with its start, a pid is one process
        is_dead = held.host == self.owner.host and process_start(held.pid) != held.start
        if not is_dead and age < STALE:
            raise UserError(
                f"{self.path.parent}: another run writes here ({held}; renewed {age:.0f} s ago); "
                f"give another --out, or, if it is gone, try again in {STALE - age:.0f} s or "
                f"remove {self.path}"
            )


@contextmanager
def renewing(claim: Claim) -> Iterator[None]:
    """Inside, a thread renews the claim."""
    done = threading.Event()

    def work() -> None:
        while not done.wait(RENEWED):
            with suppress(OSError):  # a disk that is away for a moment: the next time will do
                claim.renew()

    thread = threading.Thread(target=work, name="owner", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        claim.release()


def process_start(pid: int) -> int | None:
    """When a living process of this host started, in clock ticks since boot; None for a dead one
    (proc(5): field 3 is its state, field 22 its start)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # the name in field 2 may hold blanks and brackets, so fields count from the last bracket
    state, *rest = stat.rpartition(")")[2].split()
    return None if state in "ZX" else int(rest[18])


@contextmanager
def _one_at_a_time(out: Path) -> Iterator[Path]:
    """Two that start at once look one after the other, where the disk has locks."""
    out.mkdir(parents=True, exist_ok=True)
    lock_file = out / _LOCK
    with lock_file.open("a") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield lock_file


def say_taken_over(out: Path, before: str) -> None:
    """Tell the person at the keyboard that the run before this one did not end by itself."""
    if before:
        sys.stderr.write(f"{out}: taken over from a run that is gone ({before})\n")
