"""Wall time, CPU time and peak memory of everything that this process starts."""

from __future__ import annotations

import threading
import time

import psutil

INTERVAL_S = 0.25


class Meter:
    """Watches all descendants while a block runs.

    `wall_s` in seconds; `cpu_s` in CPU seconds, as last seen of each process (a process shorter
    than the interval may be missed); `peak_rss_mb` is the largest sum of proportional set sizes
    seen, in MB of 10^6 bytes (shared pages are counted once).
    """

    def __init__(self) -> None:
        self.wall_s = self.cpu_s = self.peak_rss_mb = 0.0
        self._seen: dict[tuple[int, float], float] = {}
        self._stop = threading.Event()

    def __enter__(self) -> Meter:
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.wall_s = time.monotonic() - self._started
        self.cpu_s = sum(self._seen.values())

    def _watch(self) -> None:
        turn = 0
        while not self._stop.wait(INTERVAL_S):
            memory = 0
            for process in psutil.Process().children(recursive=True):
                try:
                    times = process.cpu_times()
                    spent = times.user + times.system
                    self._seen[process.pid, process.create_time()] = spent
                    if turn % 8 == 0:  # proportional sizes are slow to read
                        memory += process.memory_full_info().pss
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue  # it ended since it was listed; what it spent is in _seen
            self.peak_rss_mb = max(self.peak_rss_mb, memory / 1e6)
            turn += 1
