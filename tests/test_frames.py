"""Which frames are kept: the rule, its arithmetic, and what it says of a stream's clock."""

from __future__ import annotations

import itertools
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from pipeline import frames

times = st.lists(st.integers(0, 10**7), min_size=1, max_size=60, unique=True).map(sorted)


@given(times, st.integers(1, 10**6))
def test_kept_frames_are_at_least_one_interval_apart_and_none_is_passed_over(
    pts: list[int], ticks: int
) -> None:
    chosen = frames.kept(pts, ticks)
    assert chosen[0] == pts[0]
    assert all(b - a >= ticks for a, b in itertools.pairwise(chosen))
    for time in pts:
        last = max(c for c in chosen if c <= time)
        assert time == last or time - last < ticks


@given(
    st.integers(1, 4 * 3600 * 1000),
    st.integers(1, 30),
    st.integers(1, 600),
    st.sampled_from([Fraction(1, 1000), Fraction(1, 90_000), Fraction(1, 30)]),
)
def test_no_more_frames_than_the_cap_come_out_of_the_promised_duration(
    milliseconds: int, fps: int, cap: int, time_base: Fraction
) -> None:
    seconds = Fraction(milliseconds, 1000)
    between = frames.interval(seconds, fps, cap)
    capped = between > Fraction(1, fps)
    ticks = frames.ticks_apart(between, time_base, capped=capped)
    assert between >= Fraction(1, fps)
    last = -(-seconds // time_base) - 1  # the last tick that lies within the duration
    if capped:
        assert last // ticks + 1 <= cap


def test_rounded_time_stamps_keep_their_rate() -> None:
    assert frames.ticks_apart(Fraction(1, 2), Fraction(1, 1000), capped=False) == 500
    assert frames.ticks_apart(Fraction(1, 30), Fraction(1, 1000), capped=False) == 33
    pts = [round(Fraction(1000 * i, 30)) for i in range(90)]  # 30 fps in Matroska's milliseconds
    assert frames.kept(pts, 33) == pts


def test_variable_rate_is_told_from_rounding() -> None:
    assert not frames.is_vfr([round(Fraction(1001 * i, 30)) for i in range(90)])
    assert not frames.is_vfr([0, 1024, 2048, 3072])
    assert frames.is_vfr([0, 1024, 3072, 4096])
    assert not frames.is_vfr([0])


def test_a_frame_lasts_as_long_as_most_frames_do() -> None:
    assert frames.frame_ticks([0, 10, 20, 50], 3) == 10
    assert frames.frame_ticks([7], 3) == 3
