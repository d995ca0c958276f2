"""What samples of an order hold, read from the pool's index: supervised tokens, clips. No media."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixtures.manifest.draws import SampleReference
from mixtures.manifest.manifest import Manifest
from mixtures.manifest.packs import Packs
from mixtures.pool.columns import admitted_rows
from shards.errors import UserError
from shards.id_arrays import ids_of, sorting
from shards.pool import Pool
from shards.sample import turns_from_json

AT_ONCE = 128
"""Steps whose samples are looked up together, and twice as many each time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What the first steps of an order hold: tokens with a loss, and all of them."""

    steps: int
    supervised: int
    tokens: int


class SupervisedTokens:
    """Supervised tokens along orders over one pool; each sample is counted once."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._known: dict[tuple[str, str], int] = {}

    def steps_of(self, manifest: Manifest, global_batch: int, budget: int) -> Drawn:
        """What is drawn until so many are reached; UserError where the order ends before."""
        total, tokens = 0, 0
        for step, (supervised, size) in enumerate(self._by_step(manifest, global_batch), 1):
            total, tokens = total + supervised, tokens + size
            if total >= budget:
                return Drawn(steps=step, supervised=total, tokens=tokens)
        raise UserError(
            f"its order ends after {total:,} supervised tokens, the budget is {budget:,}; lower "
            "`budget`, or plan more repeats"
        )

    def in_steps(self, manifest: Manifest, global_batch: int, steps: int) -> int:
        """How many the first steps have together."""
        counts = zip(range(steps), self._by_step(manifest, global_batch), strict=False)
        return sum(count for _, (count, _) in counts)

    def _by_step(self, manifest: Manifest, global_batch: int) -> Iterator[tuple[int, int]]:
        """(supervised tokens, all tokens) of each step."""
        packs, start, at_once = Packs(manifest, global_batch), 0, AT_ONCE
        text = manifest.contents.text.tokenizer_sha256
        while packs.has_pack(start):
            # the index is read as a whole each time, so more and more steps are asked for
            stop = start + at_once * global_batch
            drawn = packs.packs([n for n in range(start, stop) if packs.has_pack(n)])
            self._count(manifest, [one for pack in drawn for one in pack])
            for place in range(0, len(drawn), global_batch):
                some = [one for pack in drawn[place : place + global_batch] for one in pack]
                supervised = sum(
                    self._known[text, key]
                    for one in some
                    for key in manifest.members_of(one.source, one.key)
                )
                yield supervised, sum(one.tokens for one in some)
            start, at_once = stop, at_once * 2

    def _count(self, manifest: Manifest, drawn: Sequence[SampleReference]) -> None:
        """Count what is not known yet of these samples."""
        text = manifest.contents.text.tokenizer_sha256
        for source in manifest.names:
            keys = {
                key
                for one in drawn
                if one.source == source
                for key in manifest.members_of(source, one.key)
                if (text, key) not in self._known
            }
            for key, turns in rows_of(self._pool, manifest, source, sorted(keys), "turns"):
                turns = turns_from_json(json.loads(turns))
                self._known[text, key] = manifest.codec.count_supervised(turns)


def rows_of(
    pool: Pool, manifest: Manifest, source: str, keys: Sequence[str], column: str
) -> Iterator[tuple[str, Any]]:
    """(key, value of a column of the sample index) of conversations of a source."""
    if not keys:
        return
    receipts = pool.admitted({source: manifest.provenance[source]})
    wanted = np.frombuffer(bytes.fromhex("".join(keys)), "V16")
    table = admitted_rows(pool, receipts, column, wanted[sorting(wanted)])
    raw = ids_of(table["key"]).tobytes().hex()
    names = [raw[32 * i : 32 * i + 32] for i in range(len(table))]
    yield from zip(names, table[column].to_pylist(), strict=True)


def clip_of_samples(pool: Pool, manifest: Manifest) -> dict[str, str]:
    """The first clip of every sample of a manifest by its key; a sample without one is its own."""
    first_clips: dict[str, str] = {}
    for source, table in zip(manifest.names, manifest.tables, strict=True):
        keys = [row.tobytes().hex() for row in table["key"]]
        first = {key: manifest.members_of(source, key)[0] for key in keys}
        clips = dict(rows_of(pool, manifest, source, sorted(set(first.values())), "clip_ids"))
        first_clips |= {key: (clips[member] or [key])[0] for key, member in first.items()}
    return first_clips
