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

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import groupby, islice
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.dedup.candidates import candidates
from pipeline.dedup.detail_comparison import DIFFERENT, SAME, Shown, judged
from pipeline.dedup.fingerprint_arrays import Prints, hashed_of, prints_of
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
from pipeline.dedup.transforms import AS_IT_IS, SIDES_AND_CROPS, View, in_bars, seen, start
from shards.index import LEAKS, PAIRS, table_of

VIEWS_TRIED = 4
LIKELY = (128.0, 24.0, 0.8)  # Likeness.same of images that registration may still bring together
NEARLY = (80.0, 16.0, 0.8)  # after two steps of it; copies: at most 12, 2 and at least 0.99
_AT_ONCE = 256  # pairs of clips registered together

Row = dict[str, Any]


def duplicate_pairs(fingerprints: pa.Table) -> pa.Table:
    """Rows of shards.index.PAIRS for a table of shards.index.FINGERPRINTS, each pair once."""
    prints = prints_of(fingerprints)
    every = set(prints.clips)
    return same(candidates(prints, hashed_of(fingerprints), every, every), prints)


def leak_matches(
    fingerprints: pa.Table, held_out: pa.Table, benchmark: Mapping[str, str]
) -> pa.Table:
    """Rows of shards.index.LEAKS: clips that show what a held-out clip shows, by the same rules.

    `benchmark` names the benchmark of each held-out clip id. A clip that stands on both sides is
    an exact match.
    """
    ours = set(fingerprints["clip_id"].to_pylist())
    every = [held_out, fingerprints]
    prints, hashed = prints_of(pa.concat_tables(every)), hashed_of(pa.concat_tables(every))
    return leaks(same(candidates(prints, hashed, ours, set(benchmark)), prints), ours, benchmark)


def duplicates(pairs: pa.Table, ours: Collection[str]) -> pa.Table:
    """Those of the pairs whose clips are both among `ours`."""
    inside = [row["clip_a"] in ours and row["clip_b"] in ours for row in pairs.to_pylist()]
    return pairs.filter(pa.array(inside, pa.bool_()))


def leaks(pairs: pa.Table, ours: Collection[str], benchmark: Mapping[str, str]) -> pa.Table:
    """Rows of shards.index.LEAKS: clips of `ours` and the held-out clips that show the same."""
    found = [(name, name, "exact", 0, SAME) for name in ours if name in benchmark]
    for row in pairs.to_pylist():
        for one, other in ((row["clip_a"], row["clip_b"]), (row["clip_b"], row["clip_a"])):
            if one in ours and other in benchmark:
                found.append((one, other, row["relation"], row["distance"], row["judged"]))
    rows = [(one, benchmark[other], other, *rest) for one, other, *rest in sorted(found)]
    return table_of(LEAKS, (dict(zip(LEAKS.names, row, strict=True)) for row in rows))


def same(candidates: pa.Table, prints: Prints) -> pa.Table:
    """Rows of shards.index.PAIRS: those candidates that show the same, or may, each pair once."""
    rows = []
    for pair, each in sorted(_alike(candidates, prints).items()):
        judged = each.judged(prints)
        if judged != DIFFERENT:
            bits = 0 if each.relation == "exact" else each.tried.bits
            rows.append((*pair, each.relation, bits, judged))
    return table_of(PAIRS, (dict(zip(PAIRS.names, row, strict=True)) for row in rows))


def _alike(candidates: pa.Table, prints: Prints) -> dict[tuple[str, str], Alike]:
    """Which candidates look alike at 32 x 32.

    Where several views fit, an upright one wins over a mirrored one, and the nearer hash.
    """
    number = {name: at for at, name in enumerate(prints.clips)}
    tried = [_Tried(number, prints, rows) for rows in _by_view(candidates)]
    tried.sort(key=lambda each: (each.pair, not each.view.upright, each.bits, each.order))
    tried = [
        each
        for _, group in groupby(tried, key=lambda each: each.pair)
        for each in islice(group, VIEWS_TRIED)
    ]
    found: dict[tuple[str, str], Alike] = {}
    for pair, each in {each.pair: each for each in tried}.items():
        if each.exact(prints):
            found[pair] = Alike(each, "exact", HERE)
    rest = [each for each in tried if each.pair not in found]
    for each, place in _same_images([each for each in rest if not prints.video[each.a]], prints):
        relation = "near" if each.view.upright else "mirrored"
        found.setdefault(each.pair, Alike(each, relation, place))
    for each, fit in _fitting([each for each in rest if prints.video[each.a]], prints):
        if each.pair not in found:
            kind, line = each.relation(prints, fit)
            if kind:
                found[each.pair] = Alike(each, kind, fit.place, line)
    return found


def _by_view(candidates: pa.Table) -> Iterable[list[Row]]:
    """The rows of each pair of clips and view, the nearest first."""
    rows = candidates.sort_by([(name, "ascending") for name in candidates.column_names]).to_pylist()
    for _, group in groupby(rows, key=lambda row: (row["asking"], row["stored"], row["view"])):
        yield list(group)


class _Tried:
    """Two clips, `a` in a view of it, and the pairs of pictures that look alike."""

    def __init__(self, place: Mapping[str, int], prints: Prints, rows: list[Row]) -> None:
        names = rows[0]["asking"], rows[0]["stored"]
        self.pair = min(names), max(names)
        self.a, self.b = (place[name] for name in names)
        number = rows[0]["view"]
        self.order = (names, number)
        bars = (
            in_bars(prints.pictures[prints.rows(self.a)]) if number >= len(SIDES_AND_CROPS) else []
        )
        self.view: View = [*SIDES_AND_CROPS, *bars][number]
        self.bits = min(row["bits"] for row in rows)
        self.seeds: Ints = np.array(
            [(row["asking_picture"], row["stored_picture"]) for row in rows], np.int64
        )

    def exact(self, prints: Prints) -> bool:
        """The same pictures at the same times."""
        a, b = prints.rows(self.a), prints.rows(self.b)
        return (
            prints.details[self.a].data == prints.details[self.b].data
            and np.array_equal(prints.micros[a], prints.micros[b])
            and np.array_equal(prints.pictures[a], prints.pictures[b])
        )

    def relation(self, prints: Prints, fit: Fit) -> tuple[str, Line]:
        """What two videos are to each other where one lies so in the other, "" for nothing."""
        ours, theirs = (_film(prints, clip) for clip in (self.a, self.b))
        shown = replace(ours, pictures=seen(ours.pictures, self.view))
        kind, line = relation(laid_over(shown, theirs, fit))
        return "mirrored" if kind == "near" and not self.view.upright else kind, line

    def shown(self, prints: Prints, line: Line) -> tuple[Shown, Shown]:
        """What the two show in detail, the asking one as it is seen and on the other's clock."""
        ours, theirs = (_shown(prints, clip) for clip in (self.a, self.b))
        return replace(
            ours,
            micros=ours.micros * line.speed + line.offset,
            pictures=seen(ours.pictures, self.view),
            view=self.view,
        ), theirs


@dataclass(frozen=True, slots=True)
class Alike:
    """Two clips that look alike at 32 x 32: in which view, where one lies in the other, and on
    which line of their clocks."""

    tried: _Tried
    relation: str
    place: Floats
    line: Line = ONE_CLOCK

    def judged(self, prints: Prints) -> str:
        """SAME, DIFFERENT or UNDECIDED, by their details."""
        if self.relation == "exact":
            return SAME
        return judged(*self.tried.shown(prints, self.line), self.place)


def _shown(prints: Prints, clip: int) -> Shown:
    details, first = prints.details[clip], prints.first[clip]
    rows = first + details.pictures
    return Shown(
        video=bool(prints.video[clip]),
        micros=prints.micros[rows].astype(np.float64),
        pictures=smoothed(prints.pictures[rows].astype(np.float32)),
        details=details,
        view=SIDES_AND_CROPS[AS_IT_IS],
    )


def _film(prints: Prints, clip: int) -> Film:
    rows = prints.rows(clip)
    return film(prints.micros[rows], smoothed(prints.pictures[rows].astype(np.float32)))


def _same_images(tried: list[_Tried], prints: Prints) -> Iterable[tuple[_Tried, Floats]]:
    """Those whose pictures are the same after registration, and where they lie."""
    for at in range(0, len(tried), _AT_ONCE):
        some = tried[at : at + _AT_ONCE]
        ours, theirs, places, _ = _pictures(some, prints)
        near = np.flatnonzero(likeness(warped(ours, places), theirs, inside(places)).same(*LIKELY))
        for steps, limits in ((2, NEARLY), (8, FITS)):
            before = places[near]
            found = registered(ours[near], theirs[near], before, steps)
            like = likeness(warped(ours[near], found), theirs[near], inside(found))
            good = like.same(*limits) & plausible(found, before)
            near = near[good]
            places[near] = found[good]
        yield from ((some[each], places[each : each + 1]) for each in near)


def _fitting(tried: list[_Tried], prints: Prints) -> Iterable[tuple[_Tried, Fit]]:
    """Those whose videos lie in each other, and where."""
    for at in range(0, len(tried), _AT_ONCE):
        some = tried[at : at + _AT_ONCE]
        yield from ((some[number], fit) for number, fit in fits(*_pictures(some, prints)))


def _pictures(tried: list[_Tried], prints: Prints) -> tuple[Floats, Floats, Floats, Ints]:
    """The pictures of all seeds: the asking clip's as they are seen, the stored one's, where they
    lie, and the number of the pair of clips."""
    owner = np.repeat(np.arange(len(tried)), [len(each.seeds) for each in tried])
    starts = np.array([(prints.first[each.a], prints.first[each.b]) for each in tried])
    ours, theirs = (np.concatenate([each.seeds for each in tried]) + starts[owner]).T
    pictures = prints.pictures[ours].astype(np.float32)
    views = list(dict.fromkeys(each.view for each in tried))
    number = np.array([views.index(each.view) for each in tried])[owner]
    for at, view in enumerate(views):
        pictures[number == at] = seen(pictures[number == at], view)
    places = np.concatenate([start(view) for view in views])[number]
    others = prints.pictures[theirs].astype(np.float32)
    return smoothed(pictures), smoothed(others), places, owner
