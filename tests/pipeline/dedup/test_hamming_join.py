"""The join of hashes: what it keeps is exact, what it finds does not depend on how it is cut."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.dedup.fingerprints import Hashes
from pipeline.dedup.hamming_join import FULL, RADIUS, distinct, hamming_join


def flipped(draw: np.random.Generator, hashes: Hashes, bits: int) -> Hashes:
    """Each hash with `bits` of its bits flipped."""
    masks = np.zeros((len(hashes), 256), np.uint8)
    for mask in masks:
        mask[draw.choice(256, bits, replace=False)] = 1
    return hashes ^ np.packbits(masks, axis=1).view(np.uint64)


def random_hashes(draw: np.random.Generator, count: int) -> Hashes:
    return draw.integers(0, 1 << 64, (count, 4), np.uint64)


def pairs(left: Hashes, right: Hashes | None, limit: int) -> dict[tuple[int, int], int]:
    found = hamming_join(left, right, limit)
    keys = zip(found.queries.tolist(), found.stored.tolist(), strict=True)
    return dict(zip(keys, found.bits.tolist(), strict=True))


def test_nearly_every_pair_at_31_bits_is_found_and_no_other() -> None:
    draw = np.random.default_rng(3)
    hashes = random_hashes(draw, 4000)
    hashes[2000:3000] = flipped(draw, hashes[:1000], RADIUS)
    hashes[3000:] = flipped(draw, hashes[1000:2000], RADIUS + 1)
    found = pairs(hashes, None, RADIUS)
    assert set(found) <= {(place, place + 2000) for place in range(1000)}
    assert len(found) >= 990 and set(found.values()) == {RADIUS}


@given(st.integers(0, 2**32), st.integers(0, 24), st.integers(1, 60))
@settings(max_examples=20, deadline=None)
def test_bits_are_counted_exactly_and_parts_find_what_the_whole_finds(
    seed: int, bits: int, cut: int
) -> None:
    draw = np.random.default_rng(seed)
    stored = random_hashes(draw, 60)
    queries = flipped(draw, stored, bits)
    found = pairs(queries, stored, RADIUS)
    for (query, other), distance in found.items():
        assert distance == np.bitwise_count(queries[query] ^ stored[other]).sum() <= RADIUS
    parts = pairs(queries[:cut], stored, RADIUS) | {
        (query + cut, other): distance
        for (query, other), distance in pairs(queries[cut:], stored, RADIUS).items()
    }
    assert parts == found
    few = pairs(queries, stored[:cut], RADIUS)
    assert few == {pair: distance for pair, distance in found.items() if pair[1] < cut}


def test_hashes_that_crowd_into_one_bucket_are_not_all_compared() -> None:
    draw = np.random.default_rng(5)
    centre = np.repeat(random_hashes(draw, 1), 6000, axis=0)
    crowd = flipped(draw, centre, 20)
    crowd[3000:] = flipped(draw, crowd[:3000], 2)
    crowd = crowd[distinct(crowd)[0]]
    found = hamming_join(crowd, None, 2)
    assert found.compared < 110 * FULL * len(crowd) / 4  # all with all in each table: 6 times that
    assert len(found.bits) >= 2990


def test_equal_hashes_are_one() -> None:
    draw = np.random.default_rng(7)
    hashes = random_hashes(draw, 50)
    shown = hashes[draw.integers(0, 50, 400)]
    first, group = distinct(shown)
    assert (shown[first][group] == shown).all()
    assert len(first) == len({row.tobytes() for row in shown})
    assert [int(np.flatnonzero(group == each)[0]) for each in range(len(first))] == first.tolist()
    assert (
        len(hamming_join(hashes[:0], hashes, 31).bits)
        == len(hamming_join(hashes, hashes[:0], 31).bits)
        == 0
    )
