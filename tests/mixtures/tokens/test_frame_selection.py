"""Frame selection above the cap: counts, order, and what each rule is for."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixtures.tokens.frame_selection import SELECTIONS, at_rates, select
from mixtures.tokens.frame_view import view_clip
from mixtures.tokens.layout_types import LayoutConfig, View
from tests.support.clips import clip_of

SCORES = st.lists(st.integers(0, 255), min_size=1, max_size=300)


@given(SCORES, st.integers(1, 80), st.sampled_from(sorted(SELECTIONS)))
def test_every_rule_shows_as_many_as_it_may_in_order(
    scores: list[int], most: int, how: str
) -> None:
    found = select(len(scores), most, how, scores)
    assert len(found) == min(len(scores), most)
    assert found == sorted(set(found)) and 0 <= found[0] and found[-1] < len(scores)
    assert found == select(len(scores), most, how, scores)


@given(st.integers(2, 500), st.integers(2, 60))
def test_uniform_last_shows_both_ends(count: int, most: int) -> None:
    found = select(count, most, "uniform_last")
    assert (found[0], found[-1]) == (0, count - 1)


@given(st.integers(20, 400), st.integers(2, 20), st.sampled_from(["difference", "scene"]))
def test_without_any_change_the_steps_are_even(count: int, most: int, how: str) -> None:
    steps = [b - a for a, b in pairwise(select(count, most, how, [0] * count))]
    assert max(steps) - min(steps) <= 1


def test_every_shot_is_shown_and_long_shots_more_often() -> None:
    scores = [0] * 90
    for cut in (3, 5, 85):
        scores[cut] = 100
    found = select(90, 10, "scene", scores)
    shots = np.searchsorted([3, 5, 85], found, side="right")
    assert np.bincount(shots, minlength=4).tolist() == [1, 1, 7, 1]
    assert len(select(90, 2, "scene", scores)) == 2


def test_difference_looks_where_the_picture_changes() -> None:
    scores = [0] * 50 + [100] * 10 + [0] * 50
    found = select(110, 10, "difference", scores)
    assert sum(50 <= frame < 60 for frame in found) >= 8
    assert found[0] == 0


def test_query_takes_the_best_and_distant_peaks() -> None:
    scores = [0, 1, 9, 10, 9, 8, 0, 0, 5, 0, 0, 4, 0, 0]
    assert select(14, 4, "query", scores) == [2, 3, 8, 11]


def test_scores_that_are_missing_are_named() -> None:
    with pytest.raises(ValueError, match="scene needs 9 scores, one per frame, has 2"):
        select(9, 4, "scene", [1, 2])
    clip = clip_of(list(range(9)), (1, 1))
    with pytest.raises(ValueError, match="clip c: selection difference needs 9 scores"):
        view_clip(clip, View(cap=4, selection="difference"), LayoutConfig())


def test_the_chosen_times_are_returned() -> None:
    clip = replace(clip_of(list(range(40)), (1, 2)), differences=(0,) * 31 + (200,) + (0,) * 8)
    view = View(fps=1, cap=2, selection="difference")
    clip_view = view_clip(clip, view, LayoutConfig())
    assert clip_view.frames == (0, 32) and [float(s) for s in clip_view.seconds] == [0.0, 16.0]
    asked = view_clip(
        clip, View(fps=1, cap=2, selection="query"), LayoutConfig(), scores=[*range(40)]
    )
    assert asked.frames == (36, 38)


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(1, 60), max_size=30).map(lambda s: [0, *np.cumsum(s).tolist()]),
            st.tuples(st.integers(1, 3), st.integers(1, 50)),
        ),
        min_size=1,
        max_size=5,
    ),
    st.integers(1, 7),
)
def test_a_rate_shows_the_frame_nearest_to_each_of_its_times(
    clips: list[tuple[list[int], tuple[int, int]]], fps: int
) -> None:
    pts = np.array([time for times, _ in clips for time in times], np.int64)
    ends = np.cumsum([0, *(len(times) for times, _ in clips)])
    found = at_rates(np.array([base for _, base in clips], np.int64), pts, ends, fps)
    wanted = []
    for times, base in clips:
        ticks = (
            np.array(times) * base[0] * fps
        )  # of 1 / (fps * base[1]) seconds; k / fps is k * base[1]
        steps = np.arange(-(-(2 * ticks[-1] + base[1]) // (2 * base[1]))) * base[1]
        nearest = set(abs(ticks - steps[:, None]).argmin(1).tolist())
        wanted += [i in nearest for i in range(len(times))]
    assert found.tolist() == wanted
