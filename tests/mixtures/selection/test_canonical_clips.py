"""One clip for its near copies, and no more samples over a clip than the recipe allows."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixtures.diff import diff, explain
from mixtures.manifest.draws import Draws
from mixtures.manifest.files import load_manifest
from mixtures.manifest.manifest import Manifest
from mixtures.plan.build_manifest import Plan, build_manifest
from mixtures.recipe.load import load_recipe
from mixtures.selection import canonical_clips
from mixtures.selection.canonical_clips import EQUALLY_LONG, canonical, repoint
from mixtures.versions import CANONICAL_ALGO
from shards.errors import UserError
from shards.index import CLIPS, LEAKS, PAIRS, REFERENCES, table_of
from shards.pool import Pool
from shards.reader import PoolReader, open_data
from shards.receipts import Work
from tests.support.made_pool import MadePool, MadeSample, check_guarded, many, name_of, write_recipe
from tests.support.packed import packed
from tests.support.tiny_pool import tiny_manifest
from tests.support.verdicts import samples_of
from train.data.pack_stream import Stream

ON = "canonical_clips: true"
CLIP = st.tuples(st.integers(1, 3), st.integers(0, 1200), st.integers(0, 2))  # side, ms, bytes
LINKS = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=10)


@given(
    st.lists(CLIP, min_size=8, max_size=8),
    LINKS,
    st.lists(st.booleans(), min_size=8, max_size=8),
)
def test_the_largest_used_copy_is_shown_and_only_for_equally_long_ones(
    made: list[tuple[int, int, int]], pairs: list[tuple[int, int]], used: list[bool]
) -> None:
    side, millis, nbytes = (np.array(column) for column in zip(*made, strict=True))
    clips = SimpleNamespace(
        ids=np.arange(8), width=side, height=side, millis=millis.astype(np.uint32), nbytes=nbytes
    )
    copies = np.array(pairs, np.int64).reshape(-1, 2).T
    shown = canonical(clips, copies, np.array(used))
    size = [(each, bytes_, -n) for n, (each, _, bytes_) in enumerate(made)]
    fits = [
        (a, b)
        for a, b in pairs
        if used[a] and used[b] and abs(made[a][1] - made[b][1]) <= EQUALLY_LONG
    ]
    for a, b in fits:
        assert shown[a] == shown[b] or a == shown[a] or b == shown[b]
    for clip, other in enumerate(shown.tolist()):
        assert abs(made[clip][1] - made[other][1]) <= EQUALLY_LONG
        assert shown[other] == other and size[other] >= size[clip]
        assert other == clip or any(clip in pair for pair in fits)


@given(st.lists(st.lists(st.integers(0, 5), max_size=3), max_size=8), st.permutations(range(6)))
def test_a_sample_is_repointed_as_a_whole_or_not_at_all(
    named: list[list[int]], order: list[int]
) -> None:
    shown = np.array([min(order[clip], 3) for clip in range(6)])
    samples = samples_of([(clips, 0, 2, 1) for clips in named])
    found = repoint(samples, shown)
    for i, clips in enumerate(named):
        now = found.clips[found.ends[i] : found.ends[i + 1]].tolist()
        wanted = [int(shown[clip]) for clip in clips]
        assert now == (wanted if len(set(wanted)) == len(wanted) else clips)


def pool_of(relation: str = "near") -> MadePool:
    """`x large` and `y` are one picture, `video a` and `video b large` one video, `z` none."""
    a = [MadeSample("which", ["x large"]), MadeSample("who", ["y", "z"]), MadeSample("words only")]
    b = [
        MadeSample("where", ["y"]),
        MadeSample("differ", ["x large", "y"]),
        MadeSample("how", ["video a"]),
        MadeSample("when", ["video b large"]),
    ]
    pairs = [("x large", "y"), ("video a", "video b large")]
    return MadePool(sources={"a": [*a, *many("a", 2)], "b": b}, pairs=pairs, relation=relation)


def plan_of(folder: Path, pool: MadePool, *more: str) -> Plan:
    folder.mkdir(exist_ok=True)
    recipe = load_recipe(write_recipe(folder, {"a": "weight: 1", "b": "weight: 1"}, *more))
    return build_manifest(recipe, pool.make(folder / "pool"))


def named(plan: Plan) -> dict[str, str]:
    rows = plan.manifest.copies
    names = {name_of(clip): clip for clip in ("x large", "y", "video a", "video b large")}
    return {names[row["clip"].tobytes().hex()]: names[row["shown"].tobytes().hex()] for row in rows}


def test_a_recipe_shows_one_clip_for_its_copies_and_loses_nothing(tmp_path: Path) -> None:
    plain, plan = plan_of(tmp_path, pool_of()), plan_of(tmp_path, pool_of(), ON)
    assert named(plan) == {"y": "x large", "video a": "video b large"}
    assert [one.chosen for one in plan.books] == [one.chosen for one in plain.books] == [5, 4]
    for ours, theirs in zip(plan.manifest.tables, plain.manifest.tables, strict=True):
        assert np.array_equal(ours["key"], theirs["key"])
    x, y, z = (name_of(clip) for clip in ("x large", "y", "z"))
    assert plan.manifest.shown([y, z]) == [x, z]
    assert plan.manifest.shown([x, y]) == [x, y]  # what differs between them?
    assert plain.manifest.shown([y, z]) == [y, z] and plain.manifest.contents.canonical is None


def test_short_answers_that_differ_keep_their_own_clips(tmp_path: Path) -> None:
    def shown(answers: tuple[str, str], question: str = "which total") -> dict[str, str]:
        pool = pool_of()
        pool.sources["a"].append(MadeSample("Which total", ["x large"], answer=answers[0]))
        pool.sources["b"].append(MadeSample(question, ["y"], answer=answers[1]))
        return named(plan_of(tmp_path / str(hash((answers, question))), pool, ON))

    both = {"y": "x large", "video a": "video b large"}
    assert shown(("seven", "eight")) == {"video a": "video b large"}
    assert shown(("seven", "Seven")) == both
    assert shown(("seven", "eight"), "which digit") == both
    assert shown(("seven", " ".join(["eight"] * 9))) == both


def test_copies_that_are_undecided_show_themselves_and_refuse_nothing(tmp_path: Path) -> None:
    pool = pool_of()
    pool.judged = "undecided"
    plan = plan_of(tmp_path, pool, ON)
    assert named(plan) == {} and [one.chosen for one in plan.books] == [5, 4]


def test_a_sample_costs_what_its_shown_clip_costs(tmp_path: Path) -> None:
    pool = pool_of()
    plain, plan = (plan_of(tmp_path, pool, *more) for more in ((), (ON,)))
    patches = [
        {row["key"].tobytes().hex(): int(row["patches"]) for row in each.manifest.tables[1]}
        for each in (plain, plan)
    ]
    where, _, how, when = (one.key for one in pool.sources["b"])
    assert patches[0][how] < patches[1][how] == patches[1][when] == patches[0][when]
    assert patches[0][where] < patches[1][where]


@pytest.mark.parametrize("relation", ["contained", "mirrored"])
def test_a_part_or_a_mirror_image_shows_itself(tmp_path: Path, relation: str) -> None:
    assert named(plan_of(tmp_path, pool_of(relation), ON)) == {}


def test_a_copy_of_another_length_shows_itself(tmp_path: Path) -> None:
    pool = pool_of()
    pool.sources["b"].append(MadeSample("last", ["video long large"]))
    pool.pairs.append(("video long large", "video a"))
    assert named(plan_of(tmp_path, pool, ON)) == {"y": "x large", "video a": "video b large"}


def test_no_clip_of_a_refused_sample_is_shown(tmp_path: Path) -> None:
    pool = pool_of()
    pool.sources["a"][0].licence = pool.sources["b"][1].licence = "NC"
    plan = plan_of(tmp_path, pool, ON, "allow_licences: [MIT]")
    assert named(plan) == {"video a": "video b large"}


def test_conversations_over_copies_are_joined(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, pool_of(), ON, "join_by_clip: {max_turns: 8, max_tokens: 200}")
    assert [one.joined for one in plan.books] == [0, 1]


def test_explain_and_diff_say_what_is_shown(tmp_path: Path) -> None:
    plain, plan = (plan_of(tmp_path, pool_of(), *more).manifest for more in ((), (ON,)))
    assert diff(plain, plan)["rules"]["canonical.algo"] == [None, CANONICAL_ALGO]
    for one in diff(plain, plan)["sources"].values():
        assert one["in_order"] == one["in_both"] == one["kept"][0]
    pool = Pool(str(tmp_path / "pool"))
    packs = [pack for step in range(8) for pack in explain(plan, step, 0, 1, 1, pool)]
    told = {one["record"]: (one["clips"], one["named"]) for pack in packs for one in pack}
    assert told["where"] == ([name_of("x large")], [name_of("y")])
    assert told["differ"][0] == told["differ"][1] == [name_of("x large"), name_of("y")]


def test_a_manifest_that_shows_copies_is_read_again_and_checked(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, pool_of(), ON)
    plan.write(str(tmp_path))
    path = tmp_path / "manifest.json"
    assert np.array_equal(load_manifest(path).copies, plan.manifest.copies)
    table = json.loads(path.read_bytes())["canonical"]["table"]
    check_guarded(path, tmp_path / f"plan/{table}.npy", "canonical")


def test_the_same_copies_are_shown_whatever_the_pool_was_cut_into(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, {"a": "weight: 1", "b": "weight: 1"}, ON)
    pools = (pool_of().make(tmp_path / f"pool{parts}", parts) for parts in (1, 3))
    assert (
        len({build_manifest(load_recipe(path), pool).manifest.manifest_id for pool in pools}) == 1
    )


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """A manifest over real frames: each of the first nine clips is a copy of one of the others."""
    monkeypatch.setattr(canonical_clips, "SHORT", 0)  # they are no copies: their answers differ
    tiny_manifest(tmp_path, ratio=("repeat: 1", "repeat: 1"), join="max_turns: 8, max_tokens: 200")
    with (tmp_path / "recipe.yaml").open("a") as recipe:
        recipe.write(f"{ON}\n")
    pool = Pool(str(tmp_path / "pool"))
    clips = pool.table(pool.receipts("decode"), "index/clips", CLIPS).to_pylist()
    videos = sorted(row["clip_id"] for row in clips if row["kind"] == "video")
    rows = [(*pair, "near", 1, "same") for pair in zip(videos[:9], videos[9:], strict=True)]
    pairs = table_of(PAIRS, [dict(zip(PAIRS.names, row, strict=True)) for row in rows])
    (known,) = pool.receipts("compare")
    facts = {"clusters": pairs, "leaks": LEAKS.empty_table(),
             "references": REFERENCES.empty_table()}  # fmt: skip
    pool.commit(Work("compare", known.version, known.parameters, ["of copies"]), facts)
    plan = build_manifest(load_recipe(tmp_path / "recipe.yaml"), pool, known.parameters["sources"])
    plan.write(str(tmp_path / "copies"))
    packed(tmp_path / "copies/manifest.json")
    return plan.manifest


def test_pool_and_shards_show_what_the_plan_counted(built: Manifest, tmp_path: Path) -> None:
    drawn = Draws(built).samples(0, built.length)
    assert len(built.copies) == 9 and Counter(one.source for one in drawn)["clips"] == 9
    reader = PoolReader(Pool(str(tmp_path / "pool")), made=built)
    shards = open_data(str(tmp_path / "copies/shards"))
    turns, hidden = 0, {row["clip"].tobytes().hex() for row in built.copies}
    for one in drawn:
        ours, packed_one = (each.read(one.source, one.key) for each in (reader, shards))
        assert ours.sample == packed_one.sample
        assert [[*map(bytes, f)] for f in ours.frames] == [
            [*map(bytes, f)] for f in packed_one.frames
        ]
        assert not hidden & {clip.clip_id for clip in ours.sample.clips}
        turns += len(ours.sample.turns)
    assert turns == 2 * sum(one.kept.conversations for one in built.contents.sources)
    packs = [
        [
            (pack.keys, np.diff(pack.cu_seqlens).tolist(), pack.patches.tobytes())
            for step in Stream(built, str(tmp_path / data), workers=0).steps()
            for pack in step
        ]
        for data in ("pool", "copies/shards")
    ]
    tokens = {one.key: one.tokens for one in drawn}
    assert packs[0] == packs[1]
    assert all([tokens[key] for key in keys] == lengths for keys, lengths, _ in packs[0])


# --- max_samples_per_clip


def capped(plan: Plan) -> list[dict[str, str]]:
    return [row for row in plan.refusals.to_pylist() if row["code"] == "CLIP_CAPPED"]


def test_no_clip_is_shown_by_more_samples_than_the_recipe_allows(tmp_path: Path) -> None:
    asked = [MadeSample(f"asked {i}", ["x"]) for i in range(5)]
    others = [MadeSample(f"also {i}", ["x", "y"][: 1 + i % 2]) for i in range(4)]
    pool = MadePool(sources={"a": [*many("a", 2), *asked], "b": [*many("b", 2), *others]})
    plan = plan_of(tmp_path, pool, "max_samples_per_clip: 3")
    a, b = plan.books
    assert (a.not_chosen, a.chosen, b.not_chosen, b.chosen) == (3, 4, 3, 3)
    assert [row["source"] for row in capped(plan)] == ["a"] * 3 + ["b"] * 3
    assert {row["key"] for row in capped(plan)[:3]} == set(sorted(one.key for one in asked)[2:])
    assert {row["detail"] for row in capped(plan)} == {f"3 other samples show clip {name_of('x')}"}
    assert plan.manifest.contents.sources[0].not_chosen == {"CLIP_CAPPED": 3}
    assert plan.manifest.contents.recipe.max_samples_per_clip == 3


def test_a_refused_sample_takes_no_place_under_the_cap(tmp_path: Path) -> None:
    asked = [MadeSample(f"asked {i}", ["x"], licence="NC" if i < 3 else "MIT") for i in range(5)]
    twins = [MadeSample("asked 3", ["x"])]
    pool = MadePool(sources={"a": asked, "b": [*many("b", 2), *twins]})
    plan = plan_of(tmp_path, pool, "max_samples_per_clip: 2", "allow_licences: [MIT]")
    assert capped(plan) == []
    assert Counter(row["code"] for row in plan.refusals.to_pylist() if row["key"]) == {
        "LICENCE_REFUSED": 3,
        "DUPLICATE_SAMPLE": 1,
    }


def test_copies_count_as_one_clip_where_they_are_shown_as_one(tmp_path: Path) -> None:
    twice = "max_samples_per_clip: 2"
    apart, as_one = (capped(plan_of(tmp_path, pool_of(), twice, *more)) for more in ((), (ON,)))
    assert [row["source"] for row in apart] == ["b"] and name_of("y") in apart[0]["detail"]
    assert {row["record"] for row in as_one} == {"which", "differ"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("max_samples_per_clip: 0", "max_samples_per_clip: must be an integer from 1"),
        ("canonical_clips: near", "canonical_clips: must be"),
    ],
)
def test_values_that_make_no_sense_are_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_recipe(write_recipe(tmp_path, {"a": "weight: 1"}, line))
