"""Position -> sample: the order of a manifest, sample by sample.

Arithmetic on the manifest alone: nothing here depends on world size, workers or history.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixtures.manifest.manifest import Manifest
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
    """A run of positions as arrays: source index, row in the source's table, epoch."""

    start: int
    source: NDArray[np.int64]
    row: NDArray[np.int64]
    epoch: NDArray[np.int64]


class Draws:
    """The samples of a manifest by position; those of weight recipes never end."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest

    def draw(self, start: int, stop: int) -> Draw:
        """Positions start..stop-1; IndexError beyond the end of a finite order."""
        manifest = self._manifest
        if start < 0 or (manifest.is_finite and stop > manifest.length):
            raise IndexError(f"positions {start}..{stop - 1} of {manifest.length}")
        source, before = manifest.schedule.at(start, stop), manifest.schedule.visits(start)
        row, epoch = np.empty_like(source), np.empty_like(source)
        for i, at in enumerate(places_by(source, len(manifest.tables))):
            if len(at):
                turns = np.arange(before[i], before[i] + len(at))
                row[at], epoch[at] = manifest.epochs.drawn(i, turns)
        return Draw(start=start, source=source, row=row, epoch=epoch)

    def records(self, draw: Draw) -> NDArray[np.void]:
        """The tables' rows at the positions of a draw."""
        tables = self._manifest.tables
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
        return self.samples_at(self.draw(start, stop), np.arange(stop - start))

    def samples_at(self, draw: Draw, places: NDArray[np.int64]) -> list[SampleReference]:
        """The samples at some places of a draw, which count its positions from 0."""
        return [self._sample_at(draw, place) for place in places.tolist()]

    def _sample_at(self, draw: Draw, place: int) -> SampleReference:
        i = int(draw.source[place])
        record = self._manifest.tables[i][draw.row[place]]
        return SampleReference(
            position=draw.start + place,
            source=self._manifest.names[i],
            key=record["key"].tobytes().hex(),
            epoch=int(draw.epoch[place]),
            tokens=int(record["tokens"]),
            patches=int(record["patches"]),
        )


def places_by(source: NDArray[np.int64], sources: int) -> list[NDArray[np.int64]]:
    """For each source: where it stands, ascending."""
    order = np.argsort(source.astype(np.uint16), kind="stable")  # by radix: 16 bits are enough
    ends = np.cumsum(np.bincount(source, minlength=sources))
    return np.split(order, ends[:-1])
