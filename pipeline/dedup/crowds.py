"""Crowds: many clips that are nearly one, copies of one clip or forms of one template.

Comparing all of n with all costs n * n. So a clip of a crowd is compared with representatives: in
the order of their ids, a clip that is a copy of an earlier one, from beginning to end at the same
times, has that one as its reference, and is looked at no more; any other is a reference itself, and
is judged against the NEAREST references before it. This is leader clustering (Hartigan, 1975), the
leaders told apart by one described picture (pipeline.dedup.details).

A reference is content: an id that stands for its copies whether or not a recipe shows the clip.
Crowds of at most MOST clips are compared as all others are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.dedup.details import LEVELS, unpacked
from pipeline.dedup.fingerprint_arrays import Fingerprints, Hashed
from pipeline.dedup.fingerprints import Floats, Hashes
from pipeline.dedup.hamming_join import Ints, neighbours
from pipeline.dedup.registration import smoothed
from shards.index import CROWDS, table_of

MOST = 16
NEAR = 64  # bits between neighbours; unrelated pictures: 106 and more
SEEN = 128  # references, the nearest by their hash, that a clip is laid over
NEAREST = 4  # of these, by their described picture, it is judged against
TIGHT = 1.1  # largest difference of a patch by what copies have; copies: 1.04, look-alikes: 1.38
TRIED = 2  # references that are as near as that and turn out not to be the same
SAME_TIMES = 60_000  # µs; a frame of 25 fps
_LEAST = 0.18  # what a patch of a copy may differ by, whatever the others do
_USUAL = ((0.75, 0.5), (0.9, 0.6))  # the quantiles of a copy's patches, and how much each allows
_STRUCTURE = 0.5  # of a tile that says something

Judge = Callable[[int, int], tuple[str, int] | None]
"""(clip, reference) -> (relation, distance) of a copy from beginning to end, or None."""


@dataclass(frozen=True, slots=True)
class Crowded:
    """What is known of the clips that stand in crowds, by their ids: which crowd (its least clip),
    which reference (itself, where it is one), and which others it is judged against."""

    crowd: Mapping[str, str]
    reference: Mapping[str, str]
    nearest: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, table: pa.Table) -> Crowded:
        """From rows of shards.index.CROWDS."""
        rows = table.to_pylist()
        return cls(*({row["clip_id"]: row[n] for row in rows} for n in CROWDS.names[1:4]))

    def is_member(self, name: str) -> bool:
        """Whether another clip stands for this one."""
        return self.reference.get(name, name) != name

    def heads(self) -> set[str]:
        """The first MOST references of each crowd: through them others find the crowd."""
        first_references: dict[str, list[str]] = {}
        for name in sorted(self.crowd):
            first = first_references.setdefault(self.crowd[name], [])
            if not self.is_member(name) and len(first) < MOST:
                first.append(name)
        return {name for first in first_references.values() for name in first}

    def together(self, clip_a: str, clip_b: str) -> bool:
        """Whether two clips stand in one crowd."""
        return clip_a in self.crowd and self.crowd[clip_a] == self.crowd.get(clip_b)


def crowds(hashed: Hashed) -> list[list[str]]:
    """The ids of the clips of each crowd, ascending: connected by hashes of their middle pictures
    that are near, more than MOST of one kind."""
    clips, middle = _middles(hashed)
    members: dict[int, list[str]] = {}
    for kind in (False, True):
        rows = np.flatnonzero(hashed.video[clips] == kind)
        label = connected(len(rows), *neighbours(middle[rows], NEAR))
        for row, least in zip(rows.tolist(), rows[label].tolist(), strict=True):
            members.setdefault(least, []).append(hashed.clips[clips[row]])
    return [names for names in members.values() if len(names) > MOST]


def _middles(hashed: Hashed) -> tuple[Ints, Hashes]:
    """(clip, hash of its middle picture) of every clip that has one."""
    # hashes lie clip by clip, in the order of time
    clips, first, count = np.unique(hashed.clip, return_index=True, return_counts=True)
    return clips, hashed.hashes[first + count // 2]


def connected(nodes: int, first: Ints, second: Ints) -> Ints:
    """The least node of each node's connected component."""
    label = np.arange(nodes)
    while True:
        # labels spread along edges, then each takes its label's own (Shiloach and Vishkin, 1982)
        before = label.copy()
        np.minimum.at(label, first, before[second])
        np.minimum.at(label, second, before[first])
        label = label[label]
        if (label == before).all():
            return label


def settled(fingerprints: Fingerprints, hashed: Hashed, judge: Judge) -> pa.Table:
    """Rows of shards.index.CROWDS of one crowd: each clip's reference, and what it is judged
    against. The clips lie in the order of their ids, on both sides the same."""
    clips, hashes = _middles(hashed)
    assert (clips == np.arange(len(fingerprints.clips))).all()
    looks = _Looks(fingerprints)
    leaders: list[int] = []
    rows = []
    for clip, name in enumerate(fingerprints.clips):
        known = np.array(leaders, np.int64)
        bits = np.bitwise_count(hashes[known] ^ hashes[clip]).sum(axis=1, dtype=np.int64)
        seen = np.argsort(bits, kind="stable")[:SEEN]
        off = looks.off(clip, known[seen])
        order = np.lexsort((known[seen], bits[seen], off))
        tight = [int(known[seen[at]]) for at in order[:TRIED] if off[at] <= TIGHT]
        near = [fingerprints.clips[known[seen[at]]] for at in order[:NEAREST]]
        found = next(_copies(fingerprints, clip, tight, judge), None)
        if found is None:
            leaders.append(clip)
            found = (clip, "", 0)
        of, relation, distance = found
        values = (name, fingerprints.clips[0], fingerprints.clips[of], near, relation, distance)
        rows.append(dict(zip(CROWDS.names, values, strict=True)))
    return table_of(CROWDS, rows)


def _copies(
    fingerprints: Fingerprints, clip: int, tried: Sequence[int], judge: Judge
) -> Iterator[tuple[int, str, int]]:
    """(reference, relation, distance) of those of which the clip is a copy at the same times."""
    for other in tried:
        times = [fingerprints.micros[fingerprints.rows(each)] for each in (clip, other)]
        apart = len(times[0]) != len(times[1]) or (abs(times[0] - times[1]) > SAME_TIMES).any()
        judged = None if apart else judge(clip, other)
        if judged is not None:
            yield other, *judged


class _Looks:
    """The middle described picture of each clip of a crowd, at every side that it has."""

    def __init__(self, fingerprints: Fingerprints) -> None:
        count = len(fingerprints.clips)
        # four bits a value, kept in a byte each; 0 is a picture without that side
        self.tiles = {s: np.zeros((count, n, n, 8), np.uint8) for s, n in LEVELS.items()}
        self.largest = np.zeros(count, np.int64)
        for clip, details in enumerate(fingerprints.details):
            if len(details.pictures):
                self.largest[clip] = max(details.sides)
                for side in details.sides:
                    every = unpacked(details.data, details.sides, side)
                    self.tiles[side][clip] = np.rint(every[len(every) // 2] * 4)

    def off(self, clip: int, rest: Ints) -> Floats:
        """By how much the most different patch of each of the others differs, as a share of what a
        copy's may; infinite where nothing can be told."""
        off = np.full(len(rest), np.inf, np.float32)
        # at the largest side that both have
        sides = np.minimum(self.largest[rest], self.largest[clip])
        for side in set(sides.tolist()) - {0}:
            some = np.flatnonzero(sides == side)
            every = self.tiles[side]
            off[some] = _shares(every[clip], every[rest[some]])
        return off


def _shares(tiles: np.ndarray, rest: np.ndarray) -> Floats:
    """The same for tiles [n, n, 8] and the rest [k, n, n, 8], where they are, unmoved."""
    # as pipeline.dedup.detail_comparison judges two pictures of one moment, without registration
    ours = tiles.astype(np.float32) / 4
    says = np.sqrt(smoothed((ours**2).sum(axis=-1)[None])[0]) > _STRUCTURE
    if says.sum() < 4:
        return np.full(len(rest), np.inf, np.float32)
    differences = rest.astype(np.float32) / 4 - ours
    patches = np.sqrt(smoothed(np.einsum("kijw,kijw->kij", differences, differences)))
    usual = np.quantile(patches[:, says], [share for share, _ in _USUAL], axis=1)
    allowed = _LEAST + np.array([many for _, many in _USUAL]) @ usual
    return np.asarray(patches.max(axis=(1, 2)) / allowed, np.float32)
