"""Near is not same: what looks alike at 32 x 32 is told apart by its details, copies are not."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from benchmarks.curation import look_alikes
from pipeline.dedup import detail_comparison
from pipeline.dedup.details import (
    LEVELS,
    MOST_DETAILED,
    WAYS,
    nbytes,
    sides_of,
    stabilised,
    unpacked,
)
from pipeline.dedup.fingerprints import fingerprint
from pipeline.dedup.verify import duplicate_pairs, leak_matches
from shards.index import FINGERPRINTS, table_of
from tests.support.pictures import PHOTOGRAPH, clip

Pixels = np.ndarray


def form(total: str) -> Pixels:
    """A form of one template; the total is its own."""
    image = Image.new("RGB", (768, 512), "white")
    draw = ImageDraw.Draw(image)
    draw.text((40, 40), "INVOICE", fill="black", font_size=32)
    draw.rectangle((30, 120, 740, 400), outline="black", width=3)
    for line in range(5):
        draw.line((30, 120 + 56 * line, 740, 120 + 56 * line), fill="black", width=2)
    draw.text((440, 350), f"Total: {total}", fill="black", font_size=36)
    return np.asarray(image)


def ground() -> Image.Image:
    cells = np.random.default_rng(77).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(cells).resize((320, 192), Image.Resampling.BICUBIC)


def filmed(number: int, what: str) -> list[Pixels]:
    """A fixed camera: a small ball on its own way, or all the same under another counter."""
    frames = []
    for t in range(12):
        image = ground()
        draw = ImageDraw.Draw(image)
        if what == "ball":
            x, y = (20 + 24 * t if number % 2 else 290 - 24 * t), 15 + 20 * number
            draw.ellipse((x, y, x + 16, y + 16), fill="yellow")
        else:
            draw.ellipse((20 + 20 * t, 80, 60 + 20 * t, 120), fill="white")
            draw.rectangle((250, 5, 315, 35), fill="black")
            draw.text((255, 8), str(100 + 37 * number), fill="white", font_size=22)
        frames.append(np.asarray(image))
    return frames


def drawn(kind: str, group: int, member: int) -> list[Pixels]:
    """A look-alike of the benchmark, twice a second."""
    shared, own = (np.random.default_rng([group, each]) for each in (0, member))
    frames = list(look_alikes.KINDS[kind](shared, own, group))
    return [np.asarray(frame) for frame in frames[:: look_alikes.RATE // 2]]


def judged(**clips: list[Pixels]) -> dict[tuple[str, str], str]:
    rows = [
        fingerprint(name, clip(frames, "video" if len(frames) > 1 else "image"))
        for name, frames in clips.items()
    ]
    pairs = duplicate_pairs(table_of(FINGERPRINTS, rows)).to_pylist()
    return {(pair["clip_a"], pair["clip_b"]): pair["judged"] for pair in pairs}


def recompressed(pixels: Pixels, quality: int = 60) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def test_forms_of_one_template_are_different_and_copies_of_one_the_same() -> None:
    totals = [f"{total}.{cents:02d}" for cents, total in enumerate(range(123, 999, 73))]
    forms = {f"f{n:02d}": [form(total)] for n, total in enumerate(totals)}
    assert judged(**forms, copy=[recompressed(forms["f03"][0], 92)]) == {("copy", "f03"): "same"}
    strongly = judged(form=forms["f03"], strongly=[recompressed(forms["f03"][0], 60)])
    assert strongly["form", "strongly"] in ("same", "undecided")


@pytest.mark.parametrize("what", ["ball", "counter"])
def test_films_of_a_fixed_camera_are_different_and_copies_of_one_the_same(what: str) -> None:
    films = {f"v{number}": filmed(number, what) for number in range(8)}
    copy = [recompressed(frame, 85) for frame in films["v5"]]
    found = judged(**films, copy=copy)
    assert [pair for pair, answer in found.items() if answer == "same"] == [("copy", "v5")]


@pytest.mark.parametrize("kind", ["documents", "slides", "fixed_cameras", "game_screens"])
def test_small_letters_tell_look_alikes_apart_and_copies_stay_the_same(kind: str) -> None:
    """Digits of 6 to 10 pixels, also where the world behind them moves too little for the luma."""
    for group in (1, 7):
        clips = {f"m{member}": drawn(kind, group, member) for member in (1, 2, 3)}
        copy = [recompressed(frame) for frame in clips["m2"]]
        found = judged(**clips, copy=copy)
        assert found["copy", "m2"] == "same"
        members = [said for (one, _), said in found.items() if one != "copy"]
        assert "same" not in members


def test_two_forms_of_one_layout_on_papers_of_two_colours_are_no_copies() -> None:
    """Most of their lines agree, and the whole luma differs: neither makes other words the same."""
    found = judged(one=drawn("documents", 8, 1), other=drawn("documents", 11, 2))
    assert "same" not in found.values()


def test_a_form_that_is_too_small_to_read_is_undecided_and_a_leak_all_the_same() -> None:
    small = np.asarray(Image.fromarray(form("543.21")).resize((96, 64), Image.Resampling.BOX))
    assert judged(large=[form("543.21")], small=[small]) == {("large", "small"): "undecided"}
    rows = {
        name: table_of(FINGERPRINTS, [fingerprint(name, clip([pixels], "image"))])
        for name, pixels in {"large": form("543.21"), "small": small}.items()
    }
    (leak,) = leak_matches(rows["large"], rows["small"], {"small": "exam"}).to_pylist()
    assert (leak["clip_id"], leak["judged"]) == ("large", "undecided")


def test_an_overlay_on_a_film_that_moves_is_left_out_but_two_labels_are_content() -> None:
    photograph = Image.fromarray(PHOTOGRAPH)

    def moving(label: str) -> list[Pixels]:
        frames = []
        for t in range(12):
            shown = photograph.crop((20 * t, 8 * t, 20 * t + 320, 8 * t + 240))
            draw = ImageDraw.Draw(shown)
            if label:
                draw.rectangle((210, 10, 310, 50), fill="black")
                draw.text((215, 12), label, fill="white", font_size=32)
            frames.append(np.asarray(shown))
        return frames

    found = judged(plain=moving(""), one=moving("123"), other=moving("978"))
    assert found["one", "plain"] == found["other", "plain"] == "same"
    assert found.get(("one", "other")) != "same"


def test_every_tile_of_a_picture_that_lies_where_it_lay_is_compared_but_no_scaled_rim() -> None:
    """The outermost tiles alone hold the rim, where scores and a page's number stand."""
    scales = np.array([1, 0.999, 0.9], np.float32)
    _, inside = detail_comparison._sampled(scales, np.zeros(3, np.float32), 0.0, LEVELS[144])
    assert inside[:2].all()
    assert not inside[2, [0, -1]].any() and inside[2, 1:-1].all()


def test_what_rounding_makes_of_a_smooth_tile_weighs_less_than_a_step_of_strokes() -> None:
    step = 1 / 4
    from_nothing, at_strokes = np.diff(stabilised(np.array([0, step, 2, 2 + step], np.float32)))[
        ::2
    ]
    assert from_nothing < 0.5 * at_strokes and at_strokes > 0.95 * step


def test_details_take_8_kb_a_picture_at_most_and_follow_a_mirror() -> None:
    assert [sides_of(*size) for size in ((32, 32), (64, 64), (160, 144), (1536, 1536))] == [
        [], [72], [72, 144], [72, 144, 288, 576]
    ]  # fmt: skip
    assert nbytes(list(LEVELS)) <= 8192
    row = fingerprint("a", clip([PHOTOGRAPH] * 40))
    assert len(row["detailed"]) == MOST_DETAILED
    assert len(row["details"]) == MOST_DETAILED * nbytes(row["sides"])
    tiles = unpacked(row["details"], row["sides"], 144)
    mirrored = fingerprint("b", clip([PHOTOGRAPH[:, ::-1]] * 40))
    other = unpacked(mirrored["details"], mirrored["sides"], 144)[
        :, :, ::-1, -np.arange(WAYS) % WAYS
    ]
    assert tiles.shape == (MOST_DETAILED, 18, 18, WAYS) and abs(tiles - other).mean() < 0.1
