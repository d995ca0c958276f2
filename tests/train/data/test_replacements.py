"""A damaged sample is replaced from its own source; nothing else moves; too many stop the run."""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from mixtures.manifest.draws import Draws, SampleReference
from mixtures.manifest.files import load_manifest
from shards.errors import DamagedData
from shards.reader import open_data
from tests.support.tiny_pool import tiny_manifest
from train.data import replacements
from train.data.pack_stream import Stream


@pytest.fixture
def built(tmp_path: Path) -> Path:
    return tiny_manifest(tmp_path / "tiny")


def pool_of(built: Path) -> str:
    return str(built.parent.parent / "pool")


def spoil(built: Path, source: str, key: str) -> None:
    """Flip one bit in the middle of the sample's clip."""
    (byte_range,) = open_data(pool_of(built)).byte_ranges(source, key)
    part = Path(pool_of(built)) / byte_range.file
    data = bytearray(part.read_bytes())
    data[byte_range.offset + byte_range.extent // 2] ^= 1
    part.write_bytes(data)


def keys(built: Path, workers: int = 0, world_size: int = 1) -> list[list[str]]:
    """The keys of four steps, sorted within each, over all ranks."""
    steps: list[list[str]] = [[] for _ in range(4)]
    for rank in range(world_size):
        stream = Stream(
            load_manifest(built), pool_of(built), rank, world_size, 0, workers, global_batch=4
        )
        for step, packs in enumerate(islice(stream.steps(), 4)):
            steps[step] += [key for pack in packs for key in pack.keys]
    return [sorted(step) for step in steps]


def first_of(built: Path, source: str) -> SampleReference:
    drawn = Draws(load_manifest(built)).samples(0, 32)
    return next(one for one in drawn if one.source == source)


def test_only_the_damaged_sample_changes_and_the_change_is_counted_and_logged(
    built: Path, caplog: pytest.LogCaptureFixture
) -> None:
    victim, whole = first_of(built, "clips"), keys(built)
    spoil(built, "clips", victim.key)
    caplog.set_level(logging.WARNING)
    assert keys(built) == keys(built, workers=3) == keys(built, workers=2, world_size=3)
    for before, after in zip(whole, keys(built), strict=True):
        lost = before.count(victim.key)
        assert len(before) == len(after) and victim.key not in after
        assert len(set(before) - set(after)) <= lost
    # The caller's own thread: a worker may have replaced samples of steps that are still to come.
    stream = Stream(load_manifest(built), pool_of(built), workers=0, global_batch=4)
    list(islice(stream.steps(), 4))
    assert stream.replaced == sum(step.count(victim.key) for step in whole) > 0
    assert f"position {victim.position}: " in caplog.text and "stands in" in caplog.text


def test_a_stand_in_is_of_the_same_source_and_no_larger(built: Path) -> None:
    manifest = load_manifest(built)
    replacement_samples = replacements.ReplacementSamples(manifest)
    for drawn in Draws(manifest).samples(0, 60):
        others = list(replacement_samples.candidates(drawn))
        assert others == list(replacement_samples.candidates(drawn))
        assert all(
            (one.source, one.position, one.epoch) == (drawn.source, drawn.position, drawn.epoch)
            and one.tokens <= drawn.tokens
            and one.patches <= drawn.patches
            and one.key != drawn.key
            for one in others
        )
    assert others


def test_one_sample_less_changes_no_other_stand_in(built: Path) -> None:
    manifest = load_manifest(built)
    drawn = first_of(built, "clips")
    before = [one.key for one in replacements.ReplacementSamples(manifest).candidates(drawn)]
    at = manifest.names.index("clips")
    for gone in before[:3]:
        rows = [row["key"].tobytes().hex() != gone for row in manifest.tables[at]]
        tables = list(manifest.tables)
        tables[at] = tables[at][np.array(rows)]
        fewer = replacements.ReplacementSamples(replace(manifest, tables=tables))
        after = [one.key for one in fewer.candidates(replace(drawn, position=drawn.position - 1))]
        assert after[: len(before) - 1] == [key for key in before if key != gone]


def test_past_the_limit_the_run_stops_and_says_what_to_do(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(built, "clips", first_of(built, "clips").key)
    monkeypatch.setattr(replacements, "MOST", 0)
    with pytest.raises(DamagedData, match=r"1 of \d+ samples are damaged.*restore"):
        keys(built)


def test_a_source_without_a_whole_sample_stops_the_run(built: Path) -> None:
    manifest = load_manifest(built)
    for drawn in Draws(manifest).samples(0, 60):
        if drawn.source == "pictures":
            part = (
                Path(pool_of(built))
                / open_data(pool_of(built)).byte_ranges("pictures", drawn.key)[0].file
            )
            part.write_bytes(b"\0" * part.stat().st_size)
    with pytest.raises(DamagedData, match=r"no whole sample|are damaged"):
        keys(built)


@pytest.mark.parametrize("what", ["tokens", "patches"])
def test_a_sample_that_is_not_as_long_as_it_was_planned_is_damaged(built: Path, what: str) -> None:
    manifest = load_manifest(built)
    stream = Stream(manifest, pool_of(built), 0, 1, 0, 0, global_batch=4)
    drawn = first_of(built, "clips")
    (whole,) = stream.loader.load(stream.loader.with_rows([drawn]))
    assert whole.key == drawn.key and not stream.replaced
    longer = replace(drawn, **{what: getattr(drawn, what) + 1})
    (other,) = stream.loader.load(stream.loader.with_rows([longer]))
    assert other.key != drawn.key and stream.replaced == 1
