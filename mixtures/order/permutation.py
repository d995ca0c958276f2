"""Shuffling in O(1) per index, without a table: the packs and the ranks of a step.

A balanced Feistel network of 6 rounds on the smallest even number of bits that holds n; the round
function is SplitMix64 (Steele, Lea and Flood, 2014); an index that lands outside 0..n-1 walks on
until it is inside (cycle walking; Black and Rogaway, 2002). Nothing of this may change under its
name: manifests hold `BATCH_ALGO`, the tests golden vectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixtures.versions import ROUNDS
from shards.ids import canonical_json, sha256_hex

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def key_of(*parts: Any) -> int:
    """A 64-bit key from integers and strings: the head of the sha256 of their canonical JSON."""
    return int(sha256_hex(canonical_json(list(parts)))[:16], 16)


def permute(indices: NDArray[np.int64], size: int, key: int) -> NDArray[np.int64]:
    """The images of `indices` (each in 0..size-1) under the permutation that `key` names."""
    if size < 2:
        return np.zeros(len(indices), np.int64)
    # the network works on 2 * half bits, at most four times as many values as there are
    half = ((size - 1).bit_length() + 1) // 2
    keys = [(key + r * _GOLDEN) & _MASK for r in range(ROUNDS)]
    round_keys = splitmix(np.array(keys, np.uint64))
    walking = np.asarray(indices).astype(np.uint64)
    outside = np.arange(len(walking))
    # cycle walking (Black and Rogaway 2002): put in again what lands outside, until it is inside
    while len(outside):
        walking[outside] = _feistel(walking[outside], half, round_keys)
        outside = outside[walking[outside] >= size]
    return walking.astype(np.int64)


def _feistel(
    word: NDArray[np.uint64], half: int, round_keys: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    bits = np.uint64(half)
    mask = np.uint64((1 << half) - 1)
    left = word >> bits
    right = word & mask
    # one round: halves change places, one of them mixed with the other under the round's key
    for round_key in round_keys:
        left, right = right, left ^ (splitmix(right ^ round_key) & mask)
    return (left << bits) | right


def splitmix(word: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's output function; wraps around by design."""
    word = word + np.uint64(_GOLDEN)
    # Steele, Lea and Flood 2014, with the constants of Vigna's splitmix64.c
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))
