"""Where pictures stand on the grid: the rule itself, tried against every grid there is."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mixtures.tokens.frame_view import view_clip, view_placement
from mixtures.tokens.layout_types import LayoutConfig, View
from mixtures.tokens.placement import Placement, Size, _picture, _scaled, place
from pipeline.media.decoded import stored_size
from pipeline.media.probe import MAX_ASPECT
from tests.support.clips import clip_of

SIDES = st.floats(5, 13).map(lambda power: int(2**power))  # 32 to 8,192, small ones as often
AREAS = st.sampled_from([side * side for side in (128, 192, 256, 320, 384, 416, 448, 480)])
STORED = 480 * 480
LEAST = 288 * 288


def distortion(picture: Size, shown: Size) -> Fraction:
    """How much more one side is scaled than the other: 0 for a true picture."""
    ratio = Fraction(shown[0] * picture[1], shown[1] * picture[0])
    return max(ratio, 1 / ratio) - 1


def shown_of(source: Size, area: int) -> Placement:
    """A video as a pool of the default profile stores it, and a recipe of the defaults shows it."""
    stored = stored_size(*source, STORED)
    return place(*stored, area=area, min_area=min(LEAST, area), cell=64)


@given(SIDES, SIDES, AREAS)
def test_videos_are_shown_true_and_large(width: int, height: int, area: int) -> None:
    assume(width <= 3 * height and height <= 3 * width)
    shown = shown_of((width, height), area)
    assert shown.width % 64 == shown.height % 64 == 0
    assert shown.width * shown.height <= area
    # of a small picture with an odd side the pool keeps one pixel less, which is more than 2 %
    odd = Fraction(1, min(width, height)) if max(width, height) < 100 else 0
    assert distortion((width, height), shown.picture) <= Fraction(2, 100) + odd
    pixels = shown.picture[0] * shown.picture[1]
    if area >= 384 * 384 and width * height >= area:
        assert pixels >= Fraction(70, 100) * area


@pytest.mark.parametrize(("source", "side"), [((596, 1745), 403), ((819, 2400), 404)])
def test_where_grids_fall_shortest_two_thirds_of_the_area_are_shown(
    source: Size, side: int
) -> None:
    shown = shown_of(source, side * side).picture
    assert 0.66 * side * side <= shown[0] * shown[1] < 0.67 * side * side


@given(st.integers(400, 8192), st.fractions(Fraction(1, 3), 3), st.integers(384, 480))
def test_at_any_area_two_thirds_of_it_are_shown(width: int, aspect: Fraction, side: int) -> None:
    height = int(width * aspect)
    assume(width <= 3 * height and height <= 3 * width and width * height >= side * side)
    shown = shown_of((width, height), side * side).picture
    assert shown[0] * shown[1] >= Fraction(66, 100) * side * side


@given(SIDES, SIDES, AREAS)
def test_the_grid_is_the_smallest_of_those_that_show_nearly_most(
    width: int, height: int, area: int
) -> None:
    assume(width <= MAX_ASPECT * height and height <= MAX_ASPECT * width)  # others are refused
    stored = stored_size(width, height, STORED)
    found = shown_of((width, height), area)
    pixels = min(max(stored[0] * stored[1], LEAST), area)
    wanted = stored if pixels == stored[0] * stored[1] else _scaled(*stored, pixels)
    cells = area // 64**2
    grids = [(64 * c, 64 * r) for c in range(1, cells + 1) for r in range(1, cells // c + 1)]
    shown = {grid: w * h for grid in grids for w, h in [_picture(*stored, wanted, grid)]}
    enough = {grid for grid, many in shown.items() if 100 * many >= 95 * max(shown.values())}
    assert (found.width, found.height) in enough
    assert found.width * found.height == min(w * h for w, h in enough)


@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([32, 64]))
def test_no_picture_is_too_long_or_too_small_for_a_grid(width: int, height: int, cell: int) -> None:
    shown = place(width, height, area=384 * 384, cell=cell)
    assert shown.width % cell == shown.height % cell == 0
    assert shown.width * shown.height <= 384 * 384
    assert 1 <= shown.picture[0] <= shown.width and 1 <= shown.picture[1] <= shown.height
    if shown.picture != shown[:2]:  # it fills a grid, or is never enlarged
        assert shown.picture[0] <= width and shown.picture[1] <= height


@pytest.mark.parametrize(
    ("stored", "area", "grid", "picture"),
    [
        ((640, 360), 384 * 384, (448, 256), (448, 256)),  # 1.6 % off: it fills the grid
        ((640, 480), 384 * 384, (448, 320), (427, 320)),
        ((320, 180), 384 * 384, (384, 256), (384, 216)),  # enlarged to 288 x 288 pixels
        ((320, 240), 384 * 384, (384, 256), (333, 249)),
        ((640, 360), 480 * 480, (576, 320), (576, 320)),
        ((480, 480), 384 * 384, (384, 384), (384, 384)),
        ((1200, 60), 384 * 384, (1280, 64), (1280, 64)),
    ],
)
def test_shapes_that_people_have(stored: Size, area: int, grid: Size, picture: Size) -> None:
    assert place(*stored, area=area, min_area=LEAST, cell=64) == (*grid, picture)


def test_small_pictures_are_shown_as_they_are_where_a_recipe_says_so() -> None:
    assert place(64, 64, area=128 * 128, min_area=64 * 64, cell=64) == (64, 64, (64, 64))
    assert place(96, 64, area=128 * 128, min_area=64 * 64, cell=64) == (128, 64, (96, 64))
    assert Placement(128, 64, (96, 64)).offset == (16, 0)
    assert place(10, 50, area=LEAST, cell=32) == (32, 64, (10, 50))


@pytest.mark.parametrize(
    ("size", "least", "sides"),
    [
        ((1280, 720), LEAST, (512, 256)),
        ((320, 180), LEAST, (384, 192)),
        ((320, 180), 1, (320, 128)),
    ],
)
def test_oryx_rounds_each_side_down(size: Size, least: int, sides: Size) -> None:
    shown = place(*size, area=384 * 384, min_area=least, cell=64, fit="floor")
    assert shown == (*sides, sides)


def test_an_image_is_never_enlarged_and_a_view_says_how_it_fits() -> None:
    layout, size = LayoutConfig(), (100, 40)
    assert view_placement("image", size, View(), layout) == (128, 64, size)
    assert view_placement("video", size, View(), layout).picture[0] > 400
    image = clip_of([0], (1, 1), "image", size)
    assert view_clip(image, View(fit="floor"), layout).picture == (96, 32)


def test_people_are_told_what_becomes_of_a_picture() -> None:
    filled, boxed = Placement(448, 256, (448, 256)), Placement(384, 256, (384, 216))
    assert filled.told(640, 360) == "640x360 as 448x256 on a grid of 448x256, stretched by 1.6 %"
    assert boxed.told(320, 180) == "320x180 as 384x216 on a grid of 384x256, zeros 15.6 %"
    assert Placement(64, 64, (64, 64)).told(64, 64) == "64x64 as 64x64 on a grid of 64x64"
    assert place(320, 180, area=384**2, cell=64, fit="floor").stretched(320, 180) == 406


@given(st.integers(1, 6000), st.integers(1, 6000), st.sampled_from([64**2, 128**2, STORED]))
def test_the_pool_keeps_the_shape_of_a_picture(width: int, height: int, area: int) -> None:
    stored = stored_size(width, height, area)
    assert stored[0] % 2 == stored[1] % 2 == 0 < min(stored)
    assert stored[0] <= max(width, 2) and stored[1] <= max(height, 2)
    assert stored[0] * stored[1] <= area or min(stored) == 2
    if width % 2 == height % 2 == 0 and width * height <= area:
        assert stored == (width, height)
    short, long = sorted(stored)
    if short > 2:
        shape = Fraction(max(width, height), min(width, height))
        assert abs(long - short * shape) <= 1
