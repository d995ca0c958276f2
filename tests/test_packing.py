"""Packs lose nothing, keep both budgets, and come out without a burst of large samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixtures.packing import pack_window

SIZES = st.lists(st.tuples(st.integers(1, 100), st.integers(0, 400)), max_size=80)


@settings(deadline=None)
@given(SIZES, st.integers(0, 2**64 - 1))
def test_every_sample_is_in_one_pack_and_no_pack_is_over_budget(
    sizes: list[tuple[int, int]], key: int
) -> None:
    tokens, patches = [t for t, _ in sizes], [p for _, p in sizes]
    packs = pack_window(tokens, patches, 100, 400, key)
    assert sorted(i for pack in packs for i in pack) == list(range(len(sizes)))
    for pack in packs:
        assert pack == sorted(pack) and pack
        assert sum(tokens[i] for i in pack) <= 100
        assert sum(patches[i] for i in pack) <= 400


@settings(deadline=None)
@given(SIZES)
def test_the_key_changes_the_order_of_packs_only(sizes: list[tuple[int, int]]) -> None:
    tokens, patches = [t for t, _ in sizes], [p for _, p in sizes]
    one, other = (pack_window(tokens, patches, 100, 400, key) for key in (1, 2))
    assert sorted(one) == sorted(other)


def test_best_fit_decreasing_fills_what_is_left() -> None:
    packs = pack_window([60, 50, 40, 30, 20], [0] * 5, 100, 1, 0)
    assert sorted(packs) == [[0, 2], [1, 3, 4]]


def test_packs_of_many_small_samples_are_nearly_full() -> None:
    tokens = np.random.default_rng(0).integers(10, 400, 512)
    packs = pack_window(tokens, np.zeros(512, np.int64), 2048, 1, 0)
    assert len(packs) <= -(-int(tokens.sum()) // 2048) + 1


def test_large_samples_are_not_emitted_in_a_burst() -> None:
    tokens = [100] * 50 + [10] * 500
    packs = pack_window(tokens, [0] * 550, 100, 1, 7)
    large = [len(pack) == 1 for pack in packs]
    assert 15 < sum(large[:50]) < 35


def test_a_sample_larger_than_a_pack_is_a_bug() -> None:
    with pytest.raises(AssertionError):
        pack_window([101], [0], 100, 1, 0)
