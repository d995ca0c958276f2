"""Duplicates and leaks: pure joins of fingerprints, independent of the order of their rows.

Frames: two frames *match* if their PDQ hashes are near (which makes them candidates) and no cell
of their 16 x 16 luma pictures differs much (which decides). Measured on 1,797 digit scans,
photographs and clips: hashes alone do not separate (different scans lie 14 bits apart, a rescaled
copy of one scan 40), the largest cell difference does (different scans: at least 48; copies
recompressed, scaled by 0.75 to 1.5, or crf 33: at most 21; a badly encoded shot: 30).

Videos: frames are compared at one offset in time, in order. Enough frames must match, and nothing
may contradict: where one clip stands still, the other may not show something else, and no frame may
match out of order. So clips over one background, or of one set of frames in two orders, stay apart.

All hashes are compared with all others in blocks: meant for up to about 10^5 hashes a side.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shards.index import LEAKS, PAIRS, table_of

CANDIDATE_BITS = 60  # copies: at most 50 bits (JPEG q10); unrelated photographs: at least 106
STILL_BITS = 31  # PDQ's own recommendation: all the evidence that a clip without change offers
MIRRORED_BITS = 96  # a mirrored hash is derived from the hash: up to 50 bits beside the true one
CELL_LIMIT = 36  # copies: at most 30; different scans of one digit: at least 48
MEAN_LIMIT = 8  # copies: at most 6.4; grass and gravel photographs of equal mean: at least 9
MIN_QUALITY = 50  # PDQ's own recommendation: black, blurred and single-coloured frames say nothing
MIN_DISTINCT = 3  # different pictures in a row; a still picture is no evidence of a shared origin
MAX_STILL_GAP = 1_100_000  # µs; between frames further apart, a still clip may have moved
SAME_TIME = 60_000  # µs; one frame of 25 fps, by which encoders shift
OFFSETS_TRIED = 8
_BLOCK = 128  # rows whose distances to 5,000 columns fit into a core's cache

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Fingerprints as arrays, sorted by clip and frame; `first[c]:first[c + 1]` are clip c's."""

    clips: list[str]
    video: Bools
    first: Ints
    clip: Ints
    micros: Ints
    hashes: npt.NDArray[np.uint64]
    thumbnails: npt.NDArray[np.int16]

    def rows(self, clip: int) -> slice:
        return slice(int(self.first[clip]), int(self.first[clip + 1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Clip `query` of one side shows what clip `other` of the other side shows."""

    query: int
    other: int
    relation: str
    distance: int


def duplicate_pairs(fingerprints: pa.Table) -> pa.Table:
    """Rows of shards.index.PAIRS for a table of shards.index.FINGERPRINTS, each pair once."""
    side = _side(fingerprints)
    rows = [
        {
            "clip_a": side.clips[min(m.query, m.other)],
            "clip_b": side.clips[max(m.query, m.other)],
            "relation": m.relation,
            "distance": m.distance,
        }
        for m in _matches(side, side, within=True)
    ]
    return table_of(PAIRS, sorted(rows, key=lambda r: (r["clip_a"], r["clip_b"])))


def leak_matches(
    fingerprints: pa.Table, held_out: pa.Table, benchmark: Mapping[str, str]
) -> pa.Table:
    """Rows of shards.index.LEAKS: clips that show what a held-out clip shows, by the same rules.

    `benchmark` names the benchmark of each held-out clip id. A clip that stands on both sides is
    an exact match.
    """
    side, held = _side(fingerprints), _side(held_out)
    rows = [
        {
            "clip_id": side.clips[m.query],
            "benchmark": benchmark[held.clips[m.other]],
            "held_out": held.clips[m.other],
            "relation": m.relation,
            "distance": m.distance,
        }
        for m in _matches(side, held, within=False)
    ]
    return table_of(LEAKS, sorted(rows, key=lambda r: (r["clip_id"], r["held_out"])))


def _side(table: pa.Table) -> Side:
    """Arrays of the frames that say something; a clip without any is left out."""
    good = np.asarray(table["quality"]) >= MIN_QUALITY
    table = table.filter(pa.array(good)).sort_by([("clip_id", "ascending"), ("frame", "ascending")])
    ids = np.array(table["clip_id"].to_pylist(), dtype=str)
    clips, first, clip = np.unique(ids, return_index=True, return_inverse=True)
    hashes = np.frombuffer(b"".join(table["hash"].to_pylist()), np.uint8).reshape(-1, 32)
    small = np.frombuffer(b"".join(table["thumbnail"].to_pylist()), np.uint8).reshape(-1, 16, 16)
    kinds = np.array(table["kind"].to_pylist(), dtype=str)
    return Side(
        clips=clips.tolist(),
        video=kinds[first] == "video",
        first=np.append(first, len(ids)).astype(np.int64),
        clip=clip.astype(np.int64),
        micros=np.asarray(table["micros"], np.int64),
        hashes=hashes.view(np.uint64),
        thumbnails=small.astype(np.int16),
    )


def _matches(side: Side, others: Side, *, within: bool) -> list[Match]:
    """All matches of clips of one kind; upright ones win over mirrored ones."""
    found: dict[tuple[int, int], Match] = {}
    for view, (hashes, thumbnails) in enumerate(_views(side)):
        seen = Side(
            clips=side.clips,
            video=side.video,
            first=side.first,
            clip=side.clip,
            micros=side.micros,
            hashes=hashes,
            thumbnails=thumbnails,
        )
        for query, other in _clip_pairs(seen, others, view > 0, within):
            if (query, other) not in found:
                match = _compared(seen, query, others, other, view > 0)
                if match is not None:
                    found[query, other] = match
    return list(found.values())


def _clip_pairs(side: Side, others: Side, mirrored: bool, within: bool) -> list[tuple[int, int]]:
    """Pairs of clips of one kind that have at least one pair of matching frames, sorted."""
    pairs: set[tuple[int, int]] = set()
    limit = MIRRORED_BITS if mirrored else CANDIDATE_BITS
    for rows, columns in _near(side.hashes, others.hashes, limit, within):
        a, b = side.clip[rows], others.clip[columns]
        keep = side.video[a] == others.video[b]
        if within:
            keep &= a < b
        rows, columns, a, b = rows[keep], columns[keep], a[keep], b[keep]
        alike = _alike(side.thumbnails[rows], others.thumbnails[columns])
        pairs.update(zip(a[alike].tolist(), b[alike].tolist(), strict=True))
    return sorted(pairs)


def _near(
    left: npt.NDArray[np.uint64], right: npt.NDArray[np.uint64], limit: int, within: bool
) -> Iterator[tuple[Ints, Ints]]:
    """(rows, columns) of all pairs within `limit` bits, block by block; `within`: column >= row."""
    for start in range(0, len(left), _BLOCK):
        skip = start if within else 0
        rows, columns = np.nonzero(_bits(left[start : start + _BLOCK], right[skip:]) <= limit)
        columns += skip
        for piece in range(0, len(rows), 1 << 16):  # so that thumbnails of a piece fit into memory
            part = slice(piece, piece + (1 << 16))
            yield rows[part] + start, columns[part]


def _bits(left: npt.NDArray[np.uint64], right: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint16]:
    """Differing bits of each hash of one side [n, 4] and each of the other [m, 4]: [n, m]."""
    total = np.zeros((len(left), len(right)), np.uint16)
    for word in range(left.shape[1]):
        total += np.bitwise_count(left[:, word, None] ^ right[None, :, word])
    return total


def _alike(left: npt.NDArray[np.int16], right: npt.NDArray[np.int16]) -> Bools:
    """Whether luma pictures [..., 16, 16] show the same: no cell far off, and near on average."""
    difference = abs(left - right)
    alike: Bools = difference.max((-2, -1)) <= CELL_LIMIT
    alike &= difference.mean((-2, -1)) <= MEAN_LIMIT
    return alike


def _views(side: Side) -> Iterator[tuple[npt.NDArray[np.uint64], npt.NDArray[np.int16]]]:
    """Hashes and luma pictures in the eight dihedral views; the upright view comes first.

    Bit 255 - (16 r + c) of a PDQ hash says whether the coefficient of the vertical frequency r + 1
    and the horizontal frequency c + 1 lies above the median. A mirror changes the sign of its odd
    frequencies, hence their bits (but for the median, which is near zero).
    """
    bits = np.unpackbits(side.hashes.view(np.uint8), axis=1)[:, ::-1].reshape(-1, 16, 16)
    odd = (np.arange(16) % 2 == 0).astype(np.uint8)
    for turned, down, across in itertools.product((False, True), repeat=3):
        hashes = bits.transpose(0, 2, 1) if turned else bits
        hashes = hashes ^ (odd[:, None] * down) ^ (odd[None, :] * across)
        packed = np.packbits(hashes.reshape(-1, 256)[:, ::-1], axis=1)
        shown = side.thumbnails.transpose(0, 2, 1) if turned else side.thumbnails
        shown = shown[:, :: -1 if down else 1, :: -1 if across else 1]
        yield packed.view(np.uint64), shown


def _compared(side: Side, query: int, others: Side, other: int, mirrored: bool) -> Match | None:
    """The relation of two clips that have matching frames, or None."""
    a, b = side.rows(query), others.rows(other)
    bits = _bits(side.hashes[a], others.hashes[b])
    limit = MIRRORED_BITS if mirrored else CANDIDATE_BITS
    matching = _alike(side.thumbnails[a, None], others.thumbnails[None, b]) & (bits <= limit)
    times, other_times = side.micros[a], others.micros[b]
    if not side.video[query]:
        relation, distance = "near", int(bits[0, 0])
    elif times[-1] - times[0] <= other_times[-1] - other_times[0]:
        still = _neighbours(side.thumbnails[a]), _neighbours(others.thumbnails[b])
        relation, distance = _aligned(times, other_times, matching, bits, *still)
    else:
        still = _neighbours(others.thumbnails[b]), _neighbours(side.thumbnails[a])
        relation, distance = _aligned(other_times, times, matching.T, bits.T, *still)
    if not relation or (mirrored and relation != "near"):
        return None
    if mirrored:
        relation = "mirrored"
    elif _identical(side, a, others, b):
        relation = "exact"
    return Match(query=query, other=other, relation=relation, distance=distance)


def _identical(side: Side, a: slice, others: Side, b: slice) -> bool:
    """The same hashes, pictures and times."""
    return (
        np.array_equal(side.micros[a], others.micros[b])
        and np.array_equal(side.hashes[a], others.hashes[b])
        and np.array_equal(side.thumbnails[a], others.thumbnails[b])
    )


def _neighbours(thumbnails: npt.NDArray[np.int16]) -> Bools:
    """Whether each frame shows the same as the next: bool[n - 1]."""
    return _alike(thumbnails[:-1], thumbnails[1:])


def _aligned(
    times: Ints, others: Ints, matching: Bools, bits: Any, still: Bools, others_still: Bools
) -> tuple[str, int]:
    """("near" | "contained" | "", bits) of a clip and one that is at least as long.

    `matching` is bool[n, m] over frames; times are in µs. Offsets are tried by number of matching
    frame pairs that speak for them.
    """
    step = int(np.median(np.diff(others))) if len(others) > 1 else SAME_TIME
    rows, columns = np.nonzero(matching)
    offsets, votes = np.unique(others[columns] - times[rows], return_counts=True)
    best = offsets[np.lexsort((abs(offsets), -votes))[:OFFSETS_TRIED]]
    # two clocks of one step show the same stretch at offsets up to half a step apart
    for offset in (best[:, None] + [0, step // 2, -(step // 2)]).ravel():
        moved = times + offset
        if moved[0] < others[0] - step or moved[-1] > others[-1] + step:
            continue
        place, there = _places(moved, others, matching)
        if _contradicts(others, matching, place, there, others_still):
            continue
        inside = (others >= moved[0]) & (others <= moved[-1])
        back, back_there = _places(others, moved, matching.T)
        if _contradicts(moved, matching.T, back, back_there, still, inside):
            continue
        nearest = np.where(matching, bits, 256).min(axis=1)[there]
        distance = int(np.median(nearest)) if len(nearest) else 256
        rest = abs(moved[0] - others[0]) + abs(moved[-1] - others[-1])
        relation = _verdict(there, still, distance, whole=rest <= step + SAME_TIME)
        if relation:
            return relation, distance
    return "", 256


def _places(times: Ints, others: Ints, matching: Bools) -> tuple[Ints, Bools]:
    """For each time the last frame of `others` not after it (-1: none), and whether that frame or
    the next one matches."""
    before = np.searchsorted(others, times + SAME_TIME, side="right") - 1
    rows = np.arange(len(times))
    after = before + 1
    there = (before >= 0) & matching[rows, before.clip(0)]
    there |= (after < len(others)) & matching[rows, after.clip(max=len(others) - 1)]
    return before.astype(np.int64), there


def _contradicts(
    others: Ints,
    matching: Bools,
    before: Ints,
    there: Bools,
    others_still: Bools,
    looked_at: Bools | None = None,
) -> bool:
    """Whether a frame is missing where the other clip stands still, or appears out of order."""
    missing = ~there if looked_at is None else ~there & looked_at
    elsewhere = missing & matching.any(axis=1)
    between = (before >= 0) & (before < len(others) - 1)
    at = before.clip(0, max(len(others) - 2, 0))
    if len(others) > 1:
        short = others[at + 1] - others[at] <= MAX_STILL_GAP
        stands = missing & between & others_still[at] & short
        return bool(elsewhere.any() or stands.any())
    return bool(elsewhere.any())


def _verdict(there: Bools, still: Bools, distance: int, *, whole: bool) -> str:
    """What matching frames amount to: enough of them, and enough different ones."""
    changes = np.append(True, ~still)  # a frame that differs from the one before it
    distinct = int((there & changes).sum())
    if distinct >= MIN_DISTINCT and 2 * there.sum() >= len(there):
        return "near" if whole else "contained"
    return "near" if whole and there.all() and distance <= STILL_BITS else ""
