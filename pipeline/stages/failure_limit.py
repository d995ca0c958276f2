"""A fuse per source: media that fail in a row with one code are not worth days of decoding, nor
are the media that are there where most are not.

A blown fuse stops its source, not the step: archives of the other sources are read to their end, or
their files decoded to theirs. Then the build ends, and nothing is published until a person has
mended the source or allowed it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Set
from fractions import Fraction

from shards.errors import UserError
from shards.outcome import CODES

WINDOW = 1000  # media in a row, in the order in which they were done


class Fuse:
    """The last WINDOW media of each source; blown where too many were refused with one code."""

    def __init__(self, bounds: Mapping[str, Fraction]) -> None:
        """`bounds` is a share by source; a source without one is not watched."""
        self.bounds = bounds
        self.last = {name: deque[str]() for name in bounds}
        self.counts = {name: Counter[str]() for name in bounds}
        self.blown: dict[str, str] = {}

    def note(self, source: str, code: str) -> None:
        """What became of one medium: the code of its refusal, or "" if it was decoded."""
        if source not in self.bounds:
            return
        last, counts = self.last[source], self.counts[source]
        if len(last) == WINDOW:
            counts[last.popleft()] -= 1
        last.append(code)
        counts[code] += 1
        if len(last) == WINDOW and source not in self.blown:
            self._weigh(source)

    def _weigh(self, source: str) -> None:
        counts = self.counts[source]
        worst = max((code for code in counts if code), key=counts.__getitem__, default="")
        if worst and counts[worst] > self.bounds[source] * WINDOW:
            self.blown[source] = (
                f"of {WINDOW} media of {source!r} in a row {counts[worst]} were refused with "
                f"{worst} ({CODES[worst]})"
            )

    def weigh(self, source: str, lacking: Mapping[str, int], samples: int) -> str:
        """What to say of a source of whose samples too many lack their media, by code; or "".

        From WINDOW samples on its fuse blows instead.
        """
        worst = max(lacking, key=lacking.__getitem__, default="")
        if source not in self.bounds or not worst:
            return ""
        if lacking[worst] <= self.bounds[source] * samples:
            return ""
        told = (
            f"of {samples} samples of {source!r} {lacking[worst]} were refused with {worst} "
            f"({CODES[worst]})"
        )
        if samples < WINDOW:
            return told
        self.blown[source] = told
        return ""

    def lets_pass(self, sources: Set[str]) -> bool:
        """Whether one of the sources that name a medium is still whole; nobody's media pass."""
        return not sources or not sources <= self.blown.keys()

    def check(self, where: str) -> None:
        """Raise UserError if a fuse has blown."""
        if self.blown:
            raise UserError(
                f"{where}: {'; '.join(self.blown[name] for name in sorted(self.blown))}; nothing "
                "was published: mend the source, or give it a higher `max_refused` (0 to 1)"
            )
