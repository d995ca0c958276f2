"""What samples of an order hold, read from the pool's index: supervised tokens, clips. No media."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixtures.manifest.draws import Draw, Draws, places_by
from mixtures.manifest.manifest import Manifest
from mixtures.manifest.packs import Packs
from mixtures.pool.columns import admitted_rows
from mixtures.sums import group_sums
from shards.errors import UserError
from shards.id_arrays import ids_of, sorting
from shards.pool import Pool
from shards.sample import turns_from_json

AT_ONCE = 128
"""Steps whose samples are looked up together, and twice as many each time."""
MOST_LENGTHS = 100
"""A budget may be so many times what an endless order holds within its `length`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What the first steps of an order hold: tokens with a loss, and all of them.

    `samples` is a digest of their keys, pack by pack: runs of one digest train on the same samples.
    """

    steps: int
    supervised: int
    tokens: int
    samples: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stretch:
    """Some steps after each other: supervised and all tokens of each, and how many samples."""

    supervised: NDArray[np.int64]
    tokens: NDArray[np.int64]
    samples: int


class SupervisedTokens:
    """Supervised tokens along orders over one pool; each conversation is counted once."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._known: dict[tuple[str, str], int] = {}

    def steps_of(self, manifest: Manifest, global_batch: int, budget: int) -> Drawn:
        """What is drawn until so many are reached; UserError where the order ends before, or where
        its `length` would be gone through more than MOST_LENGTHS times."""
        steps, total, tokens, samples = 0, 0, 0, 0
        for stretch in self._stretches(manifest, global_batch):
            # how many of these steps reach the budget
            taken = int(np.searchsorted(total + np.cumsum(stretch.supervised), budget)) + 1
            steps += min(taken, len(stretch.supervised))
            total += int(stretch.supervised[:taken].sum())
            tokens += int(stretch.tokens[:taken].sum())
            if total >= budget:
                names = samples_digest(manifest, steps * global_batch)
                return Drawn(steps=steps, supervised=total, tokens=tokens, samples=names)
            samples += stretch.samples
            _check_budget(manifest, budget, total, samples)
        raise UserError(
            f"its order ends after {total:,} supervised tokens, the budget is {budget:,}; lower "
            "`budget`, or plan more repeats"
        )

    def in_steps(self, manifest: Manifest, global_batch: int, steps: int) -> int:
        """How many the first steps have together."""
        total = 0
        for stretch in self._stretches(manifest, global_batch):
            total += int(stretch.supervised[:steps].sum())
            steps -= len(stretch.supervised)
            if steps <= 0:
                break
        return total

    def _stretches(self, manifest: Manifest, global_batch: int) -> Iterator[_Stretch]:
        packs, draws, start, count = Packs(manifest, global_batch), Draws(manifest), 0, AT_ONCE
        # of each source the supervised tokens of its kept samples, -1 while they are not counted
        counts = [np.full(len(table), -1, np.int64) for table in manifest.tables]
        while packs.has_pack(start * global_batch):
            sums, samples, last = np.zeros((2, count), np.int64), 0, 0
            # the index is read as a whole each time, so more and more steps are asked for
            for draw, pack_of in packs.drawn(start * global_batch, (start + count) * global_batch):
                step_of = pack_of // global_batch - start
                values = self._of(manifest, draw, counts), draws.records(draw)["tokens"]
                sums += [group_sums(each, step_of, count) for each in values]
                samples, last = samples + len(step_of), int(step_of.max())
            yield _Stretch(
                supervised=sums[0, : last + 1], tokens=sums[1, : last + 1], samples=samples
            )
            start, count = start + count, count * 2

    def _of(
        self, manifest: Manifest, draw: Draw, counts: Sequence[NDArray[np.int64]]
    ) -> NDArray[np.int64]:
        """The supervised tokens of what is drawn; what `counts` does not know yet is counted."""
        supervised = np.empty(len(draw.row), np.int64)
        for source, places in enumerate(places_by(draw.source, len(counts))):
            rows = draw.row[places]
            unknown = np.unique(rows[counts[source][rows] < 0])
            if len(unknown):
                digits = manifest.tables[source]["key"][unknown].tobytes().hex()
                keys = [digits[32 * i : 32 * i + 32] for i in range(len(unknown))]
                counts[source][unknown] = self._counted(manifest, manifest.names[source], keys)
            supervised[places] = counts[source][rows]
        return supervised

    def _counted(self, manifest: Manifest, source: str, keys: Sequence[str]) -> list[int]:
        """The supervised tokens of samples of a source, each the sum over its conversations."""
        text = manifest.contents.text.tokenizer_sha256
        members = [manifest.members_of(source, key) for key in keys]
        fresh = {key for some in members for key in some if (text, key) not in self._known}
        for key, turns in rows_of(self._pool, manifest, source, sorted(fresh), "turns"):
            turns = turns_from_json(json.loads(turns))
            self._known[text, key] = manifest.codec.count_supervised(turns)
        return [sum(self._known[text, key] for key in some) for some in members]


def _check_budget(manifest: Manifest, budget: int, supervised: int, samples: int) -> None:
    """Raise UserError where an endless order would be gone through again and again."""
    if manifest.is_finite or samples < manifest.length:
        return
    # what was drawn so far says what one length holds
    of_length = supervised * manifest.length // samples
    if budget > MOST_LENGTHS * of_length:
        raise UserError(
            f"the budget of {budget:,} supervised tokens is {budget // max(of_length, 1):,} times "
            f"what its `length` of {manifest.length:,} samples holds, at most {MOST_LENGTHS} are "
            "trained; lower `budget`, or raise `length`"
        )


def samples_digest(manifest: Manifest, packs: int) -> str:
    """A digest of the keys of the first packs' samples, pack by pack."""
    draws, keys, sizes = Draws(manifest), hashlib.sha256(), hashlib.sha256()
    # two digests, so that it says nothing how many packs are read together
    for draw, pack_of in Packs(manifest).drawn(0, packs):
        keys.update(draws.records(draw)["key"].tobytes())
        sizes.update(pack_of.astype("<i8").tobytes())
    return keys.hexdigest()[:32] + sizes.hexdigest()[:32]


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
