"""A limit on the failure rate of each source (a circuit breaker): media that fail in a row with one
code are not worth days of decoding, nor are the records that are left where most were refused.

A limit that is reached stops its source, not the step: archives of the other sources are read to
their end, or their files decoded to theirs. Then the build ends, and nothing is published until a
person has mended the source or allowed it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Set
from fractions import Fraction

from shards.errors import UserError
from shards.outcome import CODES

WINDOW = 1000  # media in a row, in the order in which they were done
MOST = Fraction(1, 2)
"""Of the records of a source may be refused by admission, unless its recipe allows more."""


class FailureLimit:
    """The last WINDOW media of each source; one is stopped where too many were refused with one
    code."""

    def __init__(self, bounds: Mapping[str, Fraction]) -> None:
        """`bounds` is a share by source; a source without one is not watched."""
        self.bounds = bounds
        self.last = {name: deque[str]() for name in bounds}
        self.counts = {name: Counter[str]() for name in bounds}
        self.stopped: dict[str, str] = {}

    def note(self, source: str, code: str) -> None:
        """What became of one medium: the code of its refusal, or "" if it was decoded."""
        if source not in self.bounds:
            return
        last = self.last[source]
        counts = self.counts[source]
        # a sliding window: the oldest outcome leaves as the newest comes
        if len(last) == WINDOW:
            counts[last.popleft()] -= 1
        last.append(code)
        counts[code] += 1
        if len(last) == WINDOW and source not in self.stopped:
            self._weigh(source)

    def _weigh(self, source: str) -> None:
        counts = self.counts[source]
        # one code for all failures is a broken source; many codes are a mixed one
        worst = max((code for code in counts if code), key=counts.__getitem__, default="")
        if worst and counts[worst] > self.bounds[source] * WINDOW:
            self.stopped[source] = (
                f"of {WINDOW} media of {source!r} in a row {counts[worst]} were refused with "
                f"{worst} ({CODES[worst]})"
            )

    def weigh(self, source: str, refused: Mapping[str, int], records: int) -> str:
        """What to say of a source too many of whose records were refused, by code; or "".

        The source is stopped instead if these are more than half of them, whatever the codes, or,
        from WINDOW records on, if too many have one code. A second copy of a record has lost
        nothing.
        """
        if source not in self.bounds:
            return ""
        # in one step, since admission is done before its numbers are known
        bound = self.bounds[source]
        total = sum(refused.values())
        lost = {code: count for code, count in refused.items() if code != "ROW_DUPLICATE"}
        worst = max(lost, key=lost.__getitem__, default="")
        if total > max(bound, MOST) * records:
            self.stopped[source] = f"of {records} records of {source!r} {total} were refused"
        elif worst and lost[worst] > bound * records:
            message = (
                f"of {records} records of {source!r} {lost[worst]} were refused with {worst} "
                f"({CODES[worst]})"
            )
            if records < WINDOW:
                return message
            self.stopped[source] = message
        return ""

    def lets_pass(self, source_names: Set[str]) -> bool:
        """Whether one of the sources that name a medium is still whole; nobody's media pass."""
        # media that only stopped sources want are not read
        return not source_names or not source_names <= self.stopped.keys()

    def check(self, where: str) -> None:
        """Raise UserError if a source was stopped."""
        if self.stopped:
            reasons = "; ".join(self.stopped[name] for name in sorted(self.stopped))
            raise UserError(
                f"{where}: {reasons}; nothing was published: mend the source, or give it a higher "
                "`max_refused` (0 to 1)"
            )
