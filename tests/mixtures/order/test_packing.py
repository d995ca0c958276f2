"""Packs lose nothing, keep both budgets, and come out without a burst of large samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixtures.order.packing import emission, pack_windows
from mixtures.versions import PACK_ALGO

SIZE = st.tuples(st.integers(1, 100), st.integers(0, 400))
SIZES = st.lists(SIZE, min_size=1, max_size=60)
WINDOWS = st.integers(1, 12).flatmap(
    lambda n: st.lists(st.lists(SIZE, min_size=n, max_size=n), min_size=1, max_size=5)
)


def packed(sizes: list[tuple[int, int]], tokens: int = 100, patches: int = 400) -> list[list[int]]:
    """The packs of one window as lists of places."""
    (numbers,) = pack_windows(
        np.array([[t for t, _ in sizes]]), np.array([[p for _, p in sizes]]), tokens, patches
    )
    return [np.flatnonzero(numbers == pack).tolist() for pack in range(numbers.max() + 1)]


def by_the_book(sizes: list[tuple[int, int]], budgets: tuple[int, int]) -> list[list[int]]:
    """Best fit decreasing, one sample at a time."""
    fullness = [max(s * 65_535 // b for s, b in zip(size, budgets, strict=True)) for size in sizes]
    packs: list[tuple[list[int], list[int]]] = []
    for item in sorted(range(len(sizes)), key=lambda i: (-fullness[i], i)):
        tokens, patches = sizes[item]
        fits = [p for p in packs if p[1][0] >= tokens and p[1][1] >= patches]
        if not fits:
            packs.append(([], list(budgets)))
        items, left = min(fits, key=lambda p: p[1][0]) if fits else packs[-1]
        items.append(item)
        left[0], left[1] = left[0] - tokens, left[1] - patches
    return [sorted(items) for items, _ in packs]


@settings(deadline=None)
@given(SIZES)
def test_every_sample_is_in_one_pack_and_no_pack_is_over_budget(
    sizes: list[tuple[int, int]],
) -> None:
    packs = packed(sizes)
    assert sorted(i for pack in packs for i in pack) == list(range(len(sizes)))
    for pack in packs:
        assert pack
        assert sum(sizes[i][0] for i in pack) <= 100
        assert sum(sizes[i][1] for i in pack) <= 400


@settings(deadline=None)
@given(SIZES)
def test_packs_are_those_of_best_fit_decreasing(sizes: list[tuple[int, int]]) -> None:
    assert packed(sizes) == by_the_book(sizes, (100, 400))


@settings(deadline=None)
@given(WINDOWS)
def test_windows_packed_together_are_packed_as_alone(windows: list[list[tuple[int, int]]]) -> None:
    sizes = np.array(windows)
    together = pack_windows(sizes[:, :, 0], sizes[:, :, 1], 100, 400)
    for window, numbers in zip(windows, together, strict=True):
        tokens, patches = (np.array([[s[i] for s in window]]) for i in (0, 1))
        alone = pack_windows(tokens, patches, 100, 400)
        assert alone[0].tolist() == numbers.tolist()


def test_this_is_bfd_window_2() -> None:
    """A change of these packs must change the algorithm's name."""
    tokens = np.array([i * 37 % 59 + 1 for i in range(24)]).reshape(2, 12)
    patches = np.array([i * 101 % 301 for i in range(24)]).reshape(2, 12)
    assert PACK_ALGO == "bfd-window/2"
    assert pack_windows(tokens, patches, 100, 400).tolist() == [
        [1, 3, 3, 1, 2, 2, 0, 4, 1, 1, 4, 0],
        [2, 1, 3, 2, 2, 2, 0, 0, 1, 1, 3, 0],
    ]
    assert emission(8, 2**63 + 12345).tolist() == [1, 0, 5, 7, 6, 4, 3, 2]


def test_packs_of_many_small_samples_are_nearly_full() -> None:
    tokens = np.random.default_rng(0).integers(10, 400, (3, 512))
    for window, numbers in zip(
        tokens, pack_windows(tokens, np.zeros_like(tokens), 2048, 1), strict=True
    ):
        assert numbers.max() + 1 <= -(-int(window.sum()) // 2048) + 1


def test_large_samples_are_not_emitted_in_a_burst() -> None:
    packs = packed([(100, 0)] * 50 + [(10, 0)] * 500)
    large = [len(packs[i]) == 1 for i in emission(len(packs), 7).tolist()]
    assert 15 < sum(large[:50]) < 35


@given(st.integers(0, 300), st.integers(0, 2**64 - 1))
def test_every_pack_comes_out_once(packs: int, key: int) -> None:
    assert sorted(emission(packs, key).tolist()) == list(range(packs))


@pytest.mark.parametrize("size", [(101, 0), (1, 401)])
def test_a_sample_larger_than_a_pack_is_a_bug(size: tuple[int, int]) -> None:
    with pytest.raises(AssertionError):
        packed([size])
