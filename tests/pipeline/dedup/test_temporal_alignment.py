"""Many pairs of videos are laid over each other as each pair is alone."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.dedup.fingerprints import SIDE
from pipeline.dedup.registration import HERE, smoothed, warped
from pipeline.dedup.temporal_alignment import Film, Fit, film, fits, laid_over, relation
from tests.support.pictures import pan, under


def test_pairs_fit_together_as_they_fit_alone() -> None:
    place = np.array([[0.95, 0.4, 0.95, -0.6]], np.float32)
    base, other = (smoothed(pan(seed, 40).astype(np.float32)) for seed in (3, 8))
    logo = under(base, (slice(24, 30), slice(2, 9)), 250, 1).astype(np.float32)
    sides = [(base, warped(base, np.repeat(place, len(base), axis=0))), (base, other), (base, logo)]
    seeds = [1, 7, 12]
    ours, theirs = (np.concatenate([pair[side][seeds] for pair in sides]) for side in (0, 1))
    start, pair = np.repeat(HERE, len(ours), axis=0), np.repeat(np.arange(3), len(seeds))
    together = dict(fits(ours, theirs, start, pair))
    assert sorted(together) == [0, 2]
    np.testing.assert_allclose(together[0].warp, place, atol=0.05)
    assert not together[0].patch.any() and together[2].patch[24:30, 2:9].all()
    for number in range(3):
        own = pair == number
        alone = dict(fits(ours[own], theirs[own], start[own], pair[own]))
        assert list(alone) == [each for each in together if each == number]
        for fit in alone.values():
            assert np.array_equal(fit.warp, together[number].warp)
            assert np.array_equal(fit.patch, together[number].patch)


def test_nothing_fits_nothing() -> None:
    none = np.empty((0, SIDE, SIDE), np.float32)
    assert list(fits(none, none, np.empty((0, 4), np.float32), np.empty(0, np.int64))) == []


@pytest.mark.parametrize("speed", [0.8, 1.25])
def test_pictures_that_stand_still_do_not_pull_the_clocks_apart(speed: float) -> None:
    """Shown for 0.8 s and seen each half second, pictures come twice: noise says which is liker."""
    for seed in range(8):
        draw = np.random.Generator(np.random.Philox(seed))
        shown = smoothed(draw.uniform(0, 255, (14, SIDE, SIDE)).astype(np.float32))

        def seen(rate: float, draw=draw, shown=shown) -> Film:
            micros = np.arange(0, int(11e6 / rate), 500_000)
            pictures = shown[(micros * rate / 800_000).astype(int)]
            return film(micros, pictures + draw.normal(0, 0.5, pictures.shape).astype(np.float32))

        nowhere = np.zeros((SIDE, SIDE), np.bool_)
        laid = laid_over(seen(1.0), seen(speed), Fit(HERE, nowhere))
        assert relation(laid), (seed, speed)


def test_a_film_that_hardly_moves_is_laid_at_the_same_moment() -> None:
    """Every offset correlates by 0.99 and more: the one with the most votes stays ahead."""
    ground = pan(3, 40)[0].astype(np.float32)
    pictures = np.repeat(ground[None], 10, axis=0)
    for at, picture in enumerate(pictures):
        picture[20:23, 2 * at : 2 * at + 3] += 6
    micros = np.arange(10) * 500_000
    still = film(micros, smoothed(pictures))
    laid = laid_over(still, still, Fit(HERE, ground > 999))
    kind, line = relation(laid)
    assert kind == "near" and abs(line.offset) < 60_000
