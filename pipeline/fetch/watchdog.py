"""A timer for one attempt, which shuts its socket: no wait on a server outlasts its time.

Time-outs of sockets are for each read. Who sends a head line, a `100 Continue` or a trailer now and
then never meets them, so a second thread looks at the clock.
"""

from __future__ import annotations

import socket
import threading
import time
from types import TracebackType
from typing import Any

import urllib3


class Watchdog:
    """Shuts the sockets that it was shown once its time is over, and says so in `fired`.

    Looking a name up is not in its hands: the resolver's own time-outs bound that.
    """

    def __init__(self) -> None:
        self.fired = False
        self._end = float("inf")
        self._sockets: list[socket.socket] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        for one in self._sockets:
            one.close()

    def until(self, end: float) -> None:
        """What goes on now must be done at `end`, of time.monotonic."""
        self._end = end

    def over(self, pool: urllib3.HTTPConnectionPool) -> urllib3.HTTPConnectionPool:
        """The pool, each of whose connections is shown to the watchdog before it speaks."""
        watchdog: Watchdog = self
        plain: Any = pool.ConnectionCls

        class Watched(plain):  # type: ignore[misc]
            def _new_conn(self) -> socket.socket:
                made: socket.socket = super()._new_conn()
                # TLS takes the descriptor over, so a second one is kept
                watchdog._sockets.append(made.dup())
                return made

        pool.ConnectionCls = Watched
        return pool

    def _watch(self) -> None:
        while not self._over.wait(max(0.0, min(self._end - time.monotonic(), 0.5))):
            if time.monotonic() < self._end:
                continue
            self.fired = True
            for one in self._sockets:
                try:
                    one.shutdown(socket.SHUT_RDWR)
                except OSError:  # it has ended by itself
                    pass
            self._over.wait(0.05)  # a socket that comes later is shut as well
