"""The maker of look-alikes: two members differ by what a person can see, or one is drawn anew."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from benchmarks.curation import look_alikes


@pytest.mark.parametrize("nearly", [0, 1])
def test_a_member_that_shows_what_another_shows_is_drawn_anew(
    nearly: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = itertools.count()

    def bar(same: np.random.Generator, own: np.random.Generator, group: int) -> Iterator[object]:
        image = Image.new("RGB", (1200, 900), "white")
        number = next(tries)
        x = 20 * number if number > 2 else nearly * (number == 1)  # by a pixel: nobody sees it
        ImageDraw.Draw(image).rectangle((100 + x, 100, 130 + x, 400), fill="black")
        yield image

    monkeypatch.setitem(look_alikes.KINDS, "bar", bar)
    least, size, between = look_alikes._write_group(tmp_path, "bar", 0, 0)
    assert next(tries) == 2 + look_alikes.MEMBERS
    assert least >= look_alikes.VISIBLE and size == (133, 100)
    assert all((tmp_path / f"{name}.png").exists() for name in between)


def test_of_members_that_never_differ_enough_the_one_that_differs_most_stays() -> None:
    shades = [np.full((1, 4, 4), 10, np.uint8) for _ in range(look_alikes.ATTEMPTS)]
    shades[7][0, 0, :2] = 200
    kept = look_alikes.most_visible(lambda attempt: shades[attempt], [shades[0]])
    assert kept is shades[7]
