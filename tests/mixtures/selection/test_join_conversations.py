"""Conversations over one clip as one sample: nothing lost, bounds kept, lengths as trained."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mixtures.__main__
from mixtures.diff import diff, explain
from mixtures.manifest.draws import Draws
from mixtures.manifest.files import load_manifest
from mixtures.manifest.manifest import Manifest
from mixtures.manifest.npy_tables import ROW
from mixtures.plan.build_manifest import Plan, build_manifest
from mixtures.pool.columns import Samples
from mixtures.recipe.load import load_recipe
from mixtures.recipe.types import JoinRule
from mixtures.selection.join_conversations import join_by_clip
from mixtures.versions import JOIN_ALGO
from pipeline.report.build_data import load_build
from pipeline.report.page import write_report
from shards.errors import UserError
from shards.ids import short_hash
from shards.pool import Pool
from shards.reader import PoolReader, open_data
from tests.support.made_pool import MadePool, MadeSample, check_guarded, many, name_of, write_recipe
from tests.support.packed import packed
from tests.support.tiny_pool import tiny_manifest
from tests.support.verdicts import samples_of
from train.data.pack_stream import Stream

JOIN = "join_by_clip: {max_turns: 6, max_tokens: 200}"
ASKED = st.tuples(
    st.lists(st.integers(0, 2), max_size=2),  # clips
    st.integers(0, 1),  # licence
    st.integers(2, 7),  # turns
    st.integers(1, 60),  # tokens of the text
)


CLIP_IDS = np.frombuffer(np.random.default_rng(0).bytes(48), "V16")


def rows_of(samples: Samples, places: np.ndarray) -> np.ndarray:
    """Rows in which every clip costs 30 tokens and 16 patches."""
    rows = np.zeros(len(places), ROW)
    count = np.diff(samples.ends)[places]
    rows["key"], rows["clips"] = samples.key[places], count
    rows["tokens"] = samples.tokens[places] + 30 * count
    rows["patches"] = 16 * count
    return rows


@given(st.lists(ASKED, max_size=30), st.integers(2, 12), st.integers(16, 200), st.data())
def test_every_conversation_is_in_one_sample_within_the_bounds(
    asked: list[tuple[list[int], int, int, int]], turns: int, tokens: int, data: st.DataObject
) -> None:
    samples = samples_of(asked)
    stays = data.draw(st.lists(st.booleans(), min_size=len(asked), max_size=len(asked)))
    places = np.flatnonzero(np.array(stays, bool))
    rule = JoinRule(max_turns=turns, max_tokens=tokens)
    joined_rows = join_by_clip(samples, places, rows_of(samples, places), rule, CLIP_IDS)
    rows, members = joined_rows.rows, joined_rows.members
    assert len(rows) == len(joined_rows.joined_by) == len(set(joined_rows.joined_by.tolist()))
    of = {row["key"].tobytes(): row for row in rows}
    assert [row["key"].tobytes() for row in rows] == sorted(of)
    assert [row["key"].tobytes() for row in members] == sorted(r["key"].tobytes() for r in members)
    joined: dict[bytes, list[int]] = {}
    for row in members:
        number = int.from_bytes(row["member"].tobytes(), "big")
        joined.setdefault(row["key"].tobytes(), []).append(number)
    apart = [int.from_bytes(key, "big") for key in of if key not in joined]
    assert sorted([*apart, *(n for own in joined.values() for n in own)]) == places.tolist()
    for key, own in joined.items():
        about = {(tuple(asked[n][0]), asked[n][1]) for n in own}
        assert len(about) == 1 and len(own) > 1 and own == sorted(own)
        text, clips = sum(asked[n][3] for n in own), len(asked[own[0]][0])
        assert clips and sum(asked[n][2] for n in own) <= turns and text + 30 * clips <= tokens
        assert all(asked[n][2] % 2 == 0 for n in own)
        assert (of[key]["tokens"], of[key]["patches"]) == (text + 30 * clips, 16 * clips)
        names = [n.to_bytes(16, "big").hex() for n in own]
        assert key.hex() == short_hash([JOIN_ALGO, names])


def ranks(samples: Samples, places: np.ndarray, rule: JoinRule) -> dict[bytes, bytes]:
    """What each sample is ranked by -> its key."""
    joined = join_by_clip(samples, places, rows_of(samples, places), rule, CLIP_IDS)
    keys = np.ascontiguousarray(joined.rows["key"])
    pairs = zip(joined.joined_by, keys, strict=True)
    return {by.tobytes(): key.tobytes() for by, key in pairs}


def test_a_conversation_less_does_not_move_the_sample_it_was_in() -> None:
    asked = [([0], 0, 2, 10), ([0, 1], 0, 2, 10), ([1], 0, 2, 10), ([], 0, 2, 10)] * 5
    samples, rule = samples_of(asked), JoinRule(max_turns=6, max_tokens=1000)
    whole = ranks(samples, np.arange(20), rule)
    for gone in range(20):
        fewer = ranks(samples, np.delete(np.arange(20), gone), rule)
        assert fewer.keys() <= whole.keys() and len(whole) - len(fewer) == (not asked[gone][0])
        changed = sum(whole[by] != key for by, key in fewer.items())
        assert 1 <= changed <= 2 if asked[gone][0] else changed == 0


def test_another_licence_or_order_of_clips_is_another_rank() -> None:
    asked = [([0, 1], 0, 2, 9), ([1, 0], 0, 2, 9), ([0, 1], 1, 2, 9), ([0], 0, 2, 9)]
    samples = samples_of(asked)
    found = ranks(samples, np.arange(4), JoinRule(max_turns=6, max_tokens=1000))
    assert len({by[:8] for by in found}) == 4 and {by[8:] for by in found} == {bytes(8)}
    alone = samples_of([([], 0, 2, 9), ([1], 0, 3, 9)])
    for by, key in ranks(alone, np.arange(2), JoinRule(max_turns=6, max_tokens=1000)).items():
        assert by == key


def test_neighbours_are_joined_until_a_bound_is_reached() -> None:
    samples = samples_of([([0], 0, 2, 10)] * 7)
    every = np.arange(7)

    def sizes(turns: int, tokens: int) -> list[int]:
        rule = JoinRule(max_turns=turns, max_tokens=tokens)
        joined = join_by_clip(samples, every, rows_of(samples, every), rule, CLIP_IDS)
        return sorted(Counter(row["key"].tobytes() for row in joined.members).values())

    assert sizes(100, 1000) == [7]
    assert sizes(6, 1000) == [3, 3]  # and one alone
    assert sizes(100, 30 + 40) == [3, 4]
    assert sizes(100, 35) == []  # each is longer than the bound, and stays


def asked_twice(text: str, clips: list[str], times: int = 3) -> list[MadeSample]:
    return [MadeSample(f"{text} {number}", clips) for number in range(times)]


def pool_of() -> MadePool:
    a = [*asked_twice("which", ["x"]), *asked_twice("where", ["y", "x"]), MadeSample("text only")]
    return MadePool(sources={"a": a, "b": many("b", 4)})


def plan_of(folder: Path, pool: MadePool, *more: str, a: str = "weight: 1") -> Plan:
    folder.mkdir(exist_ok=True)
    recipe = load_recipe(write_recipe(folder, {"a": a, "b": "weight: 1"}, *more))
    return build_manifest(recipe, pool.make(folder / "pool"))


def test_a_recipe_joins_and_its_books_count_what_was_joined(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, pool_of(), JOIN)
    a, b = plan.books
    assert (a.admitted, a.not_chosen, a.chosen, a.joined) == (7, 0, 7, 4)
    assert (b.chosen, b.joined) == (4, 0) and a.drawn + b.drawn <= 3 + 4
    kept = [source.kept for source in plan.manifest.contents.sources]
    assert [(one.samples, one.conversations) for one in kept] == [(3, 7), (4, 4)]
    assert plan.manifest.contents.to_json()["join"] == {
        "algo": JOIN_ALGO,
        "max_turns": 6,
        "max_tokens": 200,
    }
    assert not any(row["stage"] == "plan" for row in plan.refusals.to_pylist())


def test_a_refused_conversation_is_not_joined(tmp_path: Path) -> None:
    pool = pool_of()
    pool.sources["a"][1].licence = "NC"
    a, _ = plan_of(tmp_path, pool, JOIN, "allow_licences: [MIT]").books
    assert (a.not_chosen, a.chosen, a.joined) == (1, 6, 3)


def test_a_recipe_that_does_not_join_says_nothing_of_it(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, pool_of())
    assert "join" not in plan.manifest.contents.to_json() and plan.manifest.members == []
    assert set(plan.manifest.contents.to_json()["sources"][0]["kept"]) == {
        "samples",
        "tokens",
        "table",
    }


def test_a_conversation_less_keeps_the_order_of_the_mixture(tmp_path: Path) -> None:
    asked = [one for i in range(12) for one in asked_twice(f"about {i}", [f"video-{i}"], 5)]
    orders = []
    for name, own in (("whole", asked), ("fewer", [*asked[:22], *asked[23:]])):
        pool = MadePool(sources={"a": own, "b": many("b", 4)})
        manifest = plan_of(tmp_path / name, pool, JOIN, "length: 48").manifest
        keys = [one.key for one in Draws(manifest).samples(0, 48) if one.source == "a"]
        clips = {row["key"].tobytes().hex(): by for row, by in joined_by(manifest)}
        orders.append([clips[key] for key in keys])
        assert len(set(keys[: len(clips)])) == len(clips)
    assert orders[0] == orders[1]


def joined_by(manifest: Manifest) -> Iterator[tuple[np.void, bytes]]:
    """The rows of the first source, and what each is ranked by."""
    for row, by in zip(manifest.tables[0], manifest.joined_by[0], strict=True):
        yield row, by.tobytes()


def test_diff_and_explain_name_the_conversations(tmp_path: Path) -> None:
    pool = pool_of()
    joined, apart = plan_of(tmp_path, pool, JOIN).manifest, plan_of(tmp_path, pool).manifest
    found = diff(apart, joined)
    assert found["rules"]["join.max_turns"] == [None, 6]
    assert found["sources"]["a"]["conversations"] == [7, 7]
    assert found["sources"]["a"]["kept"] == [7, 3] and found["sources"]["a"]["in_order"] == 1
    assert found["sources"]["b"]["in_both"] == 4
    made = {sample.key: sample for own in pool.sources.values() for sample in own}
    packs = explain(joined, 0, 0, 1, 8, Pool(str(tmp_path / "pool")))
    shown = [one for pack in packs for one in pack]
    for one in shown:
        names = one["conversations"]
        assert one["record"] == " + ".join(made[name].text for name in names)
        assert one["clips"] == [name_of(clip) for clip in made[names[0]].clips]
    assert {len(one["conversations"]) for one in shown} == {1, 3}


def test_joined_conversations_are_the_same_whatever_the_pool_was_cut_into(tmp_path: Path) -> None:
    ids = {
        build_manifest(
            load_recipe(write_recipe(tmp_path, {"a": "repeat: 1", "b": "repeat: 1"}, JOIN)),
            pool_of().make(tmp_path / f"pool{parts}", parts),
        ).manifest.manifest_id
        for parts in (1, 3)
    }
    assert ids == {GOLDEN_ID}


GOLDEN_ID = "2fae080ff124fa2ae51a4b3c9172c45068820eb4157a9fdf25010f7315841351"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("join_by_clip: {max_turns: 6}", "the key 'max_tokens' is missing"),
        ("join_by_clip: {max_turns: 1, max_tokens: 99}", "max_turns: must be an integer from 2"),
        ("join_by_clip: {max_turns: 6, max_tokens: 999}", "do not fit into a pack of 256"),
        ("join_by_clip: true", "join_by_clip: must be a mapping"),
    ],
)
def test_bounds_that_make_no_sense_are_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_recipe(write_recipe(tmp_path, {"a": "weight: 1"}, line))


def test_a_manifest_of_another_way_to_join_and_damaged_members_are_refused(tmp_path: Path) -> None:
    plan_of(tmp_path, pool_of(), JOIN).write(str(tmp_path))
    path = tmp_path / "manifest.json"
    members = json.loads(path.read_bytes())["sources"][0]["kept"]["members"]
    check_guarded(path, tmp_path / f"plan/{members}.npy", "join")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest over real frames whose clips are asked about twice, and its shards beside it."""
    path = tiny_manifest(
        tmp_path_factory.mktemp("tiny"),
        timestamps="per_frame_text",
        ratio=("repeat: 1", "repeat: 1.5"),
        join="max_turns: 4, max_tokens: 200",
    )
    packed(path)
    return path


def taken(path: Path, data: str) -> list[tuple[object, ...]]:
    stream = Stream(load_manifest(path), str(path.parent / data), workers=0)
    packs = [pack for step in islice(stream.steps(), 8) for pack in step]
    return [(p.keys, p.tokens.tobytes(), p.labels.tobytes(), p.patches.tobytes()) for p in packs]


def test_a_joined_sample_is_as_long_in_the_plan_as_in_the_trainer(built: Path) -> None:
    manifest = load_manifest(built)
    clips = manifest.names.index("clips")
    assert (len(manifest.tables[clips]), len(manifest.members[clips])) == (18, 36)
    drawn = {one.key: one for one in Draws(manifest).samples(0, manifest.length)}
    stream = Stream(manifest, str(built.parent.parent / "pool"), workers=0)
    packs = [pack for step in stream.steps() for pack in step]
    seen = [key for pack in packs for key in pack.keys]
    assert Counter(seen) == Counter(one.key for one in Draws(manifest).samples(0, manifest.length))
    for pack in packs:
        wanted = [drawn[key] for key in pack.keys]
        assert np.diff(pack.cu_seqlens).tolist() == [one.tokens for one in wanted]
        assert len(pack.patches) == sum(one.patches for one in wanted)
    assert sum(len(manifest.members_of(drawn[key].source, key)) == 2 for key in seen) == 27


def test_joined_samples_are_the_same_from_the_pool_and_from_shards(built: Path) -> None:
    assert taken(built, "../pool") == taken(built, "shards")
    manifest = load_manifest(built)
    reader = PoolReader(Pool(str(built.parent.parent / "pool")))
    shards = open_data(str(built.parent / "shards"))
    drawn = next(d for d in Draws(manifest).samples(0, 39) if d.source == "clips")
    sample = shards.read(drawn.source, drawn.key).sample
    asked = [reader.read("clips", key).sample for key in manifest.members_of("clips", drawn.key)]
    assert sample.turns == tuple(turn for one in asked for turn in one.turns)
    assert sample.clips == asked[0].clips and sample.key == drawn.key
    assert sample.origin.record == " + ".join(one.origin.record for one in asked)


def test_the_report_counts_conversations_and_opens(built: Path) -> None:
    out, pool = str(built.parent), str(built.parent.parent / "pool")
    build = load_build(out, pool)
    assert len(build.chosen) == len(set(build.chosen)) == 12 + 2 * 18
    assert sum(build.drawn.values()) == 12 + 2 * 27
    assert [(one.chosen, one.joined, one.drawn) for one in build.books] == [
        (12, 0, 12),
        (36, 18, 18),
    ]
    page = Path(write_report(out, pool)).read_text()
    assert "do not balance" not in page and "joined" in page


def test_the_command_line_prints_both_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pool_of().make(tmp_path / "pool")

    def run(*arguments: object) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["mixtures", *map(str, arguments)])
        mixtures.__main__.main()
        return capsys.readouterr().out.splitlines()

    said = {}
    for out, more in (("joined", (JOIN,)), ("apart", ())):
        recipe = write_recipe(tmp_path, {"a": "weight: 1", "b": "weight: 1"}, *more)
        said[out] = run("plan", recipe, "--pool", tmp_path / "pool", "--out", tmp_path / out)
    (line,) = (each for each in said["joined"] if each.split()[:2] == ["a", "8"])
    assert line.split()[6:8] == ["7", "4"]
    found = run("diff", tmp_path / "apart/manifest.json", tmp_path / "joined/manifest.json")
    assert "a: joined from 7 | 7 conversations" in found
    assert not any(each.startswith("b: joined") for each in found)
