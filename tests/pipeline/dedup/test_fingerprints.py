"""Fingerprints of clips: how many, of which frames, and how stable."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from pipeline.dedup.fingerprints import MOST_HASHES, MOST_PICTURES, SIDE, evenly, fingerprint
from pipeline.media.frame_difference import differences
from shards.index import FINGERPRINTS, table_of
from tests.support.pictures import PHOTOGRAPH, clip


def test_an_image_has_one_picture_and_a_long_video_64_of_which_16_are_hashed() -> None:
    image = fingerprint("a", clip([PHOTOGRAPH], "image"))
    assert len(image["pictures"]) == SIDE * SIDE and len(image["hashes"]) == 32
    row = fingerprint("a", clip([PHOTOGRAPH] * 90))
    table = table_of(FINGERPRINTS, [row])
    assert table.num_rows == 1
    assert len(row["micros"]) == len(row["quality"]) == MOST_PICTURES
    assert len(row["pictures"]) == MOST_PICTURES * SIDE * SIDE
    assert len(row["hashed"]) == MOST_HASHES and len(row["hashes"]) == 32 * MOST_HASHES
    assert row["micros"][0] == 0 and row["micros"][-1] == 44_500_000
    assert row["hashed"][0] == 0 and row["hashed"][-1] == MOST_PICTURES - 1


def test_frames_are_chosen_evenly_by_time_not_by_number() -> None:
    crowded = (*range(100), *range(1000, 16_000, 1000))
    chosen = evenly(crowded, 16)
    assert [crowded[i] for i in chosen] == [0, *range(1000, 16_000, 1000)]


def test_compression_and_scaling_move_a_hash_little() -> None:
    first = fingerprint("a", clip([PHOTOGRAPH], "image"))
    buffer = io.BytesIO()
    Image.fromarray(PHOTOGRAPH).resize((288, 160)).save(buffer, "JPEG", quality=40)
    second = fingerprint("b", clip([np.asarray(Image.open(buffer))], "image"))
    apart = np.frombuffer(first["hashes"], np.uint8) ^ np.frombuffer(second["hashes"], np.uint8)
    assert np.bitwise_count(apart).sum() <= 30
    assert first["quality"] == [100]
    assert fingerprint("c", clip([np.zeros_like(PHOTOGRAPH)], "image"))["quality"] == [0]


def test_differences_say_how_much_each_frame_changes() -> None:
    black, white = np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 255, np.uint8)
    assert differences(clip([black, black, white, black]).frames) == [0, 0, 255, 255]
