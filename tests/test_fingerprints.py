"""Fingerprints of clips: how many, of which frames, and how stable."""

from __future__ import annotations

import io

import numpy as np
import simplejpeg
from PIL import Image
from sklearn.datasets import load_sample_images

from pipeline.decoded import Decoded
from pipeline.fingerprints import MOST, differences, evenly, fingerprint
from shards.index import FINGERPRINTS, table_of

PHOTOGRAPH = np.ascontiguousarray(load_sample_images().images[0][:384, :576])


def clip(frames: list[np.ndarray], kind: str = "video") -> Decoded:
    height, width = frames[0].shape[:2]
    return Decoded(
        kind=kind,
        frames=tuple(simplejpeg.encode_jpeg(np.ascontiguousarray(f), 90) for f in frames),
        pts=tuple(range(0, 500 * len(frames), 500)),
        time_base=(1, 1000),
        duration=(len(frames), 2),
        width=width,
        height=height,
        rotation=0,
        is_vfr=False,
        source_fps=(2, 1),
        colour="bt709",
        codec="h264",
        container="mov",
        source_size=(width, height),
    )


def test_an_image_has_one_fingerprint_and_a_long_video_sixteen() -> None:
    assert len(fingerprint("a", clip([PHOTOGRAPH], "image"))) == 1
    rows = fingerprint("a", clip([PHOTOGRAPH] * 40))
    table = table_of(FINGERPRINTS, rows)
    assert table.num_rows == MOST
    assert rows[0]["micros"] == 0 and rows[-1]["micros"] == 19_500_000
    assert len(rows[0]["hash"]) == 32 and len(rows[0]["thumbnail"]) == 256


def test_frames_are_chosen_evenly_by_time_not_by_number() -> None:
    crowded = (*range(100), *range(1000, 16_000, 1000))
    chosen = evenly(crowded, MOST)
    assert [crowded[i] for i in chosen] == [0, *range(1000, 16_000, 1000)]


def test_compression_and_scaling_move_a_hash_little() -> None:
    first = fingerprint("a", clip([PHOTOGRAPH], "image"))[0]
    buffer = io.BytesIO()
    Image.fromarray(PHOTOGRAPH).resize((288, 160)).save(buffer, "JPEG", quality=40)
    second = fingerprint("b", clip([np.asarray(Image.open(buffer))], "image"))[0]
    apart = np.frombuffer(first["hash"], np.uint8) ^ np.frombuffer(second["hash"], np.uint8)
    assert np.bitwise_count(apart).sum() <= 30
    assert first["quality"] == 100
    assert fingerprint("c", clip([np.zeros_like(PHOTOGRAPH)], "image"))[0]["quality"] == 0


def test_differences_say_how_much_each_frame_changes() -> None:
    black, white = np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 255, np.uint8)
    assert differences(clip([black, black, white, black])) == [0, 0, 255, 255]
