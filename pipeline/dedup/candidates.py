"""Which clips may show the same: pairs of pictures whose hashes are near in some view.

Every picture of the clips that ask is hashed in all its views (pipeline.dedup.transforms), and
without what stands still on it (pipeline.dedup.static_overlays), and joined with the hashes that
are stored (pipeline.dedup.hamming_join). Pictures that many clips share, such as a title or a
placeholder, are one hash with a list of clips; above CROWD of them only the first one is asked, so
that n equal pictures cost n comparisons, not n * n. Of a crowd of clips (pipeline.dedup.crowds) the
references ask, each for those of its crowd that are nearest, and the first few stand for all to be
found by. Whether a pair is found does not depend on how the asking clips are cut into parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet

import numpy as np
import pyarrow as pa

from pipeline.dedup.crowds import Crowded
from pipeline.dedup.fingerprint_arrays import Fingerprints, Hashed
from pipeline.dedup.fingerprints import Hashes
from pipeline.dedup.hamming_join import Ints, distinct, hamming_join
from pipeline.dedup.registration import Bools
from pipeline.dedup.static_overlays import filled, still
from pipeline.dedup.transforms import AS_IT_IS, SIDES_AND_CROPS, in_bars, transformed_hashes
from shards.index import CANDIDATES, table_of

FAR = 80  # bits; a logo moves a hash that far. Unrelated pictures: 106 and more
IMAGE_FAR = 64  # a smooth picture's high frequencies are its noise: JPEG q60 moves 58 bits
CROWD = 64
SEEDS = 4  # pairs of pictures per pair of clips and transform


def candidates(
    asking: Fingerprints, stored: Hashed, ours: AbstractSet[str], others: AbstractSet[str]
) -> pa.Table:
    """Rows of shards.index.CANDIDATES: of each pair one clip is of `ours`, one of `others`."""
    if not len(asking.clips):
        return CANDIDATES.empty_table()
    # equal hashes are one for the join, and clips again behind it
    hashes, picture, transform = _asked(asking)
    first, group = distinct(hashes)
    known, crowd = distinct(stored.hashes)
    pairs = hamming_join(hashes[first], stored.hashes[known], FAR)
    members = _members(group, len(first)), _members(crowd, len(known), CROWD)
    hit, asking_row, stored_row = _expanded(pairs.queries, pairs.stored, *members)
    hits = np.stack([picture[asking_row], transform[asking_row], stored_row, pairs.bits[hit]])
    return _table(asking, stored, hits, (ours, others))


def candidates_with_crowds(
    asking: Fingerprints,
    stored: Hashed,
    ours: AbstractSet[str],
    others: AbstractSet[str],
    crowded: Crowded,
) -> pa.Table:
    """The same where some clips stand in crowds; copies of a reference neither ask nor are asked
    for."""
    if not crowded.crowd:
        return candidates(asking, stored, ours, others)
    heads = crowded.heads()
    member = _those(stored.clips, crowded.is_member)
    rest = _those(stored.clips, lambda name: name in crowded.crowd and name not in heads) & ~member
    asks = [at for at, name in enumerate(asking.clips) if not crowded.is_member(name)]
    alone = [at for at in asks if asking.clips[at] not in crowded.crowd]
    # everybody asks for clips outside of crowds and for heads, only those outside for the rest
    found = [
        candidates(asking.only(asks), stored.only(~member & ~rest), ours, others),
        candidates(asking.only(alone), stored.only(rest), ours, others),
    ]
    pairs = pa.concat_tables(found)
    names = zip(pairs["asking"].to_pylist(), pairs["stored"].to_pylist(), strict=True)
    apart = [not crowded.together(one, other) for one, other in names]
    # and each reference for the nearest of its own crowd
    number = {name: at for at, name in enumerate(stored.clips)}
    nearest = (
        row
        for name in (asking.clips[at] for at in asks)
        for other in crowded.nearest.get(name, ())
        for row in upright(stored, number[name], number[other])
    )
    return pa.concat_tables(
        [pairs.filter(pa.array(apart, pa.bool_())), table_of(CANDIDATES, nearest)]
    )


def upright(hashed: Hashed, clip: int, other_clip: int) -> Iterator[dict[str, str | int]]:
    """Rows of CANDIDATES of two clips as they are: SEEDS of their hashed pictures, evenly."""
    seeds = []
    for number in (clip, other_clip):
        first, behind = np.searchsorted(hashed.clip, [number, number + 1])
        # the first, the last, and evenly between, of whatever number there is
        seeds.append(first + np.arange(SEEDS) * (behind - 1 - first) // (SEEDS - 1))
    names = hashed.clips[clip], hashed.clips[other_clip]
    for row, column in sorted({*zip(*(each.tolist() for each in seeds), strict=True)}):
        bits = int(np.bitwise_count(hashed.hashes[row] ^ hashed.hashes[column]).sum())
        pictures = int(hashed.picture[row]), int(hashed.picture[column])
        yield dict(zip(CANDIDATES.names, (*names, AS_IT_IS, bits, *pictures), strict=True))


def _those(names: Sequence[str], holds: Callable[[str], bool]) -> Bools:
    return np.array([holds(name) for name in names], np.bool_)


def _asked(asking: Fingerprints) -> tuple[Hashes, Ints, Ints]:
    """(hashes [n, 4], picture [n], transform [n]): all pictures in all views, the row of the
    picture in `asking.pictures`, and the number of the transform."""
    # the transforms that every clip has, of all pictures at once
    pictures = asking.pictures.astype(np.float32)
    whole = np.arange(len(pictures))
    hashes = [transformed_hashes(pictures, transform) for transform in SIDES_AND_CROPS]
    rows_and_numbers = [(whole, number) for number in range(len(SIDES_AND_CROPS))]
    for clip in range(len(asking.clips)):
        rows = asking.rows(clip)
        # what lies between black bars: where they are differs from clip to clip
        for number, transform in enumerate(in_bars(asking.pictures[rows]), len(SIDES_AND_CROPS)):
            hashes.append(transformed_hashes(pictures[rows], transform))
            rows_and_numbers.append((whole[rows], number))
        # and the picture as it is without its logo
        logo = still(pictures[rows])
        if logo.any():
            hashes.append(
                transformed_hashes(filled(pictures[rows], logo), SIDES_AND_CROPS[AS_IT_IS])
            )
            rows_and_numbers.append((whole[rows], AS_IT_IS))
    numbers = np.concatenate([np.full(len(rows), number) for rows, number in rows_and_numbers])
    # one row per hash: which picture, under which transform
    return np.concatenate(hashes), np.concatenate([rows for rows, _ in rows_and_numbers]), numbers


def _members(group: Ints, groups: int, most: int | None = None) -> tuple[Ints, Ints, Ints]:
    """(order, start, count): members of group g are order[start[g]:][:count[g]], in order; where
    they are more than `most`, only the first one."""
    size = np.bincount(group, minlength=groups)
    # counting sort: group sizes, their starts by a prefix sum, members in stable order
    start = np.cumsum(size) - size
    count = size if most is None else np.where(size > most, 1, size)
    return np.argsort(group, kind="stable"), start, count


def _expanded(
    left_groups: Ints,
    right_groups: Ints,
    left: tuple[Ints, Ints, Ints],
    right: tuple[Ints, Ints, Ints],
) -> tuple[Ints, Ints, Ints]:
    """(pair, member of its row's group, member of its column's group), every combination."""
    # the products of the two groups' members, one behind the other, each by its number within
    wide = right[2][right_groups]
    many = left[2][left_groups] * wide
    pair = np.repeat(np.arange(len(left_groups)), many)
    at = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
    # the number within the pair, by division: row-major in a table of left members x right members
    left_member = left[0][left[1][left_groups][pair] + at // wide[pair]]
    return pair, left_member, right[0][right[1][right_groups][pair] + at % wide[pair]]


def _table(
    asking: Fingerprints,
    stored: Hashed,
    hits: Ints,
    sides: tuple[AbstractSet[str], AbstractSet[str]],
) -> pa.Table:
    """The nearest SEEDS of each pair of clips and transform, one for each picture that asks."""
    # only pairs that were asked for: two clips of one kind, near enough for that kind
    picture, transform, stored_row, bits = hits
    a, b = asking.clip[picture], stored.clip[stored_row]
    names, others = np.array(asking.clips, object), np.array(stored.clips, object)
    asks_ours, asks_others = (np.array([name in side for name in names], bool)[a] for side in sides)
    holds_ours, holds_others = (
        np.array([name in side for name in others], bool)[b] for side in sides
    )
    # leaks are one-sided: training clips against held-out ones, whichever of them asks
    wanted = (asks_ours & holds_others) | (asks_others & holds_ours)
    far = np.where(asking.video[a], FAR, IMAGE_FAR)
    keep = (names[a] != others[b]) & (asking.video[a] == stored.video[b]) & wanted & (bits <= far)
    # the nearest picture for each that asks, then the SEEDS nearest of these per clips and
    # transform
    places = picture - asking.first[a], stored.picture[stored_row]
    rows = np.stack([a, b, transform, places[0], bits, places[1]])[:, keep]
    rows = _nearest(rows, 4, 1)
    rows = _nearest(rows[[0, 1, 2, 4, 3, 5]], 3, SEEDS)
    values = [names[rows[0]], others[rows[1]], *rows[2:]]
    return pa.table(dict(zip(CANDIDATES.names, values, strict=True)), schema=CANDIDATES)


def _nearest(rows: Ints, group: int, most: int) -> Ints:
    """Of rows [k, n] that agree in the first `group` values the least `most`, sorted."""
    # the place of a row in its group is how far it is behind the group's start
    rows = rows[:, np.lexsort(rows[::-1])]
    new = np.append(True, (rows[:group, 1:] != rows[:group, :-1]).any(axis=0))[: rows.shape[1]]
    start = np.maximum.accumulate(np.where(new, np.arange(len(new)), 0))
    return rows[:, np.arange(len(new)) - start < most]
