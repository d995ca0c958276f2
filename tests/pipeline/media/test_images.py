"""The media door on images: table I of hostile files, and odd modes handled on purpose."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from PIL import Image, PngImagePlugin

from pipeline.media import decode, sandbox, sandboxed_images
from pipeline.media.decoded import Decoded, MediaRefusal
from pipeline.media.image_sequences import Stills, decode_stills
from shards.profile import Profile
from tests.hostile.images import IMAGES, photograph, saved

JPEG = saved(photograph(), "JPEG")


@pytest.mark.parametrize("name", IMAGES)
def test_table_i(name: str, tmp_path: Path) -> None:
    expected, data = IMAGES[name]
    (tmp_path / "x.jpg").write_bytes(data())
    found = decode.decode(tmp_path / "x.jpg", "image", Profile())
    assert (found.code if isinstance(found, MediaRefusal) else "kept") == expected, found


def shown(tmp_path: Path, data: bytes) -> tuple[Decoded, np.ndarray]:
    (tmp_path / "x").write_bytes(data)
    found = decode.decode(tmp_path / "x", "image", Profile())
    assert isinstance(found, Decoded), found
    return found, simplejpeg.decode_jpeg(found.frames[0])


def test_a_plain_image_keeps_its_pixels_and_gives_the_same_bytes(tmp_path: Path) -> None:
    found, pixels = shown(tmp_path, saved(photograph(), "PNG"))
    assert (found.width, found.height, found.codec, found.colour) == (96, 64, "png", "RGB")
    assert (found.pts, found.time_base, found.duration) == ((0,), (1, 1), (0, 1))
    assert abs(pixels.astype(int) - np.asarray(photograph())).mean() < 2
    assert shown(tmp_path, saved(photograph(), "PNG"))[0] == found


def test_orientation_is_applied_once_and_recorded(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    found, pixels = shown(tmp_path, saved(photograph(), "JPEG", exif=exif))
    assert (found.width, found.height, found.rotation) == (64, 96, 90)
    assert pixels[10, 50, 0] > 150 > pixels[10, 50, 1]  # the red corner is now at the right


def test_colour_modes_become_rgb_on_purpose(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (32, 32), (255, 0, 0, 0))
    found, pixels = shown(tmp_path, saved(clear, "PNG"))
    assert found.colour == "RGBA on white" and pixels.min() > 250
    deep = Image.fromarray(np.full((32, 32), 0x8000, np.uint16))
    found, pixels = shown(tmp_path, saved(deep, "PNG"))
    assert found.colour == "I;16" and abs(int(pixels.mean()) - 128) <= 1
    found, pixels = shown(tmp_path, saved(photograph().convert("CMYK"), "JPEG"))
    assert found.colour == "CMYK"
    assert abs(pixels.astype(int) - np.asarray(photograph())).mean() < 8
    found, _ = shown(tmp_path, saved(photograph().convert("P"), "PNG"))
    assert found.colour == "P"
    found, _ = shown(tmp_path, saved(photograph().convert("L"), "JPEG"))
    assert found.colour == "L"


@pytest.mark.parametrize(
    ("size", "stored"),
    [
        ((10, 50), (10, 50)),
        ((11, 50), (10, 46)),
        ((1, 60), (2, 60)),
        ((700, 11), (636, 10)),
        ((3000, 2000), (1880, 1254)),
    ],
)
def test_a_stored_image_is_the_image(
    size: tuple[int, int], stored: tuple[int, int], tmp_path: Path
) -> None:
    """White to its last row and column: no bars, no multiples, scaled down where it is large."""
    found, pixels = shown(tmp_path, saved(Image.new("RGB", size, "white"), "PNG"))
    assert (found.width, found.height, found.source_size) == (*stored, size)
    assert pixels.shape[1::-1] == stored and pixels.min() > 250


def test_an_image_that_kills_its_child_is_refused_and_its_neighbours_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killer = (
        "import os, sys\nsys.path.insert(0, sys.argv[1])\n"
        "from pipeline.media import sandboxed_images as ours\n"
        "real = ours.decode_picture\n"
        "def faulty(file, quality, shape):\n"
        "    os.pread(file.fileno(), 99, 0) == b'killer' and os.abort()\n"
        "    return real(file, quality, shape)\n"
        "ours.decode_picture = faulty\n"
        "ours.serve(int(sys.argv[2]))"
    )
    monkeypatch.setattr(sandboxed_images, "_CHILD", killer)
    items = [(tmp_path / name, "image", None) for name in ("a", "b", "killer", "c")]
    for path, _, _ in items:
        path.write_bytes(b"killer" if path.name == "killer" else JPEG)
    found = decode.decode_all(items, Profile())
    assert [isinstance(one, Decoded) for one in found] == [True, True, False, True]
    assert isinstance(found[2], MediaRefusal) and found[2].code == "MEDIA_UNDECODABLE"
    monkeypatch.setattr(sandboxed_images, "_CHILD", "import nowhere")
    with pytest.raises(RuntimeError, match="nowhere"):
        decode.decode_all(items, Profile())


def test_a_slow_image_is_refused_by_its_own_time_and_nothing_is_done_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = (
        "import os, sys\nsys.path.insert(0, sys.argv[1])\n"
        "from pipeline.media import sandboxed_images as ours\n"
        "real, ours.PICTURE_SECONDS = ours.decode_picture, 0.5\n"
        "def faulty(file, quality, shape):\n"
        "    while os.pread(file.fileno(), 99, 0) == b'slow': pass\n"
        "    return real(file, quality, shape)\n"
        "ours.decode_picture = faulty\n"
        "ours.serve(int(sys.argv[2]))"
    )
    monkeypatch.setattr(sandboxed_images, "_CHILD", slow)
    started: list[int] = []

    def run(*arguments: Any, inputs: Sequence[int] = (), **options: Any) -> sandbox.Exit:
        started.append(len(options["pass_fds"]) - 1)
        return original(*arguments, inputs=inputs, **options)

    original = sandbox.run
    monkeypatch.setattr(sandbox, "run", run)
    names = ("a", "slow1", "b", "slow2", "c", "d")
    for name in names:
        (tmp_path / name).write_bytes(b"slow" if "slow" in name else JPEG)
    items = [(tmp_path / name, "image", None) for name in names]
    said = [getattr(one, "code", "kept") for one in decode.decode_all(items, Profile())]
    assert said == ["kept", "MEDIA_TOO_SLOW", "kept", "MEDIA_TOO_SLOW", "kept", "kept"]
    assert started == [6, 4, 2]


@pytest.mark.parametrize(
    "said", ["", "{", "[]", '{"code": "NONE", "detail": ""}', '{"nbytes": -1}']
)
def test_a_child_that_was_taken_over_says_nothing_that_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setattr(sandboxed_images, "_CHILD", f"print({said!r})")
    (tmp_path / "a.jpg").write_bytes(JPEG)
    (found,) = decode.decode_all([(tmp_path / "a.jpg", "image", None)], Profile())
    assert isinstance(found, MediaRefusal) and found.code == "MEDIA_UNDECODABLE"


def test_an_image_that_wants_more_memory_than_the_sandbox_has_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "large.png").write_bytes(saved(Image.new("RGBA", (6000, 6000)), "PNG"))
    (tmp_path / "small.png").write_bytes(saved(photograph(), "PNG"))
    items = [(tmp_path / name, "image", None) for name in ("large.png", "small.png")]
    monkeypatch.setattr(sandbox, "MAX_ADDRESS_SPACE", 400_000_000)
    large, small = decode.decode_all(items, Profile())
    assert isinstance(large, MediaRefusal) and large.code == "MEDIA_TOO_MUCH_MEMORY"
    assert isinstance(small, Decoded)


def test_metadata_never_reaches_the_stored_frame(tmp_path: Path) -> None:
    words = PngImagePlugin.PngInfo()
    words.add_text("comment", "SECRET")
    found, _ = shown(tmp_path, saved(photograph(), "PNG", pnginfo=words))
    assert b"SECRET" not in found.frames[0]


def test_a_span_of_pictures_begins_with_the_one_on_screen(tmp_path: Path) -> None:
    files = []
    for number in range(12):
        files.append(tmp_path / f"{number}.png")
        Image.new("RGB", (64, 48), (20 * number,) * 3).save(files[-1])
    stills = Stills(files=tuple(files), fps=3)
    for span, shown, times, duration in (
        (None, [0, 2, 3, 5, 6, 8, 9, 11], [0, 2, 3, 5, 6, 8, 9, 11], 4),
        ((1_500_000, 2_600_000), [4, 6], [0, 1.5], 1.1),
        ((2_000_000, 9_000_000), [6, 8, 9, 11], [0, 2, 3, 5], 2),
    ):
        found = decode_stills(stills, Profile(), span)
        assert isinstance(found, Decoded), found
        lumas = [simplejpeg.decode_jpeg(frame, "GRAY").mean() / 20 for frame in found.frames]
        assert [round(luma) for luma in lumas] == shown
        assert [float(t * 3 * Fraction(*found.time_base)) for t in found.pts] == pytest.approx(
            times
        )
        assert float(Fraction(*found.duration)) == pytest.approx(duration)
    outside = decode_stills(stills, Profile(), (4_000_000, 5_000_000))
    assert isinstance(outside, MediaRefusal) and outside.code == "SPAN_OUTSIDE"
