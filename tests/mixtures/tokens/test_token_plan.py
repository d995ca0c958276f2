"""Visual tokens: the published table of counts, bounds over all shapes, and what pools what."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixtures.tokens.frame_selection import spread
from mixtures.tokens.frame_view import view_clip, view_frames, view_placement
from mixtures.tokens.layout_types import FAST, IMAGE, MEMORY, POOLED, SLOW, TIME, LayoutConfig, View
from mixtures.tokens.placement import grid_of, place
from mixtures.tokens.token_plan import (
    frames_used,
    plan_clip,
    plan_frames,
    pool_cells,
    time_text,
)
from tests.support.clips import clip_of

READING_A = LayoutConfig(timestamps="none")
READING_B = LayoutConfig(fast_mode="tokens", timestamps="none")
STAMPED = LayoutConfig(timestamps="per_frame_text")


def count(text: str) -> int:
    return len(text)


def laid_out(grid: tuple[int, int], frames: int, cfg: LayoutConfig, kind: str = "video") -> list:
    return plan_frames([grid] * frames, [0.0] * frames, kind, cfg, lambda _: 5)


def shown_grid(size: tuple[int, int], area: int) -> tuple[int, int]:
    shown = place(*size, area=area, min_area=288 * 288, cell=64)
    return grid_of(shown.width, shown.height)


@pytest.mark.parametrize(
    ("cfg", "area", "size", "grid", "content"),
    [
        (READING_A, 384 * 384, (1280, 1280), (24, 24), 9216),
        (READING_A, 384 * 384, (1280, 720), (16, 28), 7168),
        (READING_A, 384 * 384, (640, 480), (20, 28), 8960),
        (READING_B, 480 * 480, (1280, 1280), (28, 28), 8320),
        (READING_B, 480 * 480, (1280, 720), (20, 36), 7808),
        (READING_B, 480 * 480, (640, 480), (24, 32), 8192),
    ],
)
def test_a_video_takes_the_tokens_of_the_table(
    cfg: LayoutConfig, area: int, size: tuple[int, int], grid: tuple[int, int], content: int
) -> None:
    found = shown_grid(size, area)
    assert found == grid
    slots = laid_out(found, 128, cfg)
    assert sum(slot.n for slot in slots if slot.kind in POOLED) == content


@pytest.mark.parametrize("arrangement", ["gsf", "isf"])
@pytest.mark.parametrize(
    ("mode", "area"), [("stride", 384 * 384), ("tokens", 480 * 480)], ids=["A", "B"]
)
def test_no_video_within_3_to_1_takes_more_than_10240_tokens(
    mode: str, area: int, arrangement: str
) -> None:
    cfg = LayoutConfig(fast_mode=mode, arrangement=arrangement)
    side = range(64, 1472, 20)
    grids = {shown_grid((w, h), area) for w in side for h in side if w <= 3 * h and h <= 3 * w}
    layouts = [laid_out(grid, 128, cfg) for grid in grids]
    assert max(sum(slot.n for slot in slots) for slots in layouts) <= 10_240
    content = [sum(slot.n for slot in slots if slot.kind in POOLED) for slots in layouts]
    assert max(content) <= 9216


def test_a_video_is_slow_block_separator_fast_block() -> None:
    cfg = LayoutConfig(slow_frames=2, timestamps="none")
    kinds = [slot.kind for slot in laid_out((4, 4), 4, cfg)]
    slow = [SLOW, "newline"] * 2 + ["frame"]
    assert kinds == [
        "start",
        "slow_begin",
        *slow * 2,
        "separator",
        "fast_begin",
        *[FAST, "frame"] * 4,
        "end",
    ]
    assert [s.frame for s in laid_out((4, 4), 4, cfg) if s.kind == SLOW and s.row == 0] == [0, 2]


def test_a_short_video_is_all_slow() -> None:
    slots = laid_out((4, 4), 3, LayoutConfig())
    assert {slot.frame for slot in slots if slot.kind == SLOW} == {0, 1, 2}
    assert {slot.frame for slot in slots if slot.kind == FAST} == {0, 1, 2}


def test_pathways_choose_blocks() -> None:
    kinds = {
        path: Counter(
            s.kind for s in laid_out((4, 4), 6, LayoutConfig(slow_frames=2, pathways=path))
        )
        for path in ("both", "slow", "fast", "none")
    }
    assert kinds["none"] == Counter()
    assert FAST not in kinds["slow"] and SLOW not in kinds["fast"]
    assert kinds["both"][SLOW] == kinds["slow"][SLOW] and kinds["both"][FAST] == kinds["fast"][FAST]
    assert kinds["slow"]["separator"] == kinds["fast"]["separator"] == 0
    slow_only = laid_out((4, 4), 6, LayoutConfig(slow_frames=2, pathways="slow"))
    assert frames_used(slow_only) == (0, 3)


def test_an_image_has_rows_and_newlines() -> None:
    slots = laid_out((4, 6), 1, LayoutConfig(), "image")
    assert [(s.kind, s.n) for s in slots] == [
        ("start", 1),
        *[("image", 6), ("newline", 1)] * 4,
        ("end", 1),
    ]


def test_images_share_a_budget_down_to_a_floor_then_are_pooled() -> None:
    view, cfg = View(), LayoutConfig(image_token_budget=512)
    sizes = [view_placement("image", (1024, 1024), view, cfg, n)[:2] for n in (1, 2, 9)]
    assert sizes == [(352, 352), (256, 256), (256, 256)]
    for images, n in ((2, 16), (3, 8)):
        slots = plan_frames([(16, 16)], [0], "image", cfg, count, images)
        assert {slot.n for slot in slots if slot.kind == IMAGE} == {n}


def test_timestamps_stand_before_slow_frames_and_every_eighth_fast_one() -> None:
    cfg = LayoutConfig(slow_frames=4, timestamps="per_frame_text")
    slots = plan_frames([(4, 4)] * 20, [Fraction(i, 2) for i in range(20)], "video", cfg, count)
    texts = [slot.text for slot in slots if slot.kind == TIME]
    assert texts == ["0.0s", "2.5s", "5.0s", "7.5s", "0.0s", "4.0s", "8.0s"]
    assert all(slot.n == len(slot.text) for slot in slots if slot.kind == TIME)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0s"),
        (Fraction(1, 3), "0.3s"),
        (12.5, "12.5s"),
        (Fraction(5, 100), "0.1s"),
        (3599.9, "3599.9s"),
        (3600, "1:00:00"),
        (7384, "2:03:04"),
    ],
)
def test_times_are_written_as_people_write_them(seconds: Fraction | float, text: str) -> None:
    assert time_text(seconds) == text


@given(st.integers(0, 300), st.integers(1, 40))
def test_spread_is_increasing_and_starts_at_the_first(length: int, most: int) -> None:
    found = spread(length, most)
    assert len(found) == min(length, most)
    assert found == sorted(set(found)) and (not found or (found[0] == 0 and found[-1] < length))


@pytest.mark.parametrize("time_base", [(1, 30000), (1001, 30000), (1, 2), (1, 1000)])
def test_a_view_of_the_stored_rate_shows_every_frame(time_base: tuple[int, int]) -> None:
    # the frame on display at k / 2 seconds, of a 29.97 Hz video
    shown = [Fraction(int(Fraction(k, 2) * 30000 / 1001) * 1001, 30000) for k in range(60)]
    pts = [round(t * time_base[1] / time_base[0]) for t in shown]
    clip = clip_of(pts, time_base)
    assert view_frames(clip, View(fps=2, cap=128)) == list(range(60))
    half = view_frames(clip, View(fps=1, cap=128))
    assert len(half) == 30 and set(np.diff(half)) <= {1, 2, 3}
    assert view_frames(clip, View(fps=2, cap=15)) == [i * 4 for i in range(15)]


@given(st.lists(st.integers(1, 4000), max_size=80), st.integers(1, 4), st.integers(1, 50))
def test_a_view_of_uneven_times_is_increasing_and_capped(
    steps: list[int], fps: int, cap: int
) -> None:
    pts = np.cumsum([0, *steps]).tolist()
    found = view_frames(clip_of(pts, (1, 1000)), View(fps=fps, cap=cap))
    assert found[0] == 0 and found == sorted(set(found)) and len(found) <= cap
    assert found[-1] < len(pts)


def test_a_cell_averages_the_patches_it_covers() -> None:
    cells = pool_cells((4, 8), SLOW, 1, LayoutConfig())
    assert [cell.tolist() for cell in cells] == [
        [16, 17, 24, 25],
        [18, 19, 26, 27],
        [20, 21, 28, 29],
        [22, 23, 30, 31],
    ]
    with pytest.raises(ValueError, match="does not divide"):
        pool_cells((6, 8), FAST, 0, LayoutConfig())


@settings(deadline=None)
@given(
    st.sampled_from([4, 8, 12, 28, 40]),
    st.sampled_from([4, 8, 20, 24]),
    st.sampled_from([SLOW, FAST, IMAGE]),
    st.sampled_from(["stride", "tokens"]),
)
def test_cells_cover_every_patch_of_a_frame(rows: int, columns: int, kind: str, mode: str) -> None:
    cfg = LayoutConfig(fast_mode=mode, slow_frames=1)
    shown = "image" if kind == IMAGE else "video"
    slots = [s for s in laid_out((rows, columns), 1, cfg, shown) if s.kind == kind]
    cells = [pool_cells((rows, columns), kind, slot.row, cfg) for slot in slots]
    assert [len(row) for row in cells] == [slot.n for slot in slots]
    covered = np.concatenate([cell for row in cells for cell in row])
    assert set(covered.tolist()) == set(range(rows * columns))
    if mode == "stride" or kind != FAST:
        assert len(covered) == rows * columns


def test_a_look_is_what_the_layout_is_of() -> None:
    clip = clip_of(list(range(8)), (1, 2), size=(128, 64))
    clip_view = view_clip(clip, View(fps=1, cap=3, min_area=64 * 64), STAMPED)
    assert clip_view.grid == (4, 8) and clip_view.frames == (0, 2, 4)
    slots = plan_clip(clip_view, clip.kind, STAMPED, count)
    assert frames_used(slots) == (0, 1, 2)
    assert slots[2].text == time_text(clip_view.seconds[0])


def kinds_of(slots: list) -> list[str]:
    return [slot.kind for slot in slots]


def test_an_interleaved_video_tells_slow_and_fast_apart_in_time_order() -> None:
    cfg = LayoutConfig(arrangement="isf", slow_frames=2)
    slots = laid_out((4, 4), 4, cfg)
    slow, fast = [TIME, *[SLOW, "newline"] * 2, "frame"], [FAST, "separator"]
    assert kinds_of(slots) == ["start", *slow, *fast, *fast, *slow, *fast, *fast, "end"]
    frames = [slot.frame for slot in slots if slot.kind in ("frame", "separator")]
    assert frames == [0, 0, 1, 2, 2, 3]
    other = replace(cfg, fast_frames="complement")
    assert kinds_of(laid_out((4, 4), 4, other)).count(FAST) == 2


def test_a_bare_video_halves_columns_and_has_no_learned_vector() -> None:
    cfg = LayoutConfig(arrangement="v1", fast_mode="tokens", slow_frames=10, timestamps="none")
    slots = laid_out((24, 24), 50, cfg)
    assert set(kinds_of(slots)) == {"start", SLOW, FAST, "end"}
    assert sum(slot.n for slot in slots if slot.kind in POOLED) == 10 * 288 + 50 * 16 == 3680


def test_a_short_bare_video_repeats_slow_frames_as_apple_does() -> None:
    """linspace(0, frames, slow + 1) as integers, without the last: their index of slow frames."""
    for frames in (1, 3, 7, 10, 23):
        cfg = LayoutConfig(arrangement="v1", slow_frames=10, timestamps="none")
        slots = laid_out((4, 4), frames, cfg)
        slow = [slot.frame for slot in slots if slot.kind == SLOW and slot.row == 0]
        assert slow == np.linspace(0, frames, 11).astype(int)[:-1].tolist()


def test_queries_give_every_frame_the_same_tokens_whatever_its_size() -> None:
    cfg = LayoutConfig(arrangement="queries", queries=16)
    small, large = (laid_out(grid, 128, cfg) for grid in ((4, 4), (24, 24)))
    assert small == large
    assert sum(slot.n for slot in small if slot.kind == FAST) == 2048
    assert sum(slot.n for slot in laid_out((9, 5), 1, cfg, "image")) == 18


@pytest.mark.parametrize(("newlines", "rows"), [("none", 0), ("slow", 4), ("all", 6)])
def test_newlines_end_the_rows_they_are_asked_for(newlines: str, rows: int) -> None:
    cfg = LayoutConfig(slow_frames=2, newlines=newlines)
    assert kinds_of(laid_out((4, 4), 2, cfg)).count("newline") == rows


def test_the_sentence_lists_the_times_of_the_slow_frames_before_the_video() -> None:
    cfg = LayoutConfig(slow_frames=2, timestamps="sentence")
    slots = plan_frames([(4, 4)] * 4, [0, 1, 2, 3.5], "video", cfg, count)
    assert slots[0].text == "A video of 4 frames; seen at 0.0s, 2.0s.\n"
    assert slots[0].n == len(slots[0].text) and kinds_of(slots)[1] == "start"
    assert kinds_of(slots).count(TIME) == 1


def test_learned_times_take_no_token() -> None:
    learned, none = (LayoutConfig(timestamps=mode) for mode in ("learned", "none"))
    assert laid_out((4, 4), 9, learned) == laid_out((4, 4), 9, none)


def test_reading_c_shows_fast_what_is_not_slow() -> None:
    cfg = LayoutConfig(fast_frames="complement", timestamps="none")
    slots = laid_out((24, 24), 128, cfg)
    assert sum(slot.n for slot in slots if slot.kind in POOLED) == 8064


@pytest.mark.parametrize("arrangement", ["gsf", "isf"])
def test_the_defaults_at_one_to_one_take_10003_tokens(arrangement: str) -> None:
    cfg = LayoutConfig(arrangement=arrangement)
    total = sum(slot.n for slot in laid_out((24, 24), 128, cfg))
    # an interleaved video has stamps at slow frames only, and no block switch
    assert total - 2 == {"gsf": 10_003, "isf": 10_003 - 80 - 3}[arrangement]


def test_fewer_frames_than_slow_wants_are_all_slow_and_all_fast() -> None:
    slots = laid_out((4, 4), 3, LayoutConfig())
    for kind in (SLOW, FAST):
        assert sorted({slot.frame for slot in slots if slot.kind == kind}) == [0, 1, 2]


def test_a_video_without_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="a video of 0 frames"):
        laid_out((4, 4), 0, LayoutConfig())
    with pytest.raises(ValueError, match="clip c: a video of 0 frames"):
        view_clip(replace(clip_of([0], (1, 2)), pts=()), View(), LayoutConfig())


def test_frames_beyond_the_cap_stand_behind_one_memory_slot() -> None:
    cfg = LayoutConfig(slow_frames=2, memory_tokens=8)
    clip = clip_of(list(range(40)), (1, 2))
    clip_view = view_clip(clip, View(fps=1, cap=4, memory=6), cfg)
    assert (len(clip_view.frames), clip_view.memory) == (10, 6)
    assert not set(clip_view.frames[:4]) & set(clip_view.frames[4:])
    slots = plan_clip(clip_view, "video", cfg, count)
    assert [(s.n, s.frame, s.frames) for s in slots if s.kind == MEMORY] == [(8, 4, 6)]
    assert frames_used(slots) == tuple(range(10))
    short = view_clip(clip, View(fps=1, cap=64), cfg)
    assert short.memory == 0 and MEMORY not in kinds_of(plan_clip(short, "video", cfg, count))
