"""A fuse per source: media that fail in a row with one code are not worth days of decoding.

A blown fuse stops its source, not the run: the other sources are decoded to their end, and then
nothing is published until a person has mended the source or allowed it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from shards.errors import UserError
from shards.index import REFUSED
from shards.outcome import CODES
from shards.pool import Pool, Receipt

WINDOW = 1000  # media in a row, in the order in which they were done


class Fuse:
    """The last WINDOW media of each source; blown where too many were refused with one code."""

    def __init__(self, bounds: Mapping[str, Fraction], users: Mapping[str, Iterable[str]]) -> None:
        """`bounds` is a share by source, `users` the sources that name a clip."""
        self.bounds, self.users = bounds, users
        self.last = {name: deque[str](maxlen=WINDOW) for name in bounds}
        self.blown: dict[str, str] = {}

    def note(self, pool: Pool, receipt: Receipt) -> None:
        """What became of the media of one decoding."""
        if self.users.keys().isdisjoint(receipt.inputs):
            return
        codes: dict[str, str] = {}
        if receipt.counts.get("refused"):
            table = pool.table([receipt], "refused", REFUSED)
            codes = dict(zip(table["key"].to_pylist(), table["code"].to_pylist(), strict=True))
        for clip in receipt.inputs:
            for source in self.users.get(clip, ()):
                self.last[source].append(codes.get(clip, ""))
        for source in {s for clip in codes for s in self.users.get(clip, ())} - set(self.blown):
            self._weigh(source)

    def _weigh(self, source: str) -> None:
        found = Counter(code for code in self.last[source] if code)
        code, count = found.most_common(1)[0] if found else ("", 0)
        if len(self.last[source]) == WINDOW and count > self.bounds[source] * WINDOW:
            self.blown[source] = (
                f"of {WINDOW} media of {source!r} in a row {count} were refused with {code} "
                f"({CODES[code]})"
            )

    def lets_pass(self, rows: Iterable[Mapping[str, Any]]) -> bool:
        """Whether some source that names one of these media is still whole."""
        sources = {source for row in rows for source in self.users.get(row["clip_id"], ())}
        return not sources or not sources <= self.blown.keys()

    def check(self, where: str) -> None:
        """Raise UserError if a fuse has blown."""
        if self.blown:
            raise UserError(
                f"{where}: {'; '.join(self.blown[name] for name in sorted(self.blown))}; nothing "
                "was published: mend the source, or give it a higher `max_refused` (0 to 1)"
            )
