"""Ranks hang on the sample alone, differ between epochs and sources, and never change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mixtures.order.ranking as ranking
from mixtures.manifest.epochs import Epochs
from mixtures.order.permutation import key_of
from mixtures.order.ranking import hashed, ranked
from mixtures.versions import PERMUTATION_ALGO

FIRST = np.arange(3)


def ids(count: int, seed: int = 0) -> np.ndarray:
    """Sorted ids."""
    data = np.random.default_rng(seed).bytes(16 * count)
    return np.frombuffer(b"".join(sorted(data[i : i + 16] for i in range(0, len(data), 16))), "V16")


MASK = (1 << 64) - 1


def mix(value: int) -> int:
    """splitmix64, written once more in plain integers."""
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def by_definition(keys: np.ndarray, salt: int, epoch: int) -> list[int]:
    """The rule in plain words: rows by hash, ties by row."""
    found = []
    for row, key in enumerate(keys):
        first, last = (int.from_bytes(key.tobytes()[i : i + 8], "big") for i in (0, 8))
        found.append((mix(mix(mix(salt ^ epoch) ^ first) ^ last), row))
    return [row for _, row in sorted(found)]


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(0, MASK), st.integers(0, 2**40))
def test_an_epoch_is_the_rows_sorted_by_hash(count: int, salt: int, epoch: int) -> None:
    keys = ids(count)
    (order,) = ranked(keys, salt, np.array([epoch]))
    assert order.tolist() == by_definition(keys, salt, epoch)


@settings(deadline=None)
@given(st.integers(1, 300), st.data())
def test_the_order_of_some_is_a_part_of_the_order_of_all(count: int, data: st.DataObject) -> None:
    keys = ids(count)
    kept = np.flatnonzero(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    whole, part = ranked(keys, 7, FIRST), ranked(keys[kept], 7, FIRST)
    for all_rows, some_rows in zip(whole, part, strict=True):
        assert all_rows[np.isin(all_rows, kept)].tolist() == kept[some_rows].tolist()


def test_hashes_whose_upper_halves_are_equal_are_told_apart_by_their_lower_halves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = np.random.default_rng(0).integers(0, 4, (3, 50), dtype=np.uint64)
    drawn = drawn << np.uint64(32) | drawn[::-1] >> np.uint64(1)
    monkeypatch.setattr(ranking, "hashed", lambda *_: drawn)
    found = ranked(ids(50), 0, FIRST)
    assert found.tolist() == np.argsort(drawn, axis=1, kind="stable").tolist()


def test_copies_of_a_sample_do_not_stand_side_by_side() -> None:
    keys = np.repeat(ids(500), 2)
    (order,) = ranked(keys, key_of(1, "a"), np.array([0]))
    assert sorted(order.tolist()) == list(range(1000))
    assert (abs(np.diff(order.astype(int) // 2)) == 0).sum() < 10
    (first,) = hashed(keys[::2], key_of(1, "a"), np.array([0]))
    assert hashed(keys, key_of(1, "a"), np.array([0]))[0, ::2].tolist() == first.tolist()


def test_the_order_is_the_one_of_ranked_keys_1() -> None:
    """A change of these orders must change the algorithm's name."""
    assert PERMUTATION_ALGO == "ranked-keys/1"
    keys = np.arange(20, dtype=">u8").view("V16")
    assert ranked(keys, key_of(17, "digits"), FIRST).tolist() == [
        [4, 5, 7, 2, 0, 9, 1, 8, 3, 6],
        [4, 8, 2, 3, 9, 7, 0, 1, 5, 6],
        [8, 9, 6, 4, 7, 5, 1, 3, 2, 0],
    ]


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 400), st.integers(0, 9000), st.integers(0, 600), st.integers(0, 2**32))
def test_an_epoch_shows_every_row_once(rows: int, start: int, more: int, seed: int) -> None:
    turns, epochs = np.arange(start, start + more), Epochs(seed, ["a"], [ids(rows)])
    row, epoch = epochs.drawn(0, turns)
    assert (epoch == turns // rows).all()
    whole = np.arange(start // rows * rows, (start // rows + 1) * rows)
    full, _ = epochs.drawn(0, whole)
    assert sorted(full.tolist()) == list(range(rows))
    inside = turns < whole[-1] + 1
    assert row[inside].tolist() == full[turns[inside] - whole[0]].tolist()


def test_orders_of_epochs_and_sources_are_independent() -> None:
    """Chi-square of (bucket in one, bucket in another): mean 225 of 225 degrees, sd 21."""
    size, buckets, keys = 4096, 16, ids(4096)
    epochs = Epochs(3, ["a", "b"], [keys, keys])
    rows = [epochs.drawn(source, np.arange(20 * size))[0] for source in (0, 1)]
    turns = [np.argsort(each.reshape(20, size), axis=1) for each in rows]
    pairs = [*zip(turns[0], turns[0][1:], strict=False), *zip(*turns, strict=True)]
    found = []
    for one, other in pairs:
        cell = one * buckets // size * buckets + other * buckets // size
        table = np.bincount(cell, minlength=buckets**2)
        found.append(float(((table - 16) ** 2 / 16).sum()))
    assert abs(np.mean(found) - (buckets - 1) ** 2) < 5 * 21 / len(found) ** 0.5
