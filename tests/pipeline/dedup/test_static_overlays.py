"""What stands still on a moving picture is found, and filled from what is around it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.dedup.candidates import FAR
from pipeline.dedup.fingerprints import MOST_HASHES, SIDE, Floats, evenly, frequencies, hashes_of
from pipeline.dedup.static_overlays import filled, still
from pipeline.dedup.verify import duplicate_pairs
from shards.index import FINGERPRINTS, table_of
from tests.support.pictures import TIMES, pan, under


def row(name: str, pictures: Floats) -> dict[str, object]:
    times = [500_000 * i for i in range(len(pictures))]
    whole = pictures.round().clip(0, 255).astype(np.uint8)
    hashed = evenly(times, MOST_HASHES)
    return {
        "clip_id": name,
        "kind": "video",
        "micros": times,
        "quality": [100] * len(times),
        "pictures": whole.tobytes(),
        "hashed": hashed,
        "hashes": hashes_of(frequencies(whole[hashed].astype(np.float32))).tobytes(),
        "sides": [72],
        "detailed": [],
        "details": b"",
    }


def pairs_of(**clips: Floats) -> list[tuple[str, str, str]]:
    table: pa.Table = duplicate_pairs(table_of(FINGERPRINTS, [row(*one) for one in clips.items()]))
    return [(each["clip_a"], each["clip_b"], each["relation"]) for each in table.to_pylist()]


@given(st.integers(0, 99), st.integers(1, 23), st.integers(1, 23), st.sampled_from([0.9, 1.0]))
def test_the_cells_of_a_logo_are_found_wherever_it_is(
    seed: int, y: int, x: int, opacity: float
) -> None:
    box = (slice(y, y + 8), slice(x, x + 8))
    cells = still(under(pan(seed, 15), box, 250, opacity))
    assert cells[box].mean() >= 0.9 and cells.sum() <= 10 * 10 + 0.1 * SIDE * SIDE


def test_a_picture_without_its_logo_is_near_the_picture() -> None:
    pictures, box = pan(3, 12), (slice(24, 31), slice(20, 31))
    shown = under(pictures, box, 250, 1)
    mended = filled(shown.astype(np.float32), still(shown))
    off = [abs(each - pictures)[:, *box].mean() for each in (shown, mended)]
    assert off[1] < 0.15 * off[0]
    outside = ~still(shown)
    assert np.array_equal(mended[:, outside], shown.astype(np.float32)[:, outside])
    hashes = [hashes_of(frequencies(each.astype(np.float32))) for each in (pictures, shown, mended)]
    bits = [np.bitwise_count(hashes[0] ^ each).sum(axis=1).min() for each in hashes[1:]]
    assert bits[0] > FAR and bits[1] <= bits[0] // 2


def test_a_filled_cell_is_the_mean_of_its_neighbours() -> None:
    pictures = np.random.default_rng(0).uniform(0, 255, (3, SIDE, SIDE)).astype(np.float32)
    cells = np.zeros((SIDE, SIDE), bool)
    cells[0:5, 7:12] = cells[20, 20] = True
    wide = np.pad(filled(pictures, cells), ((0, 0), (1, 1), (1, 1)), mode="edge")
    around = (wide[:, :-2, 1:-1] + wide[:, 2:, 1:-1] + wide[:, 1:-1, :-2] + wide[:, 1:-1, 2:]) / 4
    np.testing.assert_allclose(wide[:, 1:-1, 1:-1][:, cells], around[:, cells], atol=1e-3)


@pytest.mark.parametrize(
    "pictures",
    [
        pan(1, 15)[:2],
        np.repeat(pan(1, 15)[:1], TIMES, axis=0),
        under(pan(1, 15), (slice(0, 32), slice(0, 20)), 100, 1),
        under(pan(1, 15), (slice(0, 32, 3), slice(0, 32, 3)), 100, 1),
    ],
    ids=["two pictures", "a still", "half of it stands still", "what stands still is everywhere"],
)
def test_a_scene_is_no_logo(pictures: Floats) -> None:
    assert not still(pictures).any()


@pytest.mark.parametrize("luma", [5, 250])
def test_a_copy_under_a_logo_is_found_and_another_clip_under_it_is_not(luma: int) -> None:
    box = (slice(25, 31), slice(21, 31))
    base, other = pan(3, 12), under(pan(8, 12), box, luma, 1)
    found = pairs_of(base=base, copy=under(base, box, luma, 1), other=other)
    assert found == [("base", "copy", "near")]
