"""Verdicts: who stays among duplicates, leaks, broken media, licences and long samples."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixtures.diff import diff
from mixtures.manifest.draws import Draws
from mixtures.manifest.files import load_manifest
from mixtures.plan.build_manifest import Plan, build_manifest
from mixtures.pool.clusters import components
from mixtures.recipe.load import load_recipe
from shards import index
from shards.errors import UserError
from shards.pool import Pool
from shards.receipts import Work
from tests.support.made_pool import MadePool, MadeSample, name_of, write_recipe
from tests.support.verdicts import RATIOS, pool_with, refusals, refused


def plan_of(folder: Path, pool: MadePool, *more: str, held_out: str = "") -> Plan:
    folder.mkdir(exist_ok=True)
    recipe = load_recipe(write_recipe(folder, RATIOS, *more, held_out=held_out))
    return build_manifest(recipe, pool.make(folder / "pool"))


def test_the_same_question_over_copies_of_a_clip_is_a_duplicate(tmp_path: Path) -> None:
    pool = pool_with([MadeSample("what", ["x"])], [MadeSample("what", ["y"])], pairs=[("x", "y")])
    plan = plan_of(tmp_path, pool)
    assert refused(plan) == {("b", "what"): ("plan", "DUPLICATE_SAMPLE")}
    (found,) = [r for r in refusals(plan) if r.code == "DUPLICATE_SAMPLE"]
    assert pool.sources["a"][-1].key in found.detail and found.detail.endswith(" of a")


def test_of_two_versions_of_the_comparison_only_the_later_one_counts(tmp_path: Path) -> None:
    made = pool_with([MadeSample("what", ["x"])], [MadeSample("what", ["y"])], pairs=[("x", "y")])
    assert len(refused(plan_of(tmp_path, made))) == 1
    pool = Pool(str(tmp_path / "pool"))
    (first,) = pool.receipts("compare")
    facts = {"clusters": index.PAIRS.empty_table(), "leaks": index.LEAKS.empty_table(),
             "references": index.REFERENCES.empty_table()}  # fmt: skip
    pool.commit(Work("compare", "10", first.parameters, []), facts)
    assert refused(build_manifest(load_recipe(tmp_path / "recipe.yaml"), pool)) == {}


def test_copies_of_a_reference_that_no_recipe_shows_are_duplicates(tmp_path: Path) -> None:
    a, b = MadeSample("what", ["x"]), MadeSample("what", ["y"])
    made = pool_with([a], [b], copies=[("x", "nobody's"), ("y", "nobody's")])
    twice = {("b", "what"): ("plan", "DUPLICATE_SAMPLE")}
    assert refused(plan_of(tmp_path / "copies", made)) == twice
    # and what another reference shows is theirs
    copies = [("x", "one"), ("y", "other")]
    made = pool_with([a], [b], copies=copies, pairs=[("one", "other")])
    assert refused(plan_of(tmp_path / "pairs", made)) == twice
    assert refused(plan_of(tmp_path / "apart", pool_with([a], [b], copies=copies))) == {}


def test_a_comparison_of_before_references_is_refused_by_name(tmp_path: Path) -> None:
    pool_with([MadeSample("what", ["x"])], []).make(tmp_path / "pool")
    pool = Pool(str(tmp_path / "pool"))
    (first,) = pool.receipts("compare")
    pool.commit(
        Work("compare", "10", first.parameters, []),
        {"clusters": index.PAIRS.empty_table(), "leaks": index.LEAKS.empty_table()},
    )
    with pytest.raises(UserError, match="older version"):
        build_manifest(load_recipe(write_recipe(tmp_path, RATIOS)), pool)


def test_another_question_over_a_copy_is_kept(tmp_path: Path) -> None:
    pool = pool_with([MadeSample("what", ["x"])], [MadeSample("where", ["y"])], pairs=[("x", "y")])
    assert refused(plan_of(tmp_path, pool)) == {}


def test_another_answer_over_a_copy_is_kept(tmp_path: Path) -> None:
    twin = MadeSample("which way", ["y"], answer="left")
    pool = pool_with([MadeSample("which way", ["x"])], [twin], pairs=[("x", "y")])
    assert refused(plan_of(tmp_path, pool)) == {}


def test_copies_of_copies_are_one_cluster(tmp_path: Path) -> None:
    texts = [MadeSample("what", [clip]) for clip in "xyz"]
    pool = pool_with([], texts, pairs=[("x", "y"), ("z", "y")])
    codes = [r.code for r in refusals(plan_of(tmp_path, pool))]
    assert codes.count("DUPLICATE_SAMPLE") == 2


def test_clips_in_another_order_are_no_duplicate(tmp_path: Path) -> None:
    pool = pool_with([MadeSample("what", ["x", "y"])], [MadeSample("what", ["y", "x"])])
    assert refused(plan_of(tmp_path, pool)) == {}


def test_text_alone_is_compared_as_it_is_normalised(tmp_path: Path) -> None:
    pool = pool_with([MadeSample("how  many")], [MadeSample("how many "), MadeSample("how many?")])
    assert list(refused(plan_of(tmp_path, pool))) == [("b", "how many ")]


def test_within_a_source_the_least_key_stays(tmp_path: Path) -> None:
    twins = [MadeSample("what", ["x"]), MadeSample("what", ["y"])]
    plan = plan_of(tmp_path, pool_with(twins, [], pairs=[("x", "y")]))
    (gone,) = [r.key for r in refusals(plan) if r.code == "DUPLICATE_SAMPLE"]
    assert gone == max(one.key for one in twins)


def test_a_refused_sample_does_not_stand_for_its_duplicates(tmp_path: Path) -> None:
    pool = pool_with(
        [MadeSample("what", ["x"], licence="NC")], [MadeSample("what", ["y"])], pairs=[("x", "y")]
    )
    plan = plan_of(tmp_path, pool, "allow_licences: [MIT]")
    assert refused(plan) == {("a", "what"): ("plan", "LICENCE_REFUSED")}


def test_every_sample_of_a_leaked_cluster_is_refused(tmp_path: Path) -> None:
    pool = pool_with(
        [MadeSample("what", ["x"]), MadeSample("why", ["x"])],
        [MadeSample("who", ["i", "y"])],
        pairs=[("x", "y")],
        held_out={"bench": []},
        leaks=[("y", "bench", "h")],
    )
    plan = plan_of(tmp_path, pool, held_out="bench")
    assert set(refused(plan).values()) == {("plan", "LEAK_MEDIA")}
    assert len(refused(plan)) == 3
    details = [r.detail for r in refusals(plan) if r.code == "LEAK_MEDIA"]
    assert all("bench" in detail and name_of("h") in detail for detail in details)


def test_a_leak_of_a_benchmark_the_recipe_does_not_name_is_none(tmp_path: Path) -> None:
    pool = pool_with(
        [MadeSample("what", ["x"])], [], held_out={"bench": []}, leaks=[("x", "bench", "h")]
    )
    assert refused(plan_of(tmp_path, pool)) == {}


def test_a_broken_clip_refuses_each_of_its_samples_with_its_own_code(tmp_path: Path) -> None:
    pool = pool_with(
        [MadeSample("what", ["x"])], [MadeSample("why", ["i", "x"])], broken={"x": "MEDIA_EMPTY"}
    )
    plan = plan_of(tmp_path, pool)
    assert set(refused(plan)) == {("a", "what"), ("b", "why")}
    assert set(refused(plan).values()) == {("decode", "MEDIA_EMPTY")}
    assert [one.not_chosen for one in plan.books] == [0, 0]


def test_a_sample_longer_than_a_pack_is_refused_with_both_numbers(tmp_path: Path) -> None:
    pool = pool_with([MadeSample("seven " * 300)], [MadeSample("what", ["video-1", "video-2"])])
    more = ("pack_tokens: 250", "pack_patches: 200", "pack_window: 8")
    plan = plan_of(tmp_path, pool, *more)
    details = [r.detail for r in refusals(plan) if r.code == "SAMPLE_TOO_LONG"]
    assert len(details) == 1 and details[0].endswith("tokens, a pack holds 250")
    assert refused(plan)["a", "seven " * 300] == ("plan", "SAMPLE_TOO_LONG")
    assert plan.manifest.contents.sources[0].not_chosen == {"SAMPLE_TOO_LONG": 1}


PAIRS = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("abcdefgh")), max_size=12)


@given(PAIRS, st.randoms(use_true_random=False))
def test_components_do_not_hang_on_the_order_of_pairs(
    pairs: list[tuple[str, str]], shuffle: Random
) -> None:
    found = components(pairs)
    mixed = [tuple(reversed(pair)) for pair in pairs]
    shuffle.shuffle(mixed)
    assert components(mixed) == found
    for a, b in pairs:
        assert found[a] == found[b]
    assert all(found[root] == root <= clip for clip, root in found.items())


# --- duplicates: keep


def twins() -> MadePool:
    """A question three times, twice in one source, over a clip and its copy."""
    twice = [MadeSample("what", ["x"]), MadeSample("what", ["x"])]
    return pool_with(twice, [MadeSample("what", ["y"])], pairs=[("x", "y")])


def test_a_recipe_may_keep_duplicates_and_each_is_drawn(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, twins(), "duplicates: keep", "length: 7")
    assert refused(plan) == {}
    assert [len(table) for table in plan.manifest.tables] == [4, 3]
    assert plan.manifest.contents.recipe.duplicates == "keep"
    drawn = [(one.source, one.key) for one in Draws(plan.manifest).samples(0, 7)]
    key = twins().sources["a"][-1].key
    assert drawn.count(("a", key)) == 2 and len(set(drawn)) == 6
    plan.write(str(tmp_path / "out"))
    loaded = load_manifest(tmp_path / "out" / "manifest.json")
    found = diff(loaded, loaded)["sources"]["a"]
    assert (found["kept"], found["in_both"], found["in_order"]) == ([4, 4], 3, 3)


def test_by_default_they_are_refused_and_the_manifest_says_nothing_of_it(tmp_path: Path) -> None:
    plain, asked = (
        plan_of(tmp_path / str(i), twins(), *more)
        for i, more in enumerate(((), ("duplicates: refuse",)))
    )
    assert (
        len(refused(plain)) == 2 and "duplicates" not in plain.manifest.contents.to_json()["recipe"]
    )
    assert plain.manifest.manifest_id == asked.manifest.manifest_id


def test_what_is_refused_otherwise_is_refused_although_duplicates_are_kept(tmp_path: Path) -> None:
    pool = twins()
    pool.broken = {"y": "MEDIA_EMPTY"}
    plan = plan_of(tmp_path, pool, "duplicates: keep")
    assert refused(plan) == {("b", "what"): ("decode", "MEDIA_EMPTY")}


# --- max_samples_per_clip over several sources


def capped(folder: Path, a: list[MadeSample], b: list[MadeSample], most: int) -> list[list[str]]:
    """The questions of each source that stay under a cap."""
    pool = MadePool(sources={"a": a, "b": b})
    plan = plan_of(folder, pool, f"max_samples_per_clip: {most}")
    by_key = [{one.key: one.text for one in own} for own in (a, b)]
    return [
        sorted(by_key[i][row["key"].tobytes().hex()] for row in plan.manifest.tables[i])
        for i in range(2)
    ]


def asked(source: str, clip: str, times: int) -> list[MadeSample]:
    return [MadeSample(f"{source} {clip} {i}", [clip]) for i in range(times)]


@pytest.mark.parametrize("most", [1, 2, 3, 4])
def test_the_cap_is_dealt_in_turn_over_the_sources_of_a_clip(tmp_path: Path, most: int) -> None:
    clips = [f"video-{i}" for i in range(6)]
    a, b = ([one for clip in clips for one in asked(name, clip, 4)] for name in "ab")
    kept = capped(tmp_path, a, b, most)
    assert len(kept[0]) + len(kept[1]) == 6 * most
    assert abs(len(kept[0]) - len(kept[1])) <= 1
    for clip in clips:
        of_clip = [sum(f" {clip} " in one for one in own) for own in kept]
        assert sum(of_clip) == most and abs(of_clip[0] - of_clip[1]) <= 1


def test_a_source_with_fewer_samples_leaves_its_turns_to_the_others(tmp_path: Path) -> None:
    a, b = ([*asked("a", "x", 9), MadeSample("alone")], asked("b", "x", 1))
    assert [len(kept) for kept in capped(tmp_path, a, b, 4)] == [4, 1]


@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_sample_that_shows_a_clip_twice_is_one_sample_over_it(tmp_path: Path, most: int) -> None:
    twice = [MadeSample(f"a twice {i}", ["x", "x"]) for i in range(5)]
    kept = capped(tmp_path, [*twice, MadeSample("alone")], [MadeSample("b")], most)
    assert [len(own) for own in kept] == [most + 1, 1]


def test_a_sample_of_several_clips_stays_only_while_all_have_room(tmp_path: Path) -> None:
    a = [*asked("a", "x", 2), *asked("a", "y", 2), MadeSample("a both", ["x", "y"])]
    b = [*asked("b", "x", 2), *asked("b", "y", 2), MadeSample("b both", ["x", "y"])]
    kept = [text for own in capped(tmp_path, a, b, 2) for text in own]
    for clip in ("x", "y"):
        assert sum(f" {clip} " in text or "both" in text for text in kept) == 2
