"""Position -> sample: a draw order, sample by sample.

Arithmetic on the order alone: nothing here depends on world size, workers or history.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixtures.manifest.draw_order import DrawOrder
from mixtures.manifest.npy_tables import ROW

_RAW = np.dtype((np.void, ROW.itemsize))


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleReference:
    """The sample at a position: its source's name, key and epoch, and what it costs."""

    position: int
    source: str
    key: str
    epoch: int
    tokens: int
    patches: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Some positions as arrays of one length: position, source, row in its table, epoch."""

    position: NDArray[np.int64]
    source: NDArray[np.int64]
    row: NDArray[np.int64]
    epoch: NDArray[np.int64]

    def at(self, places: NDArray[np.int64]) -> Draw:
        """Those at some places of it, which count from 0, in that order."""
        return Draw(
            # the same places of every column
            position=self.position[places],
            source=self.source[places],
            row=self.row[places],
            epoch=self.epoch[places],
        )


class Draws:
    """The samples of an order by position; those of weight recipes never end."""

    def __init__(self, order: DrawOrder) -> None:
        self._order = order

    def draw(self, start: int, stop: int) -> Draw:
        """Positions start..stop-1; IndexError beyond the end of a finite order."""
        order = self._order
        if start < 0 or (order.is_finite and stop > order.length):
            raise IndexError(f"positions {start}..{stop - 1} of {order.length}")
        source = order.schedule.at(start, stop)
        before = order.schedule.visits(start)
        row = np.empty_like(source)
        epoch = np.empty_like(source)
        # source by source: its visits before `start` say which turn its first place here is
        for i, at in enumerate(places_by(source, len(order.tables))):
            if len(at):
                turns = np.arange(before[i], before[i] + len(at))
                row[at], epoch[at] = order.epochs.drawn(i, turns)
        return Draw(position=np.arange(start, stop), source=source, row=row, epoch=epoch)

    def records(self, draw: Draw) -> NDArray[np.void]:
        """The tables' rows at the positions of a draw."""
        tables = self._order.tables
        # gathered source by source, because each has a table of its own
        found = np.empty(len(draw.source), ROW)
        raw = found.view(_RAW)  # moved as bytes: field by field takes several times as long
        for i, at in enumerate(places_by(draw.source, len(tables))):
            raw[at] = tables[i].view(_RAW)[draw.row[at]]
        return found

    def keys(self, start: int, stop: int) -> bytes:
        """The keys at positions start..stop-1, 16 raw bytes each."""
        return self.records(self.draw(start, stop))["key"].tobytes()

    def sample(self, position: int) -> SampleReference:
        """The sample at a position."""
        return self.samples(position, position + 1)[0]

    def samples(self, start: int, stop: int) -> list[SampleReference]:
        """The samples at positions start..stop-1."""
        return self.references(self.draw(start, stop))

    def references(self, draw: Draw) -> list[SampleReference]:
        """The samples at the positions of a draw, column by column: one at a time costs tenfold."""
        records = self.records(draw)
        names = self._order.names
        # all keys in one conversion, 32 digits each
        digits = records["key"].tobytes().hex()
        columns = (draw.position, draw.source, draw.epoch, records["tokens"], records["patches"])
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return [
            SampleReference(
                position=position,
                source=names[source],
                key=digits[32 * i : 32 * i + 32],
                epoch=epoch,
                tokens=tokens,
                patches=patches,
            )
            for i, (position, source, epoch, tokens, patches) in enumerate(rows)
        ]


def places_by(source_at: NDArray[np.int64], sources: int) -> list[NDArray[np.int64]]:
    """For each source: where it stands, ascending."""
    order = np.argsort(source_at.astype(np.uint16), kind="stable")  # by radix: 16 bits are enough
    # one sort for all sources: what stands in source i lies between two ends
    ends = np.cumsum(np.bincount(source_at, minlength=sources))
    return np.split(order, ends[:-1])
