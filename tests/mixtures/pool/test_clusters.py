"""Pairs among chosen clips: what references that nobody chose hold together stays together."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mixtures.pool.clusters import Pairs, components

CLIPS = 8
NUMBER = st.integers(0, CLIPS + 3)  # some references are clips of no recipe
LINKS = st.lists(st.tuples(NUMBER, NUMBER), max_size=8)
COPIES = st.dictionaries(st.integers(0, CLIPS - 1), NUMBER, max_size=6)


@given(LINKS, COPIES, st.lists(st.booleans(), min_size=CLIPS, max_size=CLIPS))
def test_chosen_clips_hang_together_as_over_their_references(
    pairs: list[tuple[int, int]], copies: dict[int, int], chosen: list[bool]
) -> None:
    facts = Pairs(_array(pairs), _array([*copies.items()]))
    found = components(facts.among(np.array(chosen)).T.tolist())
    # by definition: a graph of clips and references, of which those count that have a chosen clip
    clips = [clip for clip in range(CLIPS) if chosen[clip]]
    edges = [(f"clip {c}", f"of {c}") for c in clips]
    edges += [(f"clip {c}", f"of {copies[c]}") for c in clips if c in copies]
    there = {of for _, of in edges}
    edges += [(f"of {a}", f"of {b}") for a, b in pairs if {f"of {a}", f"of {b}"} <= there]
    expected = components(edges)
    for a in clips:
        for b in clips:
            together = found.get(a, a) == found.get(b, b)
            assert together == (expected[f"clip {a}"] == expected[f"clip {b}"])
    assert set(found) <= set(clips)


@given(LINKS)
def test_without_references_pairs_are_as_they_are(pairs: list[tuple[int, int]]) -> None:
    among = Pairs(_array(pairs), _array([])).among(np.ones(CLIPS + 4, bool))
    assert {*map(tuple, among.T.tolist())} == {(min(p), max(p)) for p in pairs if p[0] != p[1]}


def _array(rows: list[tuple[int, int]]) -> np.ndarray:
    return np.array(rows, np.int64).reshape(-1, 2).T
