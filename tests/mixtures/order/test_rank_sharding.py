"""Dealing packs to ranks: fair in number, near fair in work, and golden lanes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mixtures.order.rank_sharding import shard_over_ranks
from mixtures.versions import RANK_SHARDING_ALGO


@given(st.lists(st.integers(0, 1000), max_size=40), st.integers(1, 12))
def test_dealing_is_fair_in_number_and_near_fair_in_work(costs: list[int], lanes: int) -> None:
    dealt = shard_over_ranks(costs, lanes)
    assert sorted(i for lane in dealt for i in lane) == list(range(len(costs)))
    counts = [len(lane) for lane in dealt]
    assert max(counts) - min(counts) <= 1
    loads = [sum(costs[i] for i in lane) for lane in dealt]
    if len(costs) % lanes == 0:
        assert max(loads) - min(loads) <= max(costs, default=0) * max(counts)


def test_this_is_lpt_counts_1() -> None:
    """A change of these lanes must change the algorithm's name."""
    assert RANK_SHARDING_ALGO == "lpt-counts/1"
    assert shard_over_ranks([5, 9, 1, 7, 3, 3, 8], 3) == [[1, 5], [2, 4, 6], [0, 3]]
