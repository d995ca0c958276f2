"""Duplicates and leaks: copies pair, material that only looks alike does not."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.dedup.fingerprints import fingerprint
from pipeline.dedup.verify import duplicate_pairs, leak_matches
from pipeline.media import decode
from pipeline.media.decoded import Decoded
from shards.index import FINGERPRINTS, table_of
from shards.profile import Profile
from tests.support.pictures import PHOTOGRAPH, SCANS, Pixels, clip, prints, scene


def scan_image(index: int) -> Image.Image:
    cells = (SCANS[index] * 255 / 16).astype(np.uint8)
    return Image.fromarray(np.kron(cells, np.ones((8, 8), np.uint8)))


def as_door(image: Image.Image) -> Pixels:
    """As the door stores an image: RGB, sides floored to 32."""
    width, height = (side // 32 * 32 for side in image.size)
    return np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC))


def recompressed(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=60)
    return Image.open(buffer)


COPIES: dict[str, tuple[Callable[[Image.Image], Image.Image], str]] = {
    "recompressed": (recompressed, "near"),
    "smaller": (lambda i: i.resize((48, 48), Image.Resampling.BICUBIC), "near"),
    "larger": (lambda i: i.resize((96, 96), Image.Resampling.BICUBIC), "near"),
    "mirrored": (lambda i: i.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "mirrored"),
}


def found(rows: list[dict[str, Any]]) -> dict[tuple[str, str], str]:
    pairs = duplicate_pairs(table_of(FINGERPRINTS, rows)).to_pylist()
    return {(row["clip_a"], row["clip_b"]): row["relation"] for row in pairs}


@pytest.fixture(scope="module")
def scans() -> list[dict[str, Any]]:
    return [
        fingerprint(f"{index:04d}", clip([as_door(scan_image(index))], "image"))
        for index in range(len(SCANS))
    ]


def test_no_two_of_1797_digit_scans_pair(scans: list[dict[str, Any]]) -> None:
    assert found(scans) == {}


def test_every_copy_of_a_digit_scan_pairs_with_its_scan_only(scans: list[dict[str, Any]]) -> None:
    rows, expected = list(scans), {}
    for index in range(0, len(SCANS), 30):
        name = list(COPIES)[index // 30 % 4]
        change, relation = COPIES[name]
        pixels = as_door(change(scan_image(index)))
        rows.append(fingerprint(f"{index:04d} {name}", clip([pixels], "image")))
        expected[f"{index:04d}", f"{index:04d} {name}"] = relation
    assert found(rows) == expected


def test_videos_of_different_scans_do_not_pair_and_cuts_are_contained() -> None:
    rows, expected = [], {}
    for seed in range(30):
        frames = scene(seed)
        rows += prints(f"{seed:02d}", frames)
        if seed % 3 == 0:
            rows += prints(f"{seed:02d} cut", frames[4:11])
            expected[f"{seed:02d}", f"{seed:02d} cut"] = "contained"
        if seed % 3 == 1:
            rows += prints(f"{seed:02d} mirror", [f[:, ::-1] for f in frames])
            expected[f"{seed:02d}", f"{seed:02d} mirror"] = "mirrored"
    assert found(rows) == expected


def test_the_same_background_or_the_same_frames_in_another_order_do_not_pair() -> None:
    frames = scene(1)
    moving = [i for i in range(15) if (frames[i] != frames[i + 1]).any()]
    far, near = list(frames), list(frames)
    far[moving[0]], far[moving[-1] + 1] = far[moving[-1] + 1], far[moving[0]]
    near[moving[2]], near[moving[2] + 1] = near[moving[2] + 1], near[moving[2]]
    rows = prints("a", frames) + prints("b", frames[::-1]) + prints("c", far) + prints("n", near)
    rows += prints("d", scene(2, board=1)) + prints("e", scene(3, board=1))
    pairs = found(rows)
    assert pairs == {}


def test_a_cut_that_stands_still_and_black_frames_prove_nothing() -> None:
    still = [*scene(4)[:6], *[as_door(scan_image(0))] * 10]
    black = np.zeros((64, 64, 3), np.uint8)
    rows = prints("a", still) + prints("b", still[8:14])
    rows += prints("c", [black] * 8) + prints("d", [black] * 8)
    assert found(rows) == {}


def test_equal_frames_at_equal_times_are_exact_and_an_image_is_no_video() -> None:
    frames = scene(5)
    rows = prints("a", frames) + prints("b", frames)
    rows.append(fingerprint("c", clip([PHOTOGRAPH], "image")))
    rows += [fingerprint("d", clip([PHOTOGRAPH], "image")), *prints("e", [PHOTOGRAPH])]
    assert found(rows) == {("a", "b"): "exact", ("c", "d"): "exact"}


@given(st.randoms(use_true_random=False))
@settings(max_examples=10, deadline=None)
def test_the_result_does_not_depend_on_the_order_of_rows(random: Any) -> None:
    frames = scene(6)
    rows = prints("a", frames) + prints("b", frames[2:9]) + prints("c", scene(7))
    rows += prints("d", [f[:, ::-1] for f in frames])
    expected = duplicate_pairs(table_of(FINGERPRINTS, rows))
    random.shuffle(rows)
    assert duplicate_pairs(table_of(FINGERPRINTS, rows)).equals(expected)
    assert expected["relation"].to_pylist() == ["contained", "mirrored", "contained"]


def test_leaks_are_found_by_benchmark_and_an_empty_side_has_none(
    scans: list[dict[str, Any]],
) -> None:
    held = [fingerprint("h1", clip([as_door(recompressed(scan_image(3)))], "image"))]
    held += prints("h2", scene(8)[3:12])
    mine = scans[:50] + prints("v", scene(8)) + prints("w", scene(9))
    matches = leak_matches(
        table_of(FINGERPRINTS, mine),
        table_of(FINGERPRINTS, held),
        {"h1": "digits", "h2": "scenes"},
    ).to_pylist()
    assert [(m["clip_id"], m["benchmark"], m["held_out"], m["relation"]) for m in matches] == [
        ("0003", "digits", "h1", "near"),
        ("v", "scenes", "h2", "contained"),
    ]
    nothing = table_of(FINGERPRINTS, [])
    assert leak_matches(table_of(FINGERPRINTS, mine), nothing, {}).num_rows == 0
    assert duplicate_pairs(nothing).num_rows == 0


def test_encoded_copies_of_a_video_pair_after_the_door(tmp_path: Path) -> None:
    def encoded(name: str, frames: list[Pixels], *arguments: str) -> list[dict[str, Any]]:
        path = tmp_path / f"{name}.mp4"
        raw = "-f rawvideo -pix_fmt rgb24 -s 64x64 -r 10 -i -".split()
        said = b"".join(frame.tobytes() * 5 for frame in frames)
        command = ["ffmpeg", "-v", "error", "-threads", "1", *raw, *arguments]
        command += ["-pix_fmt", "yuv420p", str(path)]
        subprocess.run(command, input=said, check=True)
        decoded = decode.decode(path, "video", Profile())
        assert isinstance(decoded, Decoded), decoded
        return [fingerprint(name, decoded)]

    frames = scene(10)
    rows = encoded("a", frames, "-crf", "18") + encoded("z", scene(11), "-crf", "18")
    rows += encoded("b", frames, "-crf", "33") + encoded("c", frames, "-vf", "scale=96:96")
    rows += encoded("d", frames, "-ss", "1.2", "-t", "4")
    pairs = found(rows)
    assert pairs["a", "b"] == pairs["a", "c"] == "near" and pairs["a", "d"] == "contained"
    assert not {pair for pair in pairs if "z" in pair}
