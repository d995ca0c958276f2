"""The samples of one window into packs: best fit decreasing under two budgets, a pure function."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixtures.permutation import permute

PACK_ALGO = "bfd-window/1"


def pack_window(
    tokens: Sequence[int] | NDArray[np.int64],
    patches: Sequence[int] | NDArray[np.int64],
    max_tokens: int,
    max_patches: int,
    key: int,
) -> list[list[int]]:
    """Packs of sample indices, each in draw order, none over a budget, every sample once.

    Larger samples (by the fuller of the two budgets) choose first; each goes where least is left.
    The packs come out in the order of the permutation `key` names, so sizes make no burst.
    """
    sizes = np.stack([np.asarray(tokens, np.int64), np.asarray(patches, np.int64)], axis=1)
    budget = np.array([max_tokens, max_patches], np.int64)
    if (sizes > budget).any():
        raise AssertionError("a sample larger than a pack reached the packer")
    scale = budget[::-1]  # tokens * max_patches and patches * max_tokens have one unit
    order = np.argsort(-(sizes * scale).max(axis=1), kind="stable")
    left = np.empty((len(sizes), 2), np.int64)
    packs: list[list[int]] = []
    for item in order.tolist():
        after = left[: len(packs)] - sizes[item]
        fits = np.flatnonzero((after >= 0).all(axis=1))
        if len(fits):
            best = int(fits[np.argmin((after[fits] * scale).sum(axis=1))])
            left[best] = after[best]
            packs[best].append(item)
        else:
            left[len(packs)] = budget - sizes[item]
            packs.append([item])
    emitted = permute(np.arange(len(packs)), len(packs), key)
    return [sorted(packs[i]) for i in emitted.tolist()]
