"""Sums over groups and over segments are those of their members, one by one."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mixtures.sums import group_sums, segment_sums


@given(st.lists(st.lists(st.integers(-5, 2**31), max_size=4), max_size=6))
def test_segments_are_summed_each(lists: list[list[int]]) -> None:
    ends = np.concatenate([[0], np.cumsum([len(one) for one in lists])]).astype(np.int64)
    values = np.array([v for one in lists for v in one], np.int64)
    assert segment_sums(values, ends).tolist() == [sum(one) for one in lists]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2**31))))
def test_groups_are_summed_each(pairs: list[tuple[int, int]]) -> None:
    group, values = (np.array([pair[i] for pair in pairs], np.int64) for i in (0, 1))
    wanted = [sum(value for own, value in pairs if own == i) for i in range(5)]
    assert group_sums(values, group, 5).tolist() == wanted
