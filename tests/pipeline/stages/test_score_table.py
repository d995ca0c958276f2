"""Scores of a pool: integers from a function that is named, once, by the digest of its source."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from mixtures.plan.build_manifest import Plan, build_manifest
from mixtures.recipe.load import load_recipe
from pipeline import scorers
from pipeline.jobs.job import Job
from pipeline.jobs.progress import steps
from pipeline.jobs.score_pool import Scored, check_scorer, score_pool
from pipeline.upkeep.garbage import clear, manifests_in
from shards.errors import UserError
from shards.index import SCORES
from shards.pool import Pool
from shards.sample import Turn
from tests.support.in_process import Here
from tests.support.tiny_pool import tiny_manifest

SCORERS = """
def first(frames): return [int(frame[0, 0, 0]) for frame in frames]
def count(frames): return len(frames)
calls = []
def counted(frames): calls.append(1); return len(frames)
def words(turns): return sum(len(turn.text.split()) for turn in turns)
def floats(frames): return [0.5 for _ in frames]
def nothing(frames): return [float("nan") for _ in frames]
def whole(turns): return 3.0
def short(frames): return [1] * (len(frames) + 1)
def large(turns): return 65_536
def negative(turns): return -1
def halves(frames, turns): return [0.5 for _ in frames]
def two(frames, turns): return [len(turns)] * 2
def asked(frames, turns): return [len(turns) + i for i, _ in enumerate(frames)]
"""


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pool:
    """A tiny pool, and scorers in a module that is not ours."""
    tiny_manifest(tmp_path / "tiny")
    (tmp_path / "own_scorers.py").write_text(SCORERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_scorers", raising=False)
    return Pool(str(tmp_path / "tiny/pool"))


def scored(pool: Pool, name: str, per: str) -> Scored:
    with steps() as bars:
        return score_pool(name, per, Job(pool=pool, workers=Here(), bars=bars))


def planned(pool: Pool, condition: str) -> Plan:
    """The tiny recipe with a filter of its clips."""
    root = Path(pool.store.url).parent
    text = (root / "recipe.yaml").read_text()
    clips = f"name: clips, filters: {{{condition}}},"
    (root / "filtered.yaml").write_text(text.replace("name: clips,", clips))
    return build_manifest(load_recipe(root / "filtered.yaml"), pool)


def test_a_column_is_made_once_and_goes_on_where_it_was(made: Pool) -> None:
    found = scored(made, "own_scorers:counted", "clip")
    assert (found.rows, found.least, found.most) == (30, 1, 6)
    calls = sys.modules["own_scorers"].calls
    assert scored(Pool(made.store.url), "own_scorers:counted", "clip") == found
    assert len(calls) == 30
    # two tables, of 12 and of 18 clips: what lacks its receipt is scored again
    (gone, other) = made.receipts("score")
    made.store.remove(f"receipts/{gone.work_id}.json")
    assert scored(Pool(made.store.url), "own_scorers:counted", "clip") == found
    assert len(calls) - 30 == 30 - len(made.read(f"scores/{other.outputs['scores'][0]}"))


@pytest.mark.parametrize(
    ("name", "per", "says"),
    [
        ("floats", "frame", "scores must be integers, not 0.5"),
        ("nothing", "frame", "scores must be integers, not nan"),
        ("whole", "sample", "scores must be integers, not 3.0"),
        ("short", "frame", "2 scores, 1 wanted|7 scores, 6 wanted"),
        ("first", "clip", "scores must be integers, not"),
        ("large", "sample", "from 0 to 65535, not 65536"),
        ("negative", "sample", "from 0 to 65535, not -1"),
        ("gone", "clip", "no attribute 'gone'; give MODULE:FUNCTION"),
        ("halves", "sample_frame", "for sample .*scores must be integers, not 0.5"),
        ("two", "sample_frame", "2 scores, 1 wanted|2 scores, 6 wanted"),
        ("words", "sample_frame", r"--per sample_frame calls it with \(frames, turns\)"),
        ("asked", "frame", r"--per frame calls it with \(frames\)"),
    ],
)
def test_what_is_no_score_is_said_with_its_row_and_nothing_is_kept(
    made: Pool, name: str, per: str, says: str
) -> None:
    with pytest.raises(UserError, match=f"own_scorers:{name}.*({says})"):
        scored(made, f"own_scorers:{name}", per)
    assert not made.receipts("score")


@pytest.mark.parametrize("name", ["nowhere:f", "sharpness", "pipeline.scorers", ":f", "a b:c"])
def test_a_module_that_is_not_there_is_said_before_any_worker(name: str) -> None:
    with pytest.raises(UserError, match="give MODULE:FUNCTION, e"):
        check_scorer(name, "frame")


@pytest.mark.parametrize(
    ("name", "per", "says"),
    [
        ("motionn", "frame", "there are brightness, caption_length, motion, "),
        ("motion", "sample", "gives a score per frame; add --per frame"),
        ("caption_length", "clip", "add --per sample"),
    ],
)
def test_our_own_scorers_are_checked_before_any_worker(name: str, per: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        check_scorer(f"pipeline.scorers:{name}", per)


def test_every_scorer_of_ours_says_what_it_scores() -> None:
    assert set(scorers.PER) == set(scorers.__all__)


@pytest.mark.parametrize(
    ("condition", "value"),
    [
        ("scores.first.mean: {min: 100}", lambda frames: sum(frames) // len(frames) >= 100),
        ("scores.first.least: {min: 100}", lambda frames: min(frames) >= 100),
        ("scores.first.most: {max: 100}", lambda frames: max(frames) <= 100),
    ],
)
def test_a_filter_over_frames_takes_one_value_of_each_clip(
    made: Pool, condition: str, value: Callable[[Sequence[int]], bool]
) -> None:
    digest = scored(made, "own_scorers:first", "frame").digest
    rows = made.table(made.receipts("score"), "scores", SCORES).to_pylist()
    passing = {row["of"] for row in rows if value(row["values"])}
    plan = planned(made, condition)
    refused = {row["key"] for row in plan.refusals.to_pylist()}
    samples = [
        row
        for receipt in made.receipts("admit")
        if receipt.parameters["source"] == "clips"
        for row in made.read(f"index/samples/{receipt.outputs['index/samples'][0]}").to_pylist()
    ]
    assert refused == {row["key"] for row in samples if not passing.issuperset(row["clip_ids"])}
    assert 0 < len(refused) < len(samples)
    said = plan.manifest.contents.to_json()["recipe"]
    assert said["scores"] == {condition.partition(":")[0]: digest}


def test_a_filter_over_samples_and_the_scores_that_a_kept_manifest_needs(made: Pool) -> None:
    scored(made, "own_scorers:words", "sample")
    scored(made, "own_scorers:count", "clip")
    plan = planned(made, "scores.words: {min: 7}, scores.count: {min: 2}")
    root = Path(made.store.url).parent
    plan.write(str(root / "filtered"))
    assert "FILTER_REFUSED" not in str(planned(made, "scores.words: {min: 1}").refusals)
    scored(made, "own_scorers:first", "frame")
    clear(made, manifests_in([str(root / "filtered")]))
    left = {one.parameters["scorer"] for one in Pool(made.store.url).receipts("score")}
    assert left == {"own_scorers:words", "own_scorers:count"}
    again = planned(Pool(made.store.url), "scores.words: {min: 7}, scores.count: {min: 2}")
    assert again.manifest.manifest_id == plan.manifest.manifest_id


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ("scores.blur: {min: 1}", "holds no scores 'blur'; run `python -m pipeline score"),
        ("scores.first: {min: 1}", r"scores of a frame; write scores\.first\.mean"),
        ("scores.count.mean: {min: 1}", r"scores of a clip; write scores\.count"),
        ("scores.first.median: {min: 1}", r"must be scores\.NAME, or of frames"),
        ("scores.count: {min: 0.5}", "must be an integer"),
        ("scores.half: {min: 1}", "rows of 'clips' have no score"),
    ],
)
def test_a_filter_that_names_no_column_is_said(made: Pool, condition: str, says: str) -> None:
    scored(made, "own_scorers:first", "frame")
    scored(made, "own_scorers:count", "clip")
    if "half" in condition:
        for one in made.receipts("score"):
            made.store.remove(f"receipts/{one.work_id}.json")
        condition = condition.replace("half", "count")
        scored(made, "own_scorers:count", "clip")
        first, *_ = sorted(
            made.receipts("score"),
            key=lambda one: -len(made.read(f"scores/{one.outputs['scores'][0]}")),
        )
        made.store.remove(f"receipts/{first.work_id}.json")
    with pytest.raises(UserError, match=says):
        planned(made, condition)


def test_another_scorer_of_that_name_is_another_column(made: Pool, tmp_path: Path) -> None:
    one = scored(made, "own_scorers:count", "clip").digest
    (tmp_path / "own_scorers.py").write_text(SCORERS.replace("len(frames)\n", "2 * len(frames)\n"))
    del sys.modules["own_scorers"]
    other = scored(made, "own_scorers:count", "clip").digest
    with pytest.raises(UserError, match=r"2 columns of that name .*write scores\.count@"):
        planned(made, "scores.count: {min: 12}")
    plan = planned(made, f"scores.count@{other[:8]}: {{min: 12}}")
    assert one != other and "FILTER_REFUSED" not in str(plan.refusals)


def test_the_built_in_scorers_tell_what_they_are_named_for() -> None:
    flat = np.full((16, 16, 3), 100, np.uint8)
    fine = np.indices((16, 16)).sum(0)[..., None].repeat(3, 2) % 2 * 255
    frames = [flat, fine.astype(np.uint8)]
    assert scorers.brightness(frames) == [100, 127]
    assert scorers.sharpness(frames)[0] == 0 and scorers.sharpness(frames)[1] == 65_535
    assert scorers.motion(frames)[0] == 0 and scorers.motion(frames)[1] > 10_000
    assert scorers.text_density(frames) == [0, 1000]
    assert [f(frames[:0]) for f in (scorers.brightness, scorers.sharpness)] == [[], []]
    turns = [Turn(role="user", text="Why?"), Turn(role="assistant", text="four")]
    assert scorers.caption_length(turns) == 4 and scorers.caption_length(turns[:1]) == 0
    small = [np.zeros((1, 1, 3), np.uint8)]
    assert scorers.sharpness(small) == scorers.text_density(small) == [0]
