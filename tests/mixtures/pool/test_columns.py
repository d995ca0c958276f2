"""The pool as columns: read once, kept in the pool, the same as what the index says row by row."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixtures.diff import explain
from mixtures.manifest.packs import Packs
from mixtures.plan.build_manifest import Plan, build_manifest
from mixtures.pool.columns import read_clips
from mixtures.recipe.load import load_recipe
from shards.errors import UserError
from shards.pool import Pool
from tests.support.made_pool import MadePool, MadeSample, many, name_of, write_recipe

RATIOS = {"a": "weight: 1", "b": "weight: 1"}


def plan_of(folder: Path, pool: Pool, ratios: dict[str, str] = RATIOS, *more: str) -> Plan:
    return build_manifest(load_recipe(write_recipe(folder, ratios, *more)), pool)


def made(folder: Path) -> Pool:
    sources = {"a": many("a", 20), "b": [*many("video-b", 10), MadeSample("text only")]}
    return MadePool(sources=sources).make(folder / "pool")


def test_a_second_recipe_reads_the_columns_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = made(tmp_path)
    first = plan_of(tmp_path, pool)
    monkeypatch.setattr("mixtures.pool.columns._sample_tables", None)
    monkeypatch.setattr("mixtures.pool.columns._clip_tables", None)
    second = plan_of(tmp_path, pool)
    assert second.manifest.manifest_id == first.manifest.manifest_id
    other = plan_of(tmp_path, pool, RATIOS, "layout: {slow_frames: 1}")
    assert other.manifest.manifest_id != first.manifest.manifest_id


def test_a_pool_that_may_only_be_read_gives_the_same_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = made(tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(pool.store, "put_once", refuse)
        read_only = plan_of(tmp_path, pool)
    assert not pool.receipts("facts")
    assert plan_of(tmp_path, pool).manifest.manifest_id == read_only.manifest.manifest_id


def test_a_clip_that_is_decoded_later_is_seen(tmp_path: Path) -> None:
    MadePool(sources={"a": many("a", 3)}).make(tmp_path / "pool")
    pool = MadePool(sources={"a": many("a", 3), "b": many("b", 4)}).make(tmp_path / "pool")
    assert len(read_clips(pool).ids) == 7
    assert plan_of(tmp_path, pool).manifest.contents.sources[1].kept.samples == 4


def refused(plan: Plan) -> dict[str, tuple[str, str]]:
    rows = [row for row in plan.refusals.to_pylist() if row["stage"] == "plan"]
    return {row["record"]: (row["code"], row["detail"]) for row in rows}


def test_filters_choose_by_columns_of_samples_and_clips(tmp_path: Path) -> None:
    clips = [MadeSample("which", ["x"]), MadeSample("seven", ["video-y", "x"]), MadeSample("nine")]
    pool = MadePool(sources={"a": clips, "b": many("b", 2)}).make(tmp_path / "pool")
    rule = "weight: 1, filters: {kind: {one_of: [image]}}"
    assert refused(plan_of(tmp_path, pool, {"a": rule, "b": "weight: 1"})) == {
        "seven": ("FILTER_REFUSED", "the recipe wants kind one of image")
    }
    rule = "weight: 1, filters: {num_chars: {min: 5, max: 9}, width: {max: 64}}"
    assert refused(plan_of(tmp_path, pool, {"a": rule})) == {
        "nine": ("FILTER_REFUSED", "the recipe wants num_chars at least 5 and at most 9")
    }
    rule = "weight: 1, filters: {width: {min: 65}}"
    found = refused(plan_of(tmp_path, pool, {"a": rule}))
    assert set(found) == {"which", "seven"}
    said = r"nothing of the source 'a' is left \(3 FILTER_REFUSED .*, 1 ROW_NOT_JSON"
    with pytest.raises(UserError, match=said):
        plan_of(tmp_path, pool, {"a": "weight: 1, filters: {num_turns: {max: 1}}"})


@pytest.mark.parametrize(
    ("rows_refused", "said"),
    [(2, r"\(2 ROW_NOT_JSON .*bad-0: planted\)"), (0, r"\(it has no record\)")],
)
def test_a_source_without_samples_says_what_became_of_its_records(
    tmp_path: Path, rows_refused: int, said: str
) -> None:
    sources = {"a": list[MadeSample](), "b": many("b", 2)}
    pool = MadePool(sources=sources, rows_refused=rows_refused).make(tmp_path / "pool")
    with pytest.raises(UserError, match=f"nothing of the source 'a' is left {said}"):
        plan_of(tmp_path, pool)


def test_explain_names_record_licence_and_clips_from_the_pool(tmp_path: Path) -> None:
    pool = made(tmp_path)
    manifest = plan_of(tmp_path, pool).manifest
    packs = explain(manifest, 2, 1, 3, 6, pool)
    samples = [one for pack in packs for one in pack]
    wanted = {drawn.key for index in range(12, 18) for drawn in Packs(manifest).pack(index)}
    others = [explain(manifest, 2, rank, 3, 6) for rank in (0, 2)]
    assert {one["key"] for mine in (packs, *others) for p in mine for one in p} == wanted
    records = {s.key: s for source in made_sources().values() for s in source}
    for one in samples:
        sample = records[one["key"]]
        assert one["record"] == sample.text and one["licence"] == "MIT"
        assert one["clips"] == [name_of(clip) for clip in sample.clips]
        assert one["origin"] == f"demo/{one['source']}@{name_of(one['source'])}"
    with pytest.raises(UserError, match="holds no sample"):
        explain(
            manifest,
            2,
            1,
            3,
            6,
            MadePool(sources={"a": many("c", 2), "b": []}).make(tmp_path / "other"),
        )


def made_sources() -> dict[str, list[MadeSample]]:
    return {"a": many("a", 20), "b": [*many("video-b", 10), MadeSample("text only")]}


@pytest.mark.parametrize("selection", ["uniform", "scene", "difference"])
@pytest.mark.parametrize("timestamps", ["none", "per_frame_text"])
def test_every_selection_of_frames_is_counted(
    tmp_path: Path, selection: str, timestamps: str
) -> None:
    pool = MadePool(sources={"a": [*many("video-a", 5), *many("i", 2)]}).make(tmp_path / "pool")
    frames = f"frames: {{fps: 2, cap: 5, min_area: 4096, selection: {selection}}}"
    layout = f"layout: {{slow_frames: 2, timestamps: {timestamps}}}"
    table = plan_of(tmp_path, pool, {"a": "weight: 1"}, frames, layout).manifest.tables[0]
    assert sorted(set(table["frames"].tolist())) == [1, 5]
