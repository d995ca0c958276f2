"""Crowds: representatives find what comparing all with all finds, whatever a recipe leaves out."""

from __future__ import annotations

import io
from itertools import chain
from typing import Any
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from mixtures.pool.clusters import Pairs, components
from pipeline.dedup import crowds, detail_comparison, verify
from pipeline.dedup.fingerprint_arrays import hashed_of
from pipeline.dedup.fingerprints import fingerprint
from pipeline.dedup.hamming_join import neighbours
from shards.ids import short_hash
from shards.index import CROWDS, FINGERPRINTS, table_of
from tests.support.pictures import PHOTOGRAPH, clip, scene

Row = dict[str, Any]
COPIES = 18


def copy(pixels: np.ndarray, seed: int) -> np.ndarray:
    """As another encoder would have it: a little brighter or darker, at another quality."""
    draw = np.random.default_rng(seed)
    moved = np.clip(pixels.astype(int) + draw.integers(-4, 5), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(moved).save(buffer, "JPEG", quality=int(draw.integers(60, 96)))
    return np.asarray(Image.open(buffer))


def form(number: int) -> np.ndarray:
    """A form, of which only three numbers are its own."""
    image = Image.new("RGB", (224, 160), (240, 236, 228))
    canvas = ImageDraw.Draw(image)
    for row in range(7):
        canvas.line((8, 16 + 20 * row, 216, 16 + 20 * row), fill="black")
        text = f"{number * 7919 % 10**6:06d}" if row in (1, 3, 4) else "000000"
        canvas.text((120, 18 + 20 * row), text, font_size=16, fill="black")
        canvas.text((12, 18 + 20 * row), "amount"[row:] * 2, font_size=14, fill="black")
    return np.asarray(image)


def row(name: str, frames: list[np.ndarray]) -> Row:
    kind = "video" if len(frames) > 1 else "image"
    return dict(fingerprint(short_hash(name), clip(frames, kind)))


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Copies of a photograph and of a form, and as many forms more, once each."""
    found = []
    for n, pixels in enumerate([PHOTOGRAPH[:192, :256], form(1)]):
        found += [row(f"{n} {seed}", [copy(pixels, seed)]) for seed in range(COPIES)]
    return [*found, *(row(f"form {n}", [form(n)]) for n in range(3, 3 + COPIES))]


def clusters(rows: list[Row], facts: tuple[pa.Table, pa.Table]) -> set[frozenset[str]]:
    """The clusters of these clips by facts over them, or over more than them."""
    names = [each["clip_id"] for each in rows]
    references, pairs = facts
    every = [pairs["clip_a"], pairs["clip_b"], references["clip_id"], references["reference"]]
    columns = [column.to_pylist() for column in every]
    number = {name: n for n, name in enumerate(dict.fromkeys(chain(names, *columns)))}
    ends = [np.array([number[name] for name in column], np.int64) for column in columns]
    same = np.array([judged == "same" for judged in pairs["judged"].to_pylist()], bool)
    known = Pairs(np.stack(ends[:2])[:, same], np.stack(ends[2:]))
    found: dict[int, set[str]] = {}
    for n, least in components(known.among(np.ones(len(names), bool)).T.tolist()).items():
        found.setdefault(least, set()).add(names[n])
    return {frozenset(each) for each in found.values()}


def all_with_all(rows: list[Row]) -> tuple[pa.Table, pa.Table]:
    table = table_of(FINGERPRINTS, rows)
    return verify.references(CROWDS.empty_table()), verify.duplicate_pairs(table)


@pytest.fixture(scope="module")
def facts(rows: list[Row]) -> tuple[pa.Table, pa.Table]:
    return verify.duplicate_facts(table_of(FINGERPRINTS, rows))


def test_the_clusters_are_those_of_comparing_all_with_all(
    rows: list[Row], facts: tuple[pa.Table, pa.Table]
) -> None:
    found = clusters(rows, facts)
    assert sorted(map(len, found)) == [COPIES] * 2
    assert found == clusters(rows, all_with_all(rows))
    assert len(facts[0]) > COPIES  # most clips are copies of few references


@settings(max_examples=12, deadline=None)
@given(st.sets(st.integers(0, 3 * COPIES - 1), min_size=2, max_size=45))
def test_any_subset_finds_what_comparing_it_alone_finds(
    rows: list[Row], facts: tuple[pa.Table, pa.Table], chosen: set[int]
) -> None:
    some = [rows[n] for n in sorted(chosen)]
    alone = verify.duplicate_facts(table_of(FINGERPRINTS, some))
    assert clusters(some, facts) == clusters(some, alone)


def test_copies_of_a_film_have_one_reference_and_other_films_their_own() -> None:
    made = [row(f"copy {n}", [copy(frame, n) for frame in scene(1)]) for n in range(COPIES)]
    made += [row(f"other {n}", scene(n)) for n in (2, 3)]
    references, pairs = verify.duplicate_facts(table_of(FINGERPRINTS, made))
    names = sorted(each["clip_id"] for each in made[:COPIES])
    assert {each["reference"] for each in references.to_pylist()} == {names[0]}
    assert references["clip_id"].to_pylist() == names[1:]
    assert set(references["relation"].to_pylist()) <= {"exact", "near"}
    assert len(pairs) == 0


def test_work_grows_with_the_crowd_and_not_with_its_square(
    rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = Mock(side_effect=detail_comparison.judged)
    monkeypatch.setattr(verify, "judged", judged)
    forms = [row(f"form {n}", [form(n)]) for n in range(3, 43)]
    references, pairs = verify.duplicate_facts(table_of(FINGERPRINTS, forms))
    assert len(references) == 0 and "same" not in pairs["judged"].to_pylist()
    assert judged.call_count <= (crowds.NEAREST + crowds.TRIED) * len(forms) < 40 * 39 / 3


def test_few_clips_are_no_crowd(rows: list[Row]) -> None:
    some = table_of(FINGERPRINTS, rows[: crowds.MOST])
    assert crowds.crowds(hashed_of(some)) == []
    assert len(crowds.crowds(hashed_of(table_of(FINGERPRINTS, rows[: crowds.MOST + 1])))) == 1
    references, pairs = verify.duplicate_facts(some)
    assert (len(references), pairs) == (0, verify.duplicate_pairs(some))


def test_neighbours_connect_a_crowd_with_few_pairs() -> None:
    draw = np.random.default_rng(5)
    strangers = draw.integers(0, 1 << 64, (500, 4), np.uint64)
    near = np.repeat(strangers[:1], 300, axis=0)
    near[np.arange(300), draw.integers(0, 4, 300)] ^= np.uint64(1) << draw.integers(
        0, 64, 300, np.uint64
    )
    one, other = neighbours(np.concatenate([strangers, near]), 31)
    assert len(one) < 110 * 300 and (one < other).all()
    label = crowds.connected(800, one, other)
    assert (label[500:] == 0).all() and (label[1:500] == np.arange(1, 500)).all()
