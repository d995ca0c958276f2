"""Which clips may show the same: pairs of pictures whose hashes are near in some view.

Every picture of the clips that ask is hashed in all its views (pipeline.dedup.transforms), and
without what stands still on it (pipeline.dedup.static_overlays), and joined with the hashes that
are stored (pipeline.dedup.hamming_join). Pictures that many clips share, such as a title or a
placeholder, are one hash with a list of clips; above CROWD of them only the first one is asked, so
that n equal pictures cost n comparisons, not n * n. Whether a pair is found does not depend on how
the asking clips are cut into parts.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import numpy as np
import pyarrow as pa

from pipeline.dedup.fingerprint_arrays import Hashed, Prints
from pipeline.dedup.fingerprints import Hashes
from pipeline.dedup.hamming_join import Ints, distinct, near
from pipeline.dedup.static_overlays import filled, still
from pipeline.dedup.transforms import AS_IT_IS, SIDES_AND_CROPS, in_bars, view_hashes
from shards.index import CANDIDATES

FAR = 80  # bits; a logo moves a hash that far. Unrelated pictures: 106 and more
IMAGE_FAR = 64  # a smooth picture's high frequencies are its noise: JPEG q60 moves 58 bits
CROWD = 64
SEEDS = 4  # pairs of pictures per pair of clips and view


def candidates(
    asking: Prints, stored: Hashed, ours: AbstractSet[str], others: AbstractSet[str]
) -> pa.Table:
    """Rows of shards.index.CANDIDATES: of each pair one clip is of `ours`, one of `others`."""
    # equal hashes are one for the join, and clips again behind it
    hashes, picture, view = _asked(asking)
    first, group = distinct(hashes)
    known, crowd = distinct(stored.hashes)
    pairs = near(hashes[first], stored.hashes[known], FAR)
    members = _members(group, len(first)), _members(crowd, len(known), CROWD)
    hit, one, other = _expanded(pairs.queries, pairs.stored, *members)
    found = np.stack([picture[one], view[one], other, pairs.bits[hit]])
    return _table(asking, stored, found, (ours, others))


def _asked(asking: Prints) -> tuple[Hashes, Ints, Ints]:
    """(hashes [n, 4], picture [n], view [n]): all pictures in all views, the row of the picture in
    `asking.pictures`, and the number of the view."""
    # the views that every clip has, of all pictures at once
    pictures = asking.pictures.astype(np.float32)
    whole = np.arange(len(pictures))
    hashes = [view_hashes(pictures, view) for view in SIDES_AND_CROPS]
    asked = [(whole, number) for number in range(len(SIDES_AND_CROPS))]
    for clip in range(len(asking.clips)):
        rows = asking.rows(clip)
        # what lies between black bars: where they are differs from clip to clip
        for number, view in enumerate(in_bars(asking.pictures[rows]), len(SIDES_AND_CROPS)):
            hashes.append(view_hashes(pictures[rows], view))
            asked.append((whole[rows], number))
        # and the picture as it is without its logo
        logo = still(pictures[rows])
        if logo.any():
            hashes.append(view_hashes(filled(pictures[rows], logo), SIDES_AND_CROPS[AS_IT_IS]))
            asked.append((whole[rows], AS_IT_IS))
    numbers = np.concatenate([np.full(len(rows), number) for rows, number in asked])
    return np.concatenate(hashes), np.concatenate([rows for rows, _ in asked]), numbers


def _members(group: Ints, groups: int, most: int | None = None) -> tuple[Ints, Ints, Ints]:
    """(order, start, count): members of group g are order[start[g]:][:count[g]], in order; where
    they are more than `most`, only the first one."""
    size = np.bincount(group, minlength=groups)
    start = np.cumsum(size) - size
    count = size if most is None else np.where(size > most, 1, size)
    return np.argsort(group, kind="stable"), start, count


def _expanded(
    rows: Ints, columns: Ints, left: tuple[Ints, Ints, Ints], right: tuple[Ints, Ints, Ints]
) -> tuple[Ints, Ints, Ints]:
    """(pair, member of its row's group, member of its column's group), every combination."""
    # the products of the two groups' members, one behind the other, each by its number within
    wide = right[2][columns]
    many = left[2][rows] * wide
    pair = np.repeat(np.arange(len(rows)), many)
    at = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
    one = left[0][left[1][rows][pair] + at // wide[pair]]
    return pair, one, right[0][right[1][columns][pair] + at % wide[pair]]


def _table(
    asking: Prints, stored: Hashed, found: Ints, sides: tuple[AbstractSet[str], AbstractSet[str]]
) -> pa.Table:
    """The nearest SEEDS of each pair of clips and view, one for each picture that asks."""
    # only pairs that were asked for: two clips of one kind, near enough for that kind
    picture, view, other, bits = found
    a, b = asking.clip[picture], stored.clip[other]
    names, others = np.array(asking.clips, object), np.array(stored.clips, object)
    one, other_one = (np.array([name in side for name in names], bool)[a] for side in sides)
    two, other_two = (np.array([name in side for name in others], bool)[b] for side in sides)
    wanted = (one & other_two) | (other_one & two)
    far = np.where(asking.video[a], FAR, IMAGE_FAR)
    keep = (names[a] != others[b]) & (asking.video[a] == stored.video[b]) & wanted & (bits <= far)
    # the nearest picture for each that asks, then the SEEDS nearest of these per clips and view
    places = picture - asking.first[a], stored.picture[other]
    rows = np.stack([a, b, view, places[0], bits, places[1]])[:, keep]
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
