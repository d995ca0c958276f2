"""Which frames are kept: the rule, its arithmetic, and what it says of a stream's clock."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from pipeline.media import frame_sampling

times = st.lists(st.integers(0, 10**7), min_size=1, max_size=60, unique=True).map(sorted)


@given(times, st.integers(1, 10**6), st.integers(1, 7))
def test_every_cell_keeps_its_first_frame_and_no_other(
    pts: list[int], numerator: int, denominator: int
) -> None:
    between = Fraction(numerator, denominator)
    chosen = frame_sampling.kept(pts, frame_sampling.cells(between, Fraction(1), capped=True))
    by_cell = {(time - pts[0]) // between: time for time in reversed(pts)}
    assert chosen == sorted(by_cell.values())


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
    between = frame_sampling.interval(seconds, fps, cap)
    capped = between > Fraction(1, fps)
    assert between >= Fraction(1, fps)
    rule = frame_sampling.cells(between, time_base, capped=capped)
    last = -(-seconds // time_base) - 1  # the last tick that lies within the duration
    if capped:
        assert (last * rule.factor + rule.slack) // rule.size < cap


def test_rounded_time_stamps_keep_their_rate() -> None:
    pts = [round(Fraction(1000 * i, 30)) for i in range(90)]  # 30 fps in Matroska's milliseconds
    rule = frame_sampling.cells(Fraction(1, 30), Fraction(1, 1000), capped=False)
    assert frame_sampling.kept(pts, rule) == pts


def test_the_rate_does_not_drift_when_it_divides_badly() -> None:
    pts = [40 * i for i in range(25 * 60)]  # a minute at 25 fps, in milliseconds
    chosen = frame_sampling.kept(
        pts, frame_sampling.cells(Fraction(1, 2), Fraction(1, 1000), capped=False)
    )
    assert len(chosen) == 120
    assert all(0 <= time - 500 * number < 40 for number, time in enumerate(chosen))


def test_variable_rate_is_told_from_rounding() -> None:
    assert not frame_sampling.is_vfr([round(Fraction(1001 * i, 30)) for i in range(90)])
    assert not frame_sampling.is_vfr([0, 1024, 2048, 3072])
    assert frame_sampling.is_vfr([0, 1024, 3072, 4096])
    assert not frame_sampling.is_vfr([0])


def test_a_frame_lasts_as_long_as_most_frames_do() -> None:
    assert frame_sampling.frame_ticks([0, 10, 20, 50], 3) == 10
    assert frame_sampling.frame_ticks([7], 3) == 3
