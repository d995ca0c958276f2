"""A run that is asked to stop does so behind a step on which all ranks agree, with a checkpoint."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from train.engine.interface import Engine

STOPPED = "stopped.json"
STATUS = 143
"""The exit status of a run that was asked to stop, whatever the signal: 128 + SIGTERM."""
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """Which signal this process was sent, and which one any rank was."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def any_rank(self, engine: Engine, *, has_lost: bool) -> tuple[str, bool]:
        """The name of a signal that some rank was sent, and whether one has lost its folder: the
        same on every rank, by one all-reduce."""
        # sums over ranks: whoever was sent a signal, all see it before the same step
        *counts, lost = engine.totals(*(self.signal == one for one in SIGNALS), has_lost)
        name = next((one.name for one, n in zip(SIGNALS, counts, strict=True) if n), "")
        return name, bool(lost)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        # a handler may do next to nothing: the loop looks before each step
        self.signal = signal.Signals(number)


@contextmanager
def listening() -> Iterator[StopRequest]:
    """Inside, SIGTERM and SIGUSR1 are noted and end nothing; only a main thread can listen."""
    stop_request = StopRequest()
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        # Python delivers signals to the main thread alone; a run inside another one's thread goes
        # without
        before = {number: signal.signal(number, stop_request._take) for number in SIGNALS}
    try:
        yield stop_request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
