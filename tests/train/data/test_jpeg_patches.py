"""JPEGs -> patches: the decoder's own pixels, at the view's size, wherever they are written."""

from __future__ import annotations

import io

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from mixtures.tokens.frame_view import ClipView, view_clip
from mixtures.tokens.layout_types import LayoutConfig, View
from shards.errors import DamagedData
from shards.sample import Clip
from tests.support.clips import clip_of
from tests.support.tiny_model import patches_of
from train.data.jpeg_patches import Room, Rooms, decoded, open_jpegs


def jpeg(seed: int, width: int, height: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return bytes(simplejpeg.encode_jpeg(pixels, 90))


def clip_at(width: int, height: int, frames: int = 1) -> Clip:
    return clip_of(list(range(frames)), (1, 1), size=(width, height))


def look_of(width: int, height: int, frames: int, area: int) -> ClipView:
    clip = clip_at(width, height, frames)
    return view_clip(clip, View(fps=1, cap=frames, area=area, min_area=64 * 64), LayoutConfig())


@pytest.mark.parametrize(
    ("size", "area", "picture"),
    [
        ((128, 64), 128 * 64, (128, 64)),  # as it is stored
        ((200, 100), 128 * 64, (128, 64)),  # scaled down to its grid
        ((96, 64), 128 * 128, (96, 64)),  # as it is stored, in a box
        ((128, 72), 128 * 64, (114, 64)),  # scaled down, in a box
        ((32, 24), 128 * 128, (74, 55)),  # enlarged, in a box
    ],
)
def test_patches_hold_what_pillow_decodes_and_scales_on_zeros(
    size: tuple[int, int], area: int, picture: tuple[int, int]
) -> None:
    clip_view, jpegs = look_of(*size, 3, area), [jpeg(i, *size) for i in range(3)]
    assert clip_view.picture == picture
    shown = []
    for one in jpegs:
        box = Image.new("RGB", (clip_view.width, clip_view.height))
        true = Image.open(io.BytesIO(one)).convert("RGB")
        box.paste(true.resize(picture, Image.Resampling.BICUBIC), clip_view.offset)
        shown.append(np.asarray(box))
    expected = patches_of(np.stack(shown))
    found = open_jpegs(jpegs, clip_view, [0, 1, 2], clip_at(*size))
    assert np.array_equal(found, expected)
    assert np.array_equal(open_jpegs(jpegs, clip_view, [2, 0], clip_at(*size)), expected[[2, 0]])


def test_nothing_of_the_clip_before_is_left_around_a_picture() -> None:
    open_jpegs([jpeg(0, 128, 64)], look_of(128, 64, 1, 128 * 64), [0], clip_at(128, 64))
    clip_view = look_of(32, 32, 1, 64 * 64)
    assert look_of(96, 64, 1, 128 * 64).picture == (96, 64) and clip_view.picture == (64, 64)
    (shown,) = decoded([jpeg(0, 96, 64)], look_of(96, 64, 1, 128 * 64), [0], clip_at(96, 64))
    assert not shown[:, :16].any() and not shown[:, 112:].any() and shown[:, 16:112].any()


def test_clips_take_the_rows_of_their_room_in_turn() -> None:
    clip_view, rows = look_of(64, 64, 2, 64 * 64), np.zeros((40, 768), np.uint8)
    room, jpegs = Room(rows), [jpeg(i, 64, 64) for i in range(2)]
    first, second = room.take(2, clip_view), room.take(1, clip_view)
    assert second is None  # 32 of 40 rows are taken
    assert (
        first is not None and open_jpegs(jpegs, clip_view, [0, 1], clip_at(64, 64), first) is first
    )
    assert np.array_equal(
        rows[:32].reshape(first.shape), open_jpegs(jpegs, clip_view, [0, 1], clip_at(64, 64))
    )
    assert not rows[32:].any()


def test_what_is_no_jpeg_is_damage_and_says_which_frame() -> None:
    clip_view = look_of(64, 64, 2, 64 * 64)
    with pytest.raises(DamagedData, match=f"clip {clip_at(64, 64).clip_id}: frame 1 is no JPEG"):
        open_jpegs([jpeg(0, 64, 64), b"no"], clip_view, [0, 1], clip_at(64, 64))


def test_frames_are_decoded_where_the_decoder_writes_through_the_cache() -> None:
    for side in (64, 144, 384):
        (pixels,) = decoded(
            [jpeg(0, side, side)], look_of(side, side, 1, side * side), [0], clip_at(side, side)
        )
        assert all(row.ctypes.data % 16 == 8 for row in pixels)


def test_an_array_is_used_again_once_nobody_holds_a_part_of_it() -> None:
    rooms = Rooms()
    first = rooms.empty(10)
    part = first[2:4].reshape(1, 2, 768)
    kept = first.ctypes.data
    del first
    assert rooms.empty(10).ctypes.data != kept
    del part
    assert rooms.empty(8).ctypes.data == kept and rooms.empty(8).shape == (8, 768)


@pytest.mark.parametrize("size", [(64, 63), (63, 64), (128, 128), (8192, 8192)])
def test_a_jpeg_that_is_not_of_its_clip_s_size_is_damage_before_it_is_decoded(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The header alone says so: a picture of 20,000 x 20,000 would take gigabytes."""
    flat = bytes(simplejpeg.encode_jpeg(np.zeros((size[1], size[0], 3), np.uint8), 90))
    monkeypatch.setattr(simplejpeg, "decode_jpeg", None)
    with pytest.raises(DamagedData, match=rf"{size[0]} x {size[1]} pixels, 64 x 64 were stored"):
        open_jpegs([flat], look_of(64, 64, 1, 64 * 64), [0], clip_at(64, 64))
