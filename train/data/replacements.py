"""What stands in for a damaged sample: another one of its source that fits into its place.

The choice hangs on the damaged sample, its epoch and what its source holds, so every rank layout,
and every rerun on the same damage, sees the same packs; no other position moves.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TypeVar

import numpy as np

from mixtures.manifest.draws import SampleReference
from mixtures.manifest.manifest import Manifest
from mixtures.order.permutation import key_of
from mixtures.order.ranking import hashed
from shards.errors import DamagedData

REPLACEMENT_ALGO = "smaller-of-source/2"
ATTEMPTS = 16
MOST = 10
MOST_PER_SAMPLE = 1 / 1000

Read = TypeVar("Read")
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class ReplacementSamples:
    """Replaces damaged samples, counts and logs them, and stops a run that meets too many."""

    manifest: Manifest
    read: int = 0
    replaced: int = 0
    _lock: Lock = field(default_factory=Lock)

    def count(self) -> None:
        """One sample was asked for."""
        with self._lock:
            self.read += 1

    def replace(
        self, drawn: SampleReference, damage: DamagedData, read: Callable[[SampleReference], Read]
    ) -> Read:
        """`read` of the first stand-in that is whole; DamagedData past the limit, or if none is."""
        # every replacement counts against the limit, also one that is damaged itself
        self._charge(damage)
        for replacement in self.candidates(drawn):
            try:
                replacement_read = read(replacement)
            except DamagedData as error:
                self._charge(error)
                continue
            _log.warning(
                "position %d: %s; sample %s stands in", drawn.position, damage, replacement.key
            )
            return replacement_read
        raise DamagedData(f"{damage}; no whole sample of {drawn.source!r} fits into its place")

    def candidates(self, drawn: SampleReference) -> Iterator[SampleReference]:
        """A few other samples of its source, none larger, in an order of the damaged sample's own.

        One sample more or less in the source changes nothing else in that order.
        """
        number = self.manifest.names.index(drawn.source)
        table = self.manifest.tables[number]
        # no larger in tokens or patches: the pack that was planned still holds
        rows = np.flatnonzero(
            (table["tokens"] <= drawn.tokens) & (table["patches"] <= drawn.patches)
        )
        salt = key_of(self.manifest.seed, drawn.source, REPLACEMENT_ALGO, drawn.key)
        # ranked by a keyed hash, as draws are: the same candidates on every rank
        (hashes,) = hashed(table["key"][rows], salt, np.array([drawn.epoch]))
        for row in rows[np.argsort(hashes, kind="stable")[:ATTEMPTS]].tolist():
            record = table[row]
            if record["key"].tobytes().hex() != drawn.key:
                yield replace(
                    drawn,
                    key=record["key"].tobytes().hex(),
                    tokens=int(record["tokens"]),
                    patches=int(record["patches"]),
                )

    def _charge(self, damage: DamagedData) -> None:
        with self._lock:
            self.replaced += 1
            # an absolute floor, so that short runs are not stopped by one bad sample
            if self.replaced > MOST + self.read * MOST_PER_SAMPLE:
                raise DamagedData(
                    f"{self.replaced} of {self.read} samples are damaged, the last: {damage}; "
                    "run `python -m shards verify` on shards, restore what is damaged, run again"
                )
