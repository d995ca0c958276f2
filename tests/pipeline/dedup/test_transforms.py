"""Views and registration: a hash of a view is the hash of the picture seen so; places are found."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.dedup.fingerprints import frequencies, hashes_of
from pipeline.dedup.registration import (
    HERE,
    inverse,
    likeness,
    plausible,
    registered,
    smoothed,
    warped,
)
from pipeline.dedup.transforms import Transform, in_bars, seen, start, transformed_hashes
from pipeline.media.frame_difference import Luma
from tests.support.pictures import PHOTOGRAPH


def shrunk(pixels: np.ndarray) -> Luma:
    """uint8[1, 32, 32] of a picture."""
    image = Image.fromarray(np.ascontiguousarray(pixels)).convert("L")
    return np.asarray(image.resize((32, 32), Image.Resampling.BOX))[None]


@pytest.mark.parametrize("side", list(itertools.product((False, True), repeat=3)))
def test_the_hash_of_a_mirrored_or_turned_view_is_that_of_the_picture_seen_so(
    side: tuple[bool, bool, bool],
) -> None:
    picture, transform = shrunk(PHOTOGRAPH).astype(np.float32), Transform((0, 1), (0, 1), *side)
    expected = hashes_of(frequencies(np.ascontiguousarray(seen(picture, transform))))
    apart = np.bitwise_count(transformed_hashes(picture, transform) ^ expected).sum()
    assert apart <= 2  # coefficients that lie on the median
    turned = PHOTOGRAPH.transpose(1, 0, 2) if side[0] else PHOTOGRAPH
    shown = shrunk(turned[:: -1 if side[1] else 1, :: -1 if side[2] else 1])
    assert np.allclose(seen(picture, transform), shown, atol=1)  # a mean rounded the other way


def test_a_cropped_view_lies_near_the_hash_of_the_crop() -> None:
    height, width = PHOTOGRAPH.shape[:2]
    cut = PHOTOGRAPH[height // 20 : -height // 20, width // 20 : -width // 20]
    crop = hashes_of(frequencies(shrunk(cut).astype(np.float32)))
    picture = shrunk(PHOTOGRAPH).astype(np.float32)
    plain, transform = (
        np.bitwise_count(transformed_hashes(picture, each) ^ crop).sum()
        for each in (Transform(), Transform((0.05, 0.95), (0.05, 0.95)))
    )
    assert transform <= 20 < 50 <= plain


def test_bars_of_equal_size_are_found_to_a_tenth_of_a_cell() -> None:
    wide = np.pad(PHOTOGRAPH, ((50, 50), (0, 0), (0, 0)))
    (transform,) = in_bars(shrunk(wide))
    expected = 50 / wide.shape[0], 1 - 50 / wide.shape[0]
    assert np.allclose(transform.rows, expected, atol=0.1 / 32) and transform.columns == (0, 1)
    uneven = np.pad(PHOTOGRAPH, ((100, 0), (0, 0), (0, 0)))
    assert in_bars(shrunk(PHOTOGRAPH)) == in_bars(shrunk(uneven)) == []


@given(st.floats(0.92, 1.08), st.floats(-1.5, 1.5), st.floats(0.92, 1.08), st.floats(-1.5, 1.5))
@settings(max_examples=20, deadline=None)
def test_registration_finds_where_a_picture_lies(a: float, b: float, c: float, d: float) -> None:
    picture = smoothed(shrunk(PHOTOGRAPH).astype(np.float32))
    place = np.array([[a, b, c, d]], np.float32)
    other = warped(picture, place)
    found = registered(picture, other, HERE)
    assert np.allclose(found[:, ::2], place[:, ::2], atol=0.01)
    assert np.allclose(found[:, 1::2], place[:, 1::2], atol=0.1)
    assert plausible(found, HERE).all()
    assert np.allclose(inverse(inverse(place)), place, atol=1e-5)


def test_another_picture_is_not_alike_wherever_it_is_laid() -> None:
    picture = smoothed(shrunk(PHOTOGRAPH).astype(np.float32))
    other = smoothed(shrunk(PHOTOGRAPH[::-1]).astype(np.float32))
    place = registered(picture, other, HERE)
    every = np.ones((1, 32, 32), np.float32)
    assert likeness(warped(picture, place), other, every).correlation[0] < 0.8
    assert likeness(picture, picture, every).same(0, 0, 0.999).all()


def test_a_view_starts_where_its_crop_lies_as_seen() -> None:
    transform = Transform((0.1, 0.9), (0.0, 0.8), turned=True, down=True)
    assert np.allclose(start(transform), [[0.8, 3.2, 0.8, 0.0]], atol=1e-5)
