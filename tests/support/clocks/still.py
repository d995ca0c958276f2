"""A clock for tests of patience: pauses are written down, and pass at once."""

from __future__ import annotations

import time

from shards.retry import Clock


class Still:
    """`pauses` are the seconds that were asked for; `clock` is real time and all of them."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self.clock = Clock(now=self._now, sleep=self.pauses.append)

    def _now(self) -> float:
        return time.monotonic() + sum(self.pauses)
