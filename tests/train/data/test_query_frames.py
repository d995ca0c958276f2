"""Frames selected by what each sample asks: one column of scores, the same frames from pool and
shards, and no other scores than those of the manifest."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from mixtures.manifest.draws import Draws
from mixtures.manifest.files import load_manifest
from mixtures.manifest.manifest import Manifest
from mixtures.plan.build_manifest import build_manifest
from mixtures.recipe.load import load_recipe
from pipeline.jobs.job import Job
from pipeline.jobs.progress import steps
from pipeline.jobs.score_pool import score_pool
from pipeline.stages import write_shard
from pipeline.upkeep.garbage import clear, manifests_in
from shards.errors import UserError
from shards.key_index import SAMPLE_FRAME
from shards.pool import Pool
from shards.reader import open_data
from tests.support.in_process import Here
from tests.support.packed import packed
from tests.support.tiny_pool import tiny_manifest
from train.data.pack_stream import Stream

SCORER = """
import zlib
def asked(frames, turns):
    said = turns[0].text.encode()
    return [zlib.crc32(frame.tobytes() + said) % 65_536 for frame in frames]
def seen(frames): return [1 for _ in frames]
"""
CAP = 4


class Made(NamedTuple):
    root: Path
    pool: Pool


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """A tiny pool whose clips are each asked two questions, scored for each."""
    tiny_manifest(tmp_path, timestamps="per_frame_text", join="max_turns: 2, max_tokens: 256")
    (tmp_path / "frame_scorers.py").write_text(SCORER)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "frame_scorers", raising=False)
    pool = Pool(str(tmp_path / "pool"))
    scored(pool, "asked")
    write_shard._reader.cache_clear()
    return Made(tmp_path, pool)


def scored(pool: Pool, name: str, per: str = SAMPLE_FRAME) -> str:
    with steps() as bars:
        job = Job(pool=pool, workers=Here(), bars=bars)
        return score_pool(f"frame_scorers:{name}", per, job).digest


def recipe_of(made: Made, keys: str = "frame_scores: asked", selection: str = "query") -> Path:
    text = (made.root / "recipe.yaml").read_text().replace("uniform", selection)
    text = text.replace("length: 60", "length: 40")
    lines = [line for line in text.splitlines() if not line.startswith("join_by_clip")]
    (made.root / "query.yaml").write_text("\n".join([*lines, keys, ""]))
    return made.root / "query.yaml"


def planned(made: Made, keys: str = "frame_scores: asked", name: str = "query") -> Path:
    plan = build_manifest(load_recipe(recipe_of(made, keys)), Pool(made.pool.store.url))
    plan.write(str(made.root / name))
    return made.root / name / "manifest.json"


def shown(manifest: Manifest, data: str) -> list[bytes]:
    """What the packs of eight steps hold: texts with their times, patches."""
    stream = Stream(manifest, data, workers=0)
    packs = [pack for step in islice(stream.steps(), 8) for pack in step]
    return [pack.tokens.tobytes() + pack.patches.tobytes() for pack in packs]


def test_every_question_is_shown_its_own_frames_from_pool_and_from_shards(made: Made) -> None:
    path = planned(made)
    manifest = load_manifest(path)
    pool, shards = made.pool.store.url, packed(path)
    assert shown(manifest, pool) == shown(manifest, shards)
    # two questions about one clip have scores of their own, the same wherever they are read
    by_clip: dict[str, set[tuple[int, ...]]] = {}
    for drawn in Draws(manifest).samples(0, manifest.length):
        read = [open_data(at, None, manifest).read(drawn.source, drawn.key).sample
                for at in (pool, shards)]  # fmt: skip
        assert read[0] == read[1] and read[0].frame_scores is not None
        by_clip.setdefault(read[0].clips[0].clip_id, set()).add(read[0].frame_scores.values[0])
    assert max(map(len, by_clip.values())) == 2
    # selected evenly it is another manifest over the same samples, and another picture
    evenly = build_manifest(load_recipe(recipe_of(made, "", "uniform")), made.pool)
    assert evenly.manifest.contents.order_digest == manifest.contents.order_digest
    assert shown(evenly.manifest, pool) != shown(manifest, pool)


def test_shards_without_such_a_recipe_say_nothing_of_scores(made: Made) -> None:
    recipe = load_recipe(recipe_of(made, "", "uniform"))
    build_manifest(recipe, made.pool).write(str(made.root / "even"))
    shards = packed(made.root / "even/manifest.json")
    (tar,) = Path(shards).glob("*.tar")
    assert b"frame_scores" not in tar.read_bytes()
    said = json.loads((made.root / "even/manifest.json").read_text())
    assert "frame_scores" not in said["recipe"]
    # and do not serve a manifest that selects by them
    manifest = load_manifest(planned(made))
    with pytest.raises(UserError, match=r"selects frames by the scores .*shards hold none; pack"):
        shown(manifest, shards)


def without(made: Made, keep: Callable[[str], bool]) -> None:
    for one in made.pool.receipts("score"):
        if not keep(one.inputs[1]):
            made.pool.store.remove(f"receipts/{one.work_id}.json")


def test_other_scores_than_those_of_the_manifest_are_refused(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, first = load_manifest(planned(made)), made.pool.receipts("score")[0]
    # half of the column
    without(made, lambda clips: clips == first.inputs[1])
    with pytest.raises(UserError, match=r"clips of samples have no scores, the first of sample"):
        open_data(made.pool.store.url, None, manifest)
    with pytest.raises(UserError, match=r"frame_scores: asked: .*run `python -m pipeline score"):
        planned(made)
    # the same scorer that says something else: its model gave other numbers, or another machine
    without(made, lambda _: False)

    def other(frames: Sequence[object], _: object) -> list[int]:
        return [2 * i for i, _ in enumerate(frames)]

    other.__module__ = "frame_scorers"
    monkeypatch.setattr(sys.modules["frame_scorers"], "asked", other)
    assert scored(Pool(made.pool.store.url), "asked") == first.parameters["digest"]
    with pytest.raises(UserError, match=r"scores asked@\w{8} are others than those .*plan again"):
        open_data(made.pool.store.url, None, manifest)
    without(made, lambda _: False)
    with pytest.raises(UserError, match=r"selects frames by the scores .* the pool holds none"):
        open_data(made.pool.store.url, None, manifest)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ("", "selection: query selects by a column of scores; name it"),
        ("frame_scores: gone", "holds no scores 'gone'; run .*MODULE:gone --per sample_frame"),
        ("frame_scores: seen", "frame_scores: seen: these are scores of a frame; frames are sel"),
        ("frame_scores: asked\ncanonical_clips: true", "canonical_clips: shows clips that have no"),
        ("frame_scores: asked\njoin_by_clip: {max_turns: 4, max_tokens: 99}", "joined conversatio"),
    ],
)
def test_what_cannot_select_is_said_in_one_line(made: Made, keys: str, says: str) -> None:
    scored(made.pool, "seen", "frame")
    with pytest.raises(UserError, match=says) as caught:
        planned(made, keys)
    assert len(caught.value.args) == 1


def test_scores_that_select_nothing_are_refused(made: Made) -> None:
    with pytest.raises(UserError, match="frame_scores: nothing selects by them"):
        load_recipe(recipe_of(made, "frame_scores: asked", "uniform"))


@pytest.mark.parametrize(("how", "bound"), [("mean", 33_000), ("least", 9_000), ("most", 56_000)])
def test_a_filter_takes_one_value_of_each_clip_of_a_sample(
    made: Made, how: str, bound: int
) -> None:
    path = recipe_of(made, "", "uniform")
    rule = f"filters: {{scores.asked.{how}: {{min: {bound}}}}}"
    path.write_text(path.read_text().replace("name: clips,", f"name: clips, {rule},"))
    plan = build_manifest(load_recipe(path), made.pool)
    whole = load_manifest(planned(made))
    reader = open_data(made.pool.store.url, None, whole)
    kept = {row.tobytes().hex() for row in plan.manifest.tables[1]["key"]}
    fits = set()
    for key in (row.tobytes().hex() for row in whole.tables[1]["key"]):
        scores = reader.read("clips", key).sample.frame_scores
        assert scores is not None
        (values,) = scores.values
        value = {"mean": sum(values) // len(values), "least": min(values), "most": max(values)}
        fits |= {key} if value[how] >= bound else set()
    assert kept == fits and 0 < len(kept) < len(whole.tables[1])


def test_what_selects_the_frames_of_a_kept_manifest_stays_in_the_pool(made: Made) -> None:
    path = planned(made)
    scored(made.pool, "seen", "frame")
    clear(made.pool, manifests_in([str(path.parent)]))
    left = {one.parameters["scorer"] for one in Pool(made.pool.store.url).receipts("score")}
    assert left == {"frame_scorers:asked"}
    assert len(shown(load_manifest(path), made.pool.store.url)) == 8


def test_a_kept_frame_count_is_that_of_the_plan(made: Made) -> None:
    manifest = load_manifest(planned(made))
    table = manifest.tables[1]
    assert np.all(table["frames"] == CAP)
