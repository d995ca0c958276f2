"""The permutation is one, is keyed, looks random, and never changes under its name."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mixtures.order.permutation import key_of, permute


@settings(deadline=None)
@given(st.integers(1, 5000), st.integers(0, 2**64 - 1))
def test_every_index_has_one_image(size: int, key: int) -> None:
    assert np.array_equal(np.sort(permute(np.arange(size), size, key)), np.arange(size))


@given(st.integers(1, 10**15), st.integers(0, 2**64 - 1), st.integers(0, 10**15))
def test_an_image_hangs_on_its_index_alone(size: int, key: int, index: int) -> None:
    index %= size
    alone = permute(np.array([index]), size, key)
    among = permute(np.array([size - 1, index, 0]), size, key)
    assert alone[0] == among[1] and 0 <= alone[0] < size


def test_the_permutation_is_the_one_of_feistel_splitmix64_1() -> None:
    assert permute(np.arange(10), 10, 1).tolist() == [0, 9, 2, 6, 7, 8, 3, 5, 1, 4]
    assert permute(np.arange(3), 1000, 2**63).tolist() == [942, 227, 321]
    assert permute(np.array([0, 10**12]), 10**13, key_of(17, "digits", 3)).tolist() == [
        5204503126178,
        9852597225901,
    ]


def test_keys_are_read_from_canonical_json() -> None:
    assert key_of(17, "digits", 3) == 5326772237870583830
    assert key_of(1, 23) != key_of(12, 3)


def test_images_are_spread_evenly_and_keys_are_independent() -> None:
    """Chi-square of (index bucket, image bucket) over many keys: mean 225 of 225 degrees, sd 21."""
    size, buckets = 4096, 16
    found = []
    for key in range(40):
        image = permute(np.arange(size), size, key_of("chi", key))
        cell = np.arange(size) * buckets // size * buckets + image * buckets // size
        table = np.bincount(cell, minlength=buckets**2)
        expected = size / buckets**2
        found.append(float(((table - expected) ** 2 / expected).sum()))
    assert abs(np.mean(found) - (buckets - 1) ** 2) < 5 * 21 / 40**0.5
    same = sum(
        (permute(np.arange(size), size, a) == permute(np.arange(size), size, a + 1)).sum()
        for a in range(40)
    )
    assert same < 40 + 5 * 40**0.5
