"""Damaged JPEGs are refused, odd ones that are whole are not (tests/hostile/damaged_jpegs.py)."""

from __future__ import annotations

import io
import math
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from pipeline.media.brightness_step import brightness_step
from pipeline.media.decoded import Broken, MediaRefusal
from pipeline.media.image_sequences import Stills, decode_stills
from pipeline.media.strict_jpeg import decode_jpeg
from shards.profile import Profile
from tests.hostile import damaged_jpegs as made

PLAIN = made.Coding(progressive=False, subsampling=2, restarts=0, optimised=False)


def passes(data: bytes, mode: str = "RGB") -> bool:
    try:
        decode_jpeg(data, mode)
    except Broken:
        return False
    return True


def test_the_sweep_of_damage() -> None:
    wrong, admitted = Counter[str](), Counter[str]()
    for file in made.damaged(256, 60):
        if file.badly_wrong:
            wrong[file.kind] += 1
            admitted[file.kind] += passes(file.data)
    for kinds, bar in made.BARS.items():
        count, passed = (sum(each[kind] for kind in kinds) for each in (wrong, admitted))
        assert count >= 5 and passed <= math.ceil(bar * count), (kinds, passed, count)


def by_ffmpeg(*options: str) -> Callable[[Image.Image], bytes]:
    def encode(picture: Image.Image) -> bytes:
        png = io.BytesIO()
        picture.save(png, "PNG")
        command = ["ffmpeg", "-v", "error", "-f", "png_pipe", "-i", "-", *options]
        command += ["-f", "image2pipe", "-c:v", "mjpeg", "-"]
        return subprocess.run(command, input=png.getvalue(), capture_output=True, check=True).stdout

    return encode


ENCODERS: dict[str, Callable[[Image.Image], bytes]] = {
    "libjpeg": lambda picture: made.encoded(picture, PLAIN, 75),
    "libjpeg, progressive": lambda picture: made.encoded(picture, made.CODINGS[-1], 40),
    "turbojpeg": lambda picture: simplejpeg.encode_jpeg(np.asarray(picture), 95, "RGB", "422"),
    "ffmpeg": by_ffmpeg("-q:v", "3", "-huffman", "default", "-pix_fmt", "yuvj420p"),
    "ffmpeg, own tables": by_ffmpeg("-q:v", "12", "-huffman", "optimal", "-pix_fmt", "yuvj444p"),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_whole_pictures_of_every_encoder_pass(name: str) -> None:
    white = Image.new("RGB", (200, 260), "white")
    pictures = [*made.photographs(300), white]
    assert len(pictures) >= 20
    for number, picture in enumerate(pictures):
        data = ENCODERS[name](picture)
        assert passes(data), number
        assert passes(data + b"behind the end" + data[:99]), number


@pytest.mark.parametrize("filling", [b"\xff", b"\xff\xff\xff", bytes(1), bytes(16)])
def test_filling_before_marks_passes(filling: bytes) -> None:
    for picture in made.photographs(200)[:6]:
        for coding in made.CODINGS[:4]:
            data = made.before_each_mark(made.encoded(picture, coding), filling)
            assert passes(data)


def test_data_that_go_on_behind_the_picture_are_no_filling() -> None:
    data = made.encoded(made.photographs(200)[0], PLAIN)
    assert not passes(data[:-2] + b"\x12\x34\x56" + made.EOI)
    assert not passes(data[:-2] + bytes(40) + made.EOI)


def test_odd_headers_pass() -> None:
    data = made.encoded(made.photographs(200)[0], PLAIN)
    start, _ = made.scan_bytes(data)
    assert passes(data[: start - 3] + bytes(3) + data[start:])  # the scan's range, left at 0
    assert passes(data.replace(b"JFIF\0\1", b"JFIF\0\3", 1))


def test_cmyk_is_read_as_pillow_reads_it() -> None:
    buffer = io.BytesIO()
    made.photographs(200)[0].convert("CMYK").save(buffer, "JPEG")
    with Image.open(io.BytesIO(buffer.getvalue())) as pillow:
        expected = np.asarray(pillow)
    assert np.abs(255 - decode_jpeg(buffer.getvalue(), "CMYK").astype(int) - expected).max() <= 1


def stepped(picture: np.ndarray, row: int, column: int, step: int, high: int = 8) -> np.ndarray:
    """The picture as it is decoded where a difference is wrong by `step` at this block."""
    shifted = picture.astype(int)
    shifted[row + high :] += step
    shifted[row : row + high, column:] += step
    return shifted.clip(0, 255).astype(np.uint8)


def test_a_step_in_the_order_of_reading_is_seen_and_bars_are_not() -> None:
    picture = np.asarray(made.photographs(300)[0])
    assert brightness_step(picture) is None
    for high in (8, 16):
        found = brightness_step(stepped(picture, 64, 120, -50, high))
        assert found is not None and found[0] == 64 and abs(found[1] + 50) < 8
    dark = picture.copy()
    dark[64:96] = dark[64:96] // 2
    assert brightness_step(dark) is None
    assert brightness_step(np.vstack([picture[:64], picture[128:]])) is None
    assert brightness_step(picture[:9, :9]) is None


def test_a_damaged_picture_in_a_folder_of_frames_is_refused(tmp_path: Path) -> None:
    whole = made.encoded(made.photographs(200)[0], PLAIN)
    for number, data in enumerate((whole, whole[: len(whole) // 2] + made.EOI, whole)):
        (tmp_path / f"{number}.jpg").write_bytes(data)
    found = decode_stills(Stills(files=tuple(sorted(tmp_path.iterdir())), fps=1), Profile())
    assert isinstance(found, MediaRefusal)
    assert found.code == "MEDIA_TRUNCATED" and found.detail.startswith("picture 1:")
