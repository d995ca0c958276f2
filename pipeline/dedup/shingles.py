"""Texts as sets of hashed n-grams of words: what near-duplicates and leaked questions share.

Words are runs of letters, marks and digits of the text in Unicode form NFC and lower case, so that
white space, punctuation and case do not count. A script that puts no space between words gives one
word per run. Hashes are 64 bits, the same on every machine; columns in, columns out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_BETWEEN_WORDS = r"[^\pL\pM\pN]+"
_BASE = np.uint64(0x9E3779B97F4A7C15)
Hashes = NDArray[np.uint64]
Ends = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """The words of texts: those of text i are `words[ends[i]:ends[i + 1]]`, hashed."""

    words: Hashes
    ends: Ends

    @property
    def counts(self) -> Ends:
        """Words per text."""
        return np.diff(self.ends)


def words_of(texts: Sequence[str] | pa.Array) -> Words:
    """The hashed words of texts."""
    column = pa.array(texts, pa.large_string())
    lower = pc.utf8_lower(pc.utf8_normalize(column, "NFC"))
    split = pc.split_pattern_regex(lower, _BETWEEN_WORDS)
    tokens = pc.list_flatten(split)
    text = np.asarray(pc.list_parent_indices(split), np.int64)
    # empty strings lie before the first and behind the last separator
    there = np.asarray(pc.not_equal(tokens, ""), bool)
    # each distinct word is hashed once: a corpus has far fewer words than tokens
    vocabulary = tokens.filter(pa.array(there)).dictionary_encode()
    hashes = np.array([_hash(word) for word in vocabulary.dictionary.to_pylist()], np.uint64)
    ends = np.searchsorted(text[there], np.arange(len(column) + 1))
    return Words(words=hashes[np.asarray(vocabulary.indices)], ends=ends.astype(np.int64))


def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")


def ngrams(words: Words, size: int) -> tuple[Hashes, Ends]:
    """The n-grams of each text in order, hashed; a text of fewer than `size` words has none.

    Text i has `grams[ends[i]:ends[i + 1]]`.
    """
    # prefix sums of max(words - size + 1, 0)
    ends = np.concatenate([[0], np.cumsum(np.maximum(words.counts - size + 1, 0))])
    grams = np.zeros(int(ends[-1]), np.uint64)
    first = np.arange(len(grams)) + np.repeat(words.ends[:-1] - ends[:-1], np.diff(ends))
    # polynomial rolling hash (Rabin and Karp, 1987) modulo 2^64, over all positions at once
    for place in range(size):
        grams = grams * _BASE + words.words[first + place]
    return _mixed(grams), ends


def wholes(words: Words) -> Hashes:
    """One hash per text, of all its words in order; 0 of a text without any."""
    hashes = np.zeros(len(words.counts), np.uint64)
    # texts of equal length form a matrix [texts, words], so that no loop runs over texts
    for size in np.unique(words.counts[words.counts > 0]).tolist():
        rows = np.flatnonzero(words.counts == size)
        there = words.words[words.ends[rows][:, None] + np.arange(size)]
        powers = np.cumprod(np.full(size, _BASE))[::-1]
        hashes[rows] = _mixed((there * powers).sum(axis=1, dtype=np.uint64))
    return hashes


def _mixed(numbers: Hashes) -> Hashes:
    """splitmix64's finaliser: every bit of a number reaches every bit of its hash."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
