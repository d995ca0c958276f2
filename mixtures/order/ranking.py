"""The shuffle of a source: its samples sorted by a keyed hash of their ids, anew in each epoch.

The hash is SplitMix64 (Steele, Lea and Flood, 2014). A sample's hash knows nothing of the others,
so the order of fewer samples is a part of the order of all. Nothing of this may change under its
name: manifests hold `PERMUTATION_ALGO`, the tests golden vectors.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixtures.order.permutation import splitmix
from shards.id_arrays import Ids, halves

_LOW = np.uint64((1 << 32) - 1)
_HALF = np.uint64(32)


def ranked(ids: Ids, salt: int, epochs: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Rows in the order of each epoch, [epochs, rows]: ascending by hash, ties by row.

    `ids` are the raw ids of the rows, equal ones beside each other; `salt` names the source.
    """
    # rank by hash is a random order whose restriction to any subset is the subset's own order
    drawn = hashed(ids, salt, epochs)
    rows = np.arange(len(ids), dtype=np.uint64)
    # sorted as plain numbers, the row beneath the hash's upper half: several times an argsort
    packed = (drawn & ~_LOW) | rows
    packed.sort(axis=1)
    order = (packed & _LOW).astype(np.uint32)
    packed >>= _HALF
    # equal upper halves (one pair in 2^32 or so) are told apart by the whole hash, then by row
    epoch, at = np.nonzero(packed[:, 1:] == packed[:, :-1])
    if len(at):
        tied = np.zeros(packed.shape, bool)
        tied[epoch, at] = tied[epoch, at + 1] = True
        epoch, at = np.nonzero(tied)
        tied_rows = order[epoch, at]
        order[epoch, at] = tied_rows[np.lexsort((tied_rows, drawn[epoch, tied_rows], epoch))]
    return order


def hashed(ids: Ids, salt: int, epochs: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The hash of each id in each epoch, [epochs, rows]; copies of an id are told apart."""
    first, last = halves(ids)
    last ^= _copies(first, last)
    # one salt an epoch; the two halves of an id are mixed in one after the other
    salts = splitmix(epochs.astype(np.uint64) ^ np.uint64(salt))
    return splitmix(splitmix(salts[:, None] ^ first) ^ last)


def _copies(first: NDArray[np.uint64], last: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """0 for an id, splitmix of its number (1, 2, ...) for each copy that follows it."""
    salts = np.zeros(len(first), np.uint64)
    fresh = np.ones(len(first), bool)
    fresh[1:] = (first[1:] != first[:-1]) | (last[1:] != last[:-1])
    if not fresh.all():
        # the number of a copy is its distance from the first of its run
        starts = np.flatnonzero(fresh)
        number = np.arange(len(first)) - np.repeat(starts, np.diff(np.append(starts, len(first))))
        salts[~fresh] = splitmix(number[~fresh].astype(np.uint64))
    return salts
