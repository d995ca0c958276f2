"""Duplicates and leaks: pure joins of fingerprints, independent of the order of their rows.

    fingerprints ─► candidates ─► alike ─► same in detail ─► duplicates, leaks

Hashes propose (pipeline.dedup.candidates), pictures decide: images by registration of one picture
(pipeline.dedup.registration), videos by their sequence of pictures
(pipeline.dedup.temporal_alignment); what is alike is compared once more, in detail
(pipeline.dedup.detail_comparison). Measured on the 1,797 digit scans: different ones lie 14 bits
apart and more, so hashes alone do not separate; after registration the largest difference of their
cells does (pipeline.dedup.registration.FITS).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dedup.candidates import candidates, candidates_with_crowds, upright
from pipeline.dedup.crowds import Crowded, crowds, settled
from pipeline.dedup.detail_comparison import DIFFERENT, SAME, Shown, judged
from pipeline.dedup.fingerprint_arrays import Fingerprints, fingerprints_of, hashed_of, only
from pipeline.dedup.fingerprints import Floats
from pipeline.dedup.hamming_join import Ints
from pipeline.dedup.registration import (
    FITS,
    HERE,
    inside,
    likeness,
    plausible,
    registered,
    smoothed,
    warped,
)
from pipeline.dedup.temporal_alignment import (
    ONE_CLOCK,
    Film,
    Fit,
    Line,
    film,
    fits,
    laid_over,
    relation,
)
from pipeline.dedup.transforms import AS_IT_IS, SIDES_AND_CROPS, Transform, in_bars, seen, start
from shards.index import CANDIDATES, CROWDS, LEAKS, PAIRS, REFERENCES, table_of

TRANSFORMS_TRIED = 4
LIKELY = (128.0, 24.0, 0.8)  # Likeness.same of images that registration may still bring together
NEARLY = (80.0, 16.0, 0.8)  # after two steps of it; copies: at most 12, 2 and at least 0.99
_AT_ONCE = 256  # pairs of clips registered together

Row = dict[str, Any]


def duplicate_pairs(table: pa.Table) -> pa.Table:
    """Rows of shards.index.PAIRS for a table of shards.index.FINGERPRINTS, each pair once."""
    fingerprints = fingerprints_of(table)
    clips = set(fingerprints.clips)
    return same(candidates(fingerprints, hashed_of(table), clips, clips), fingerprints)


def leak_matches(table: pa.Table, held_out: pa.Table, benchmark: Mapping[str, str]) -> pa.Table:
    """Rows of shards.index.LEAKS: clips that show what a held-out clip shows, by the same rules.

    `benchmark` names the benchmark of each held-out clip id. A clip that stands on both sides is
    an exact match.
    """
    ours = set(table["clip_id"].to_pylist())
    # one comparison over both tables: a clip on either side is fingerprinted once
    both = [held_out, table]
    fingerprints = fingerprints_of(pa.concat_tables(both))
    hashed = hashed_of(pa.concat_tables(both))
    return leaks(
        same(candidates(fingerprints, hashed, ours, set(benchmark)), fingerprints), ours, benchmark
    )


def duplicate_facts(table: pa.Table) -> tuple[pa.Table, pa.Table]:
    """(rows of REFERENCES, rows of PAIRS) for a table of FINGERPRINTS: as `duplicate_pairs`, but
    where clips crowd only representatives are compared with each other."""
    fingerprints, hashed = fingerprints_of(table), hashed_of(table)
    clips = set(fingerprints.clips)
    crowd_table = pa.concat_tables(
        [CROWDS.empty_table(), *(crowd_of(only(table, names)) for names in crowds(hashed))]
    )
    found = candidates_with_crowds(fingerprints, hashed, clips, clips, Crowded.of(crowd_table))
    return references(crowd_table), same(found, fingerprints)


def crowd_of(table: pa.Table) -> pa.Table:
    """Rows of shards.index.CROWDS for the fingerprints of one crowd."""
    fingerprints, hashed = fingerprints_of(table), hashed_of(table)

    def whole_copy(clip: int, other: int) -> tuple[str, int] | None:
        """How a clip is a copy of another from beginning to end, and by how many bits."""
        rows = table_of(CANDIDATES, upright(hashed, clip, other))
        for pair in same(rows, fingerprints.only([clip, other])).to_pylist():
            if pair["judged"] == SAME and pair["relation"] in ("exact", "near"):
                return pair["relation"], pair["distance"]
        return None

    return settled(fingerprints, hashed, whole_copy)


def references(crowd_table: pa.Table) -> pa.Table:
    """Rows of shards.index.REFERENCES: the copies among rows of CROWDS."""
    copies = crowd_table.filter(pc.not_equal(crowd_table["clip_id"], crowd_table["reference"]))
    return copies.select(REFERENCES.names).sort_by("clip_id")


def copies_of(reference_table: pa.Table) -> dict[str, list[str]]:
    """The copies of each reference."""
    found: dict[str, list[str]] = {}
    for row in reference_table.to_pylist():
        found.setdefault(row["reference"], []).append(row["clip_id"])
    return found


def duplicates(pair_table: pa.Table, ours: Collection[str]) -> pa.Table:
    """Those of the pairs whose clips are both among `ours`."""
    inside = [row["clip_a"] in ours and row["clip_b"] in ours for row in pair_table.to_pylist()]
    return pair_table.filter(pa.array(inside, pa.bool_()))


def leaks(
    pair_table: pa.Table,
    ours: Collection[str],
    benchmark: Mapping[str, str],
    copies: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> pa.Table:
    """Rows of shards.index.LEAKS: clips of `ours` and the held-out clips that show the same.

    What a reference matches, its `copies` match too.
    """
    # a clip that lies on both sides matches itself
    matches = [(name, name, "exact", 0, SAME) for name in ours if name in benchmark]
    for row in pair_table.to_pylist():
        # a pair may leak either way round, as ids order it
        for clip, other in ((row["clip_a"], row["clip_b"]), (row["clip_b"], row["clip_a"])):
            if clip in ours and other in benchmark:
                how = row["relation"], row["distance"], row["judged"]
                matches.append((clip, other, *how))
                # a copy of what is exact is near
                how = ("near", *how[1:]) if how[0] == "exact" else how
                matches += [(copy, other, *how) for copy in copies.get(clip, ())]
    rows = [(clip, benchmark[other], other, *rest) for clip, other, *rest in sorted(matches)]
    return table_of(LEAKS, (dict(zip(LEAKS.names, row, strict=True)) for row in rows))


def same(candidates: pa.Table, fingerprints: Fingerprints) -> pa.Table:
    """Rows of shards.index.PAIRS: those candidates that show the same, or may, each pair once."""
    rows = []
    for pair, similar in sorted(_similar_pairs(candidates, fingerprints).items()):
        judged = similar.judged(fingerprints)
        if judged != DIFFERENT:
            bits = 0 if similar.relation == "exact" else similar.tried.bits
            rows.append((*pair, similar.relation, bits, judged))
    return table_of(PAIRS, (dict(zip(PAIRS.names, row, strict=True)) for row in rows))


def _similar_pairs(
    candidates: pa.Table, fingerprints: Fingerprints
) -> dict[tuple[str, str], SimilarPair]:
    """Which candidates look alike at 32 x 32.

    Where several transforms fit, an upright one wins over a mirrored one, and the nearer hash.
    """
    number = {name: at for at, name in enumerate(fingerprints.clips)}
    tried = [_Tried(number, fingerprints, rows) for rows in _by_transform(candidates)]
    # upright before mirrored, then fewer bits, then the ids: a total order, whatever the tables'
    # order
    tried.sort(key=lambda trial: (trial.pair, not trial.transform.upright, trial.bits, trial.order))
    tried = [
        trial
        for _, group in groupby(tried, key=lambda trial: trial.pair)
        for trial in islice(group, TRANSFORMS_TRIED)
    ]
    similar: dict[tuple[str, str], SimilarPair] = {}
    # equal arrays need no registration
    for pair, trial in {trial.pair: trial for trial in tried}.items():
        if trial.exact(fingerprints):
            similar[pair] = SimilarPair(trial, "exact", HERE)
    # images and films are verified apart: one picture registered, or a sequence aligned
    rest = [trial for trial in tried if trial.pair not in similar]
    for trial, warp in _same_images(
        [trial for trial in rest if not fingerprints.video[trial.a]], fingerprints
    ):
        relation = "near" if trial.transform.upright else "mirrored"
        similar.setdefault(trial.pair, SimilarPair(trial, relation, warp))
    for trial, fit in _fitting(
        [trial for trial in rest if fingerprints.video[trial.a]], fingerprints
    ):
        if trial.pair not in similar:
            kind, line = trial.relation(fingerprints, fit)
            if kind:
                similar[trial.pair] = SimilarPair(trial, kind, fit.warp, line)
    return similar


def _by_transform(candidates: pa.Table) -> Iterable[list[Row]]:
    """The rows of each pair of clips and transform, the nearest first."""
    rows = candidates.sort_by([(name, "ascending") for name in candidates.column_names]).to_pylist()
    for _, group in groupby(rows, key=lambda row: (row["asking"], row["stored"], row["view"])):
        yield list(group)


class _Tried:
    """Two clips, `a` under a transform, and the pairs of pictures that look alike."""

    def __init__(
        self, number_of: Mapping[str, int], fingerprints: Fingerprints, rows: list[Row]
    ) -> None:
        names = rows[0]["asking"], rows[0]["stored"]
        # black bars are found anew from the stored pictures: only their number is in the table
        self.pair = min(names), max(names)
        self.a, self.b = (number_of[name] for name in names)
        number = rows[0]["view"]
        self.order = (names, number)
        bars = (
            in_bars(fingerprints.pictures[fingerprints.rows(self.a)])
            if number >= len(SIDES_AND_CROPS)
            else []
        )
        self.transform: Transform = [*SIDES_AND_CROPS, *bars][number]
        self.bits = min(row["bits"] for row in rows)
        self.seeds: Ints = np.array(
            [(row["asking_picture"], row["stored_picture"]) for row in rows], np.int64
        )

    def exact(self, fingerprints: Fingerprints) -> bool:
        """The same pictures at the same times."""
        a, b = fingerprints.rows(self.a), fingerprints.rows(self.b)
        return (
            fingerprints.details[self.a].data == fingerprints.details[self.b].data
            and np.array_equal(fingerprints.micros[a], fingerprints.micros[b])
            and np.array_equal(fingerprints.pictures[a], fingerprints.pictures[b])
        )

    def relation(self, fingerprints: Fingerprints, fit: Fit) -> tuple[str, Line]:
        """What two videos are to each other where one lies so in the other, "" for nothing."""
        ours, theirs = (_film(fingerprints, clip) for clip in (self.a, self.b))
        shown = replace(ours, pictures=seen(ours.pictures, self.transform))
        kind, line = relation(laid_over(shown, theirs, fit))
        return "mirrored" if kind == "near" and not self.transform.upright else kind, line

    def shown(self, fingerprints: Fingerprints, line: Line) -> tuple[Shown, Shown]:
        """What the two show in detail, the asking one as it is seen and on the other's clock."""
        ours, theirs = (_shown(fingerprints, clip) for clip in (self.a, self.b))
        return replace(
            ours,
            micros=ours.micros * line.speed + line.offset,
            pictures=seen(ours.pictures, self.transform),
            transform=self.transform,
        ), theirs


@dataclass(frozen=True, slots=True)
class SimilarPair:
    """Two clips that look alike at 32 x 32: under which transform, where one lies in the other, and
    on which line of their clocks."""

    tried: _Tried
    relation: str
    warp: Floats
    line: Line = ONE_CLOCK

    def judged(self, fingerprints: Fingerprints) -> str:
        """SAME, DIFFERENT or UNDECIDED, by their details."""
        if self.relation == "exact":
            return SAME
        return judged(*self.tried.shown(fingerprints, self.line), self.warp)


def _shown(fingerprints: Fingerprints, clip: int) -> Shown:
    details = fingerprints.details[clip]
    first = fingerprints.first[clip]
    rows = first + details.pictures
    return Shown(
        video=bool(fingerprints.video[clip]),
        micros=fingerprints.micros[rows].astype(np.float64),
        pictures=smoothed(fingerprints.pictures[rows].astype(np.float32)),
        details=details,
        transform=SIDES_AND_CROPS[AS_IT_IS],
    )


def _film(fingerprints: Fingerprints, clip: int) -> Film:
    rows = fingerprints.rows(clip)
    return film(fingerprints.micros[rows], smoothed(fingerprints.pictures[rows].astype(np.float32)))


def _same_images(
    tried: list[_Tried], fingerprints: Fingerprints
) -> Iterable[tuple[_Tried, Floats]]:
    """Those whose pictures are the same after registration, and where they lie."""
    for at in range(0, len(tried), _AT_ONCE):
        some = tried[at : at + _AT_ONCE]
        ours, theirs, warps, _ = _pictures(some, fingerprints)
        # a cascade, each filter dearer than the one before: as hashed, two steps of registration,
        # all steps
        near = np.flatnonzero(likeness(warped(ours, warps), theirs, inside(warps)).same(*LIKELY))
        for steps, limits in ((2, NEARLY), (8, FITS)):
            before = warps[near]
            refined = registered(ours[near], theirs[near], before, steps)
            like = likeness(warped(ours[near], refined), theirs[near], inside(refined))
            good = like.same(*limits) & plausible(refined, before)
            near = near[good]
            warps[near] = refined[good]
        yield from ((some[each], warps[each : each + 1]) for each in near)


def _fitting(tried: list[_Tried], fingerprints: Fingerprints) -> Iterable[tuple[_Tried, Fit]]:
    """Those whose videos lie in each other, and where."""
    for at in range(0, len(tried), _AT_ONCE):
        some = tried[at : at + _AT_ONCE]
        yield from ((some[number], fit) for number, fit in fits(*_pictures(some, fingerprints)))


def _pictures(
    tried: list[_Tried], fingerprints: Fingerprints
) -> tuple[Floats, Floats, Floats, Ints]:
    """The pictures of all seeds: the asking clip's as they are seen, the stored one's, where they
    lie, and the number of the pair of clips."""
    owner = np.repeat(np.arange(len(tried)), [len(trial.seeds) for trial in tried])
    # seeds are places within a clip; first[clip] makes them rows of the arrays
    starts = np.array(
        [(fingerprints.first[trial.a], fingerprints.first[trial.b]) for trial in tried]
    )
    ours, theirs = (np.concatenate([trial.seeds for trial in tried]) + starts[owner]).T
    pictures = fingerprints.pictures[ours].astype(np.float32)
    # one call per transform, not per seed
    distinct_transforms = list(dict.fromkeys(trial.transform for trial in tried))
    number = np.array([distinct_transforms.index(trial.transform) for trial in tried])[owner]
    for at, transform in enumerate(distinct_transforms):
        pictures[number == at] = seen(pictures[number == at], transform)
    warps = np.concatenate([start(transform) for transform in distinct_transforms])[number]
    others = fingerprints.pictures[theirs].astype(np.float32)
    return smoothed(pictures), smoothed(others), warps, owner
