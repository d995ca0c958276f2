"""Deduplication: duplicate pairs of a pool as clusters, and which of these are contaminated.

A cluster is a connected component of the pairs among one recipe's clips, found by union-find.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray


class Leak(NamedTuple):
    """What a clip matches: a benchmark, something held out of it, how they are related, and whether
    they are the `same` or it is `undecided`."""

    benchmark: str
    judged: str
    held_out: str
    relation: str


@dataclass(frozen=True, slots=True)
class Pairs:
    """Clips that show the same, by number: `pairs` [2, n] of clips, and `copies` [2, m] of clips
    with their references, which stand for them in pairs, whether or not anybody shows a reference.
    """

    pairs: NDArray[np.int64]
    copies: NDArray[np.int64]

    def among(self, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        """[2, k]: pairs of chosen clips that connect them as all that is known of them does.

        `chosen` says it of the first numbers; those behind are not chosen. Of a reference's chosen
        copies the least is paired with the others, and takes the reference's place.
        """
        clips = np.flatnonzero(chosen)
        copies = self.copies[:, self.copies[0] < len(chosen)]
        copies = copies[:, chosen[copies[0]]]
        # each clip is a copy of its own
        member, of = np.hstack([copies, np.stack([clips, clips])])
        known = 1 + max(len(chosen), self.pairs.max(initial=0), self.copies.max(initial=0))
        stands_for = np.full(known, known)
        np.minimum.at(stands_for, of, member)
        pairs = stands_for[self.pairs]
        # a pair counts where both of its sides have a chosen clip
        pairs = pairs[:, (pairs < known).all(axis=0)]
        pairs = np.hstack([pairs, np.stack([member, stands_for[of]])])
        return np.unique(np.sort(pairs[:, pairs[0] != pairs[1]], axis=0), axis=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What comparing the recipe's clips found, by their index in Clips.

    `cluster` names each clip's cluster by its least clip; `copies` are the pairs that show the
    same, upright and from beginning to end; `leaks` maps a cluster to the least leak of each
    benchmark, sorted: one that is the same comes before one that is undecided.
    """

    cluster: NDArray[np.int64]
    copies: Pairs
    leaks: dict[int, list[Leak]]

    @property
    def leaked(self) -> NDArray[np.bool_]:
        """Which clips are of a cluster that matches held-out media."""
        return np.isin(self.cluster, np.array(list(self.leaks), np.int64))


def compared(
    same: Pairs,
    whole: Pairs,
    wanted: NDArray[np.bool_],
    leaks: Iterable[tuple[int, Leak]],
) -> Comparison:
    """Pairs of duplicates, and leaks of single clips, as clusters among the clips `wanted`.

    `whole` are those of the pairs that are copies from beginning to end.
    """
    cluster = np.arange(len(wanted))
    for clip, least in components(same.among(wanted).T.tolist()).items():
        cluster[clip] = least
    leaked: dict[int, dict[str, Leak]] = defaultdict(dict)
    for clip, leak in leaks:
        # a cluster leaks what any of its clips does; of several matches the least is told
        known = leaked[int(cluster[clip])]
        known[leak.benchmark] = min(known.get(leak.benchmark, leak), leak)
    return Comparison(
        cluster=cluster,
        copies=whole,
        leaks={c: sorted(of.values()) for c, of in leaked.items()},
    )


Named = TypeVar("Named", int, str)
"""A clip by its index or by its id."""


def components(pairs: Iterable[tuple[Named, Named]]) -> dict[Named, Named]:
    """Clip -> the least clip of its connected component; clips without a pair are not there."""
    parent: dict[Named, Named] = {}

    def root(clip: Named) -> Named:
        # union-find with path halving (Tarjan and van Leeuwen 1984)
        while parent.setdefault(clip, clip) != clip:
            parent[clip] = clip = parent[parent[clip]]
        return clip

    for one, other in pairs:
        # the least member stays root, so the name of a cluster hangs on its members alone
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    return {clip: root(clip) for clip in list(parent)}
