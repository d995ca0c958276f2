"""What a node's cache fetches and drops when it knows what will be read: decisions only, no bytes.

Items are fetched in the order of their next use. Where room is wanted, the item whose next use is
latest goes (Belady, "A study of replacement algorithms", 1966), and only if that is later than the
use of what comes in: a fetch never pushes out what is needed sooner.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Mapping, Sequence

NEVER = 1 << 62
RESERVE = 4
"""One part in this many of the limit keeps what recurs; the rest may hold what is fetched ahead."""


class PrefetchPlan:
    """Items by name, sizes in bytes; `limit` bounds what is held, `held` is there already."""

    def __init__(self, limit: int, held: Mapping[str, int] | None = None) -> None:
        self.limit = limit
        self.now = 0
        self.held = dict(held or {})
        self.bytes_held = sum(self.held.values())
        self.bytes_known = 0
        self._coming: deque[tuple[int, str, int]] = deque()
        self._taken: deque[tuple[int, str, int]] = deque()
        self._bytes_taken = 0
        self._uses: dict[str, deque[int]] = {}
        self._latest = [(-NEVER, name) for name in sorted(self.held)]

    def __len__(self) -> int:
        """Uses known from now on."""
        return len(self._taken) + len(self._coming)

    def expects(self, name: str) -> bool:
        """Whether a use of it is known."""
        return name in self._uses

    def learn(self, step: int, items: Sequence[tuple[str, int]]) -> None:
        """`step`, the one after the last known, will use these (name, size)."""
        for name, size in items:
            # a use per step and name, in the order of steps
            self._coming.append((step, name, size))
            self._uses.setdefault(name, deque()).append(step)
            self.bytes_known += size
            self._rank(name)

    def pass_to(self, now: int) -> None:
        """Steps before `now` are over."""
        self.now = now
        # uses that were taken and uses that were not are both over
        for uses in (self._taken, self._coming):
            while uses and uses[0][0] < now:
                _, name, size = uses.popleft()
                self._bytes_taken -= size if uses is self._taken else 0
                self.bytes_known -= size
                self._uses[name].popleft()
                if not self._uses[name]:
                    del self._uses[name]
                self._rank(name)

    def take(self, most: int) -> tuple[list[str], list[str]]:
        """What to fetch now, about `most` bytes in order of need, and what to drop for it.

        What the current step needs comes even if the limit is too small for it.
        """
        fetched: list[str] = []
        dropped: list[str] = []
        self._make_room(0, self.now, dropped)
        while self._coming and most > 0:
            # the next use in order of need
            step, name, size = self._coming[0]
            urgent = step <= self.now
            # what recurs keeps a share of the limit, so that reading ahead cannot push all of it
            # out
            full = self._bytes_taken + size > self.limit - self.limit // RESERVE
            if not urgent and (full or name in dropped):
                break
            if name not in self.held:
                if not self._make_room(size, step, dropped) and not urgent:
                    break
                self.held[name] = size
                self.bytes_held += size
                self._rank(name)
                fetched.append(name)
                most -= size
            self._taken.append(self._coming.popleft())
            self._bytes_taken += size
        return fetched, dropped

    def _make_room(self, nbytes: int, step: int, dropped: list[str]) -> bool:
        while self.bytes_held + nbytes > self.limit:
            if not self._latest:
                return False
            # a heap of negated next uses: the latest first
            minus_use, name = self._latest[0]
            # entries whose use has passed are stale, and only popped
            if name in self.held and -minus_use == self._next_use(name):
                # Belady: what is needed sooner than the newcomer stays
                if -minus_use <= step:
                    return False
                self.bytes_held -= self.held.pop(name)
                dropped.append(name)
            heapq.heappop(self._latest)
        return True

    def _next_use(self, name: str) -> int:
        return self._uses[name][0] if name in self._uses else NEVER

    def _rank(self, name: str) -> None:
        """Entries stay in the heap when a use passes; those that no longer are true are skipped."""
        if name not in self.held:
            return
        heapq.heappush(self._latest, (-self._next_use(name), name))
        # compacted when most entries are stale: the heap stays linear in what is held
        if len(self._latest) > 4 * len(self.held) + 1024:
            self._latest = [(-self._next_use(name), name) for name in self.held]
            heapq.heapify(self._latest)
