"""Sequence packing: a window's samples into packs, best fit decreasing under two budgets.

Best fit decreasing is Johnson's (1974) for bins of one size; here a bin has two, tokens for the
decoder and patches for the vision tower, and items go by the fuller of the two.

Many windows of one size are packed at once, one sample of each per step, as plain array arithmetic.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixtures.order.permutation import splitmix

_TOGETHER = 64
_CHECK_EVERY = 16
_SIGN = np.uint32(1 << 31)
"""Budgets and sizes are signed 32-bit integers, so that a missing fit shows in the sign bit."""
Integers = NDArray[np.integer]


def pack_windows(
    tokens: Integers, patches: Integers, max_tokens: int, max_patches: int
) -> NDArray[np.int32]:
    """Pack number of every sample, int32 [windows, size], from sizes of that shape.

    Every pack keeps both budgets. Larger samples (by the fuller of the two budgets, in 65,536ths)
    choose first, ties by place; each goes where the fewest tokens are left of those it fits into.
    """
    if (tokens > max_tokens).any() or (patches > max_patches).any():
        raise AssertionError("a sample larger than a pack reached the packer")
    # so many windows at once that numpy's cost per call is shared, so few that all stays in cache
    packs = np.empty(tokens.shape, np.int32)
    for start in range(0, len(tokens), _TOGETHER):
        some = slice(start, start + _TOGETHER)
        packs[some] = _pack(tokens[some], patches[some], max_tokens, max_patches)
    return packs


def _pack(
    tokens: Integers, patches: Integers, max_tokens: int, max_patches: int
) -> NDArray[np.int32]:
    windows, size = tokens.shape
    # item i of every window is placed in one step: columns are windows' i-th largest samples
    order = _decreasing(tokens, patches, max_tokens, max_patches)
    token_sizes = np.take_along_axis(tokens, order, 1).astype(np.int32)
    patch_sizes = np.take_along_axis(patches, order, 1).astype(np.int32)
    # what is left of the two budgets in every pack, opened or not; a pack a sample is enough
    tokens_left = np.full((windows, size), max_tokens, np.int32)
    patches_left = np.full((windows, size), max_patches, np.int32)
    packs = np.empty((windows, size), np.int32)
    every = np.arange(windows)
    # the last pack opened in each window: packs beyond it are whole and need not be looked at
    highest = np.zeros(windows, np.int64)
    for i in range(size):
        if i % _CHECK_EVERY == 0:  # a step opens one pack of a window at most
            opened = min(int(highest.max()) + 1 + _CHECK_EVERY, size)
        # tokens left after placing it: as unsigned numbers a missing fit is larger than any fit
        after = (tokens_left[:, :opened] - token_sizes[:, i, None]).view(np.uint32)
        beside = (patches_left[:, :opened] - patch_sizes[:, i, None]).view(np.uint32)
        after |= beside & _SIGN  # where it does not fit, a number above every number of tokens
        # best fit: the fewest tokens left, ties to the pack that was opened first
        chosen = after.argmin(1)
        tokens_left[every, chosen] -= token_sizes[:, i]
        patches_left[every, chosen] -= patch_sizes[:, i]
        packs[every, order[:, i]] = chosen
        np.maximum(highest, chosen, out=highest)
    return packs


def _decreasing(
    tokens: Integers, patches: Integers, max_tokens: int, max_patches: int
) -> NDArray[np.int64]:
    # the share of the fuller budget in 65,536ths: 16 bits, so that the stable sort is a radix sort
    fullness = np.maximum(
        tokens.astype(np.int64) * 65_535 // max_tokens,
        patches.astype(np.int64) * 65_535 // max_patches,
    )
    order: NDArray[np.int64] = np.argsort((65_535 - fullness).astype(np.uint16), 1, kind="stable")
    return order


def emission(packs: int, key: int) -> NDArray[np.int64]:
    """The order in which a window's packs come out: keyed, so that sizes make no burst."""
    # a window's large samples are packed first; in keyed order they do not come out together
    drawn = splitmix(np.arange(packs, dtype=np.uint64) ^ np.uint64(key))
    return np.argsort(drawn, kind="stable")
