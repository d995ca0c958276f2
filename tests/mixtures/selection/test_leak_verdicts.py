"""What the plan makes of matches with evaluation data and of nearly equal texts."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from mixtures.plan.build_manifest import Plan, build_manifest
from mixtures.recipe.load import load_recipe
from shards.errors import DamagedData, UserError
from shards.ids import canonical_json
from shards.index import LEAKED_TEXTS, LEAKS, TEXT_PAIRS, table_of
from shards.leak_index import LeakIndex, open_index, write_index
from shards.pool import Pool
from shards.receipts import Work
from shards.sample import digest_turns
from tests.support.made_pool import MadeSample, name_of, write_recipe
from tests.support.verdicts import RATIOS, pool_with, refusals, refused

Texts = list[tuple[str, MadeSample, str, int]]


def made_index(folder: Path, name: str = "index") -> LeakIndex:
    books = [{"name": name}]
    return write_index(str(folder / name), "2", books, {"media": LEAKS.empty_table()})


def match(
    pool: Pool,
    index: LeakIndex,
    clips: list[tuple[str, str, str]],
    texts: Texts,
    judged: str = "same",
) -> None:
    """Receipts of leaks of (clip, benchmark, held out) and (source, sample, benchmark, grams)."""
    about = {"index": index.index_id}
    rows = [
        {"clip_id": name_of(clip), "benchmark": benchmark, "held_out": held_out,
         "relation": "near", "distance": 3, "judged": judged}
        for clip, benchmark, held_out in clips
    ]  # fmt: skip
    prints = [n for r in pool.receipts("decode") for n in r.outputs["index/fingerprints"]]
    pool.commit(Work("leak_media", "1", about, prints), {"leaks": table_of(LEAKS, rows)})
    for receipt in pool.receipts("admit"):
        own = [
            {"key": sample.key, "benchmark": benchmark, "held_out": "q7", "shared": grams,
             "relation": "12-gram" if grams else "whole"}
            for source, sample, benchmark, grams in texts
            if source == receipt.parameters["source"]
        ]  # fmt: skip
        inputs = receipt.outputs["index/samples"]
        tables = {"leaks/text": table_of(LEAKED_TEXTS, own)}
        pool.commit(Work("leak_text", "1", about, inputs), tables)


def pair(
    pool: Pool, sources: dict[str, str], twins: list[tuple[MadeSample, MadeSample, int]]
) -> None:
    rows = []
    for one, other, permille in twins:
        low, high = sorted(digest_turns(each.turns) for each in (one, other))
        rows.append({"text_a": low, "text_b": high, "permille": permille})
    for part in range(2):
        parameters = {"sources": sources, "part": part, "parts": 2}
        tables = {"clusters/text": table_of(TEXT_PAIRS, rows[part::2])}
        pool.commit(Work("twins", "1", parameters, []), tables)


def plan_over(folder: Path, pool: Pool, *more: str) -> Plan:
    return build_manifest(load_recipe(write_recipe(folder, RATIOS, *more)), pool)


def rule(index: LeakIndex, text: str = "flag") -> str:
    return f"leaks: {{index: {index.url}, text: {text}}}"


def matches(plan: Plan) -> list[tuple[str, ...]]:
    names = "source kind benchmark held_out code".split()
    return [tuple(row[name] for name in names) for row in plan.matches.to_pylist()]


def test_an_undecided_match_refuses_too_and_the_table_says_which(tmp_path: Path) -> None:
    made = pool_with([MadeSample("what", ["x"])], [MadeSample("why", ["i"])])
    pool, index = made.make(tmp_path / "pool"), made_index(tmp_path)
    match(pool, index, [("x", "mme", "q3")], [], judged="undecided")
    plan = plan_over(tmp_path, pool, rule(index))
    assert refused(plan) == {("a", "what"): ("plan", "LEAK_MEDIA")}
    assert [row["judged"] for row in plan.matches.to_pylist()] == ["undecided"]
    assert next(r.detail for r in refusals(plan) if r.key).endswith("or it is too small to tell")


def test_a_match_with_the_index_refuses_the_whole_cluster_and_counts_by_benchmark(
    tmp_path: Path,
) -> None:
    made = pool_with(
        [MadeSample("what", ["x"])], [MadeSample("why", ["i", "y"])], pairs=[("x", "y")]
    )
    pool, index = made.make(tmp_path / "pool"), made_index(tmp_path)
    match(pool, index, [("y", "mme", "q3"), ("y", "mme", "q1"), ("x", "ai2d", "q2")], [])
    plan = plan_over(tmp_path, pool, rule(index))
    assert refused(plan) == {
        ("a", "what"): ("plan", "LEAK_MEDIA"), ("b", "why"): ("plan", "LEAK_MEDIA")
    }  # fmt: skip
    assert {r.detail.split("matches ")[1] for r in refusals(plan) if r.key} == {"q2 of ai2d"}
    expected = [("media", "ai2d", "q2", "LEAK_MEDIA"), ("media", "mme", "q1", "LEAK_MEDIA")]
    assert matches(plan) == [(source, *row) for source in "ab" for row in expected]
    said = {"index": index.index_id, "text": "flag"}
    assert plan.manifest.contents.to_json()["recipe"]["leaks"] == said
    for books in plan.books:
        assert books.not_chosen == 1 and books.admitted == books.chosen + 1


def test_the_text_of_a_question_is_flagged_and_refused_only_where_the_recipe_says_so(
    tmp_path: Path,
) -> None:
    long, short = MadeSample("a long one", ["x"]), MadeSample("what", ["y"])
    pool, index = pool_with([long, short], []).make(tmp_path / "pool"), made_index(tmp_path)
    match(pool, index, [], [("a", long, "mme", 4), ("a", long, "ai2d", 2), ("a", short, "mme", 0)])
    flagged = plan_over(tmp_path, pool, rule(index))
    assert refused(flagged) == {}
    found = [("a", "text", "ai2d", "q7", ""), *[("a", "text", "mme", "q7", "")] * 2]
    assert sorted(matches(flagged)) == found
    plan = plan_over(tmp_path, pool, rule(index, "refuse"))
    assert refused(plan) == {("a", "a long one"): ("plan", "LEAK_TEXT")}
    (gone,) = [r for r in refusals(plan) if r.key]
    assert gone.detail == "asks q7 of ai2d"
    assert plan.manifest.contents.sources[0].not_chosen == {"LEAK_TEXT": 1}
    assert plan.books[0].not_chosen == 1
    codes = sorted(row[-1] for row in matches(plan))
    assert codes == ["", "LEAK_TEXT", "LEAK_TEXT"]


def test_a_recipe_without_these_keys_has_the_manifest_it_always_had(tmp_path: Path) -> None:
    pool, index = pool_with([MadeSample("what", ["x"])], []).make(tmp_path / "pool"), None
    plain = plan_over(tmp_path, pool)
    index = made_index(tmp_path)
    match(pool, index, [("x", "mme", "q1")], [])
    assert plan_over(tmp_path, pool).manifest.manifest_id == plain.manifest.manifest_id
    assert not {"leaks", "near_text"} & plain.manifest.contents.to_json()["recipe"].keys()
    assert matches(plain) == []


@pytest.mark.parametrize("missing", ["media", "text", "index"])
def test_what_was_never_compared_with_the_index_is_said(tmp_path: Path, missing: str) -> None:
    pool = pool_with([MadeSample("what", ["x"])], []).make(tmp_path / "pool")
    index, other = made_index(tmp_path), made_index(tmp_path, "other")
    match(pool, other if missing == "index" else index, [], [])
    for receipt in pool.receipts(f"leak_{missing}"):
        pool.store.remove(f"receipts/{receipt.work_id}.json")
    with pytest.raises(UserError, match=f"never compared with the leak index {index.index_id}"):
        plan_over(tmp_path, pool, rule(index))


def test_an_index_that_is_missing_or_changed_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere/index.json: not there; run .*leaks build"):
        open_index(str(tmp_path / "nowhere"))
    index = made_index(tmp_path)
    card = tmp_path / "index/index.json"
    whole = card.read_bytes()
    card.write_bytes(whole.replace(b'"2"', b'"3"'))
    with pytest.raises(DamagedData, match=r"index\.json: not as it was written; run .*leaks build"):
        open_index(index.url)
    card.write_bytes(canonical_json([1]))
    with pytest.raises(DamagedData, match=r"index\.json: not as it was written"):
        open_index(index.url)
    card.write_bytes(whole)
    (table,) = (tmp_path / "index/media").iterdir()
    table.write_bytes(table.read_bytes()[:-1])
    with pytest.raises(DamagedData, match="not the bytes that its name says"):
        index.read("media")


SOURCES = {name: name_of(name) for name in RATIOS}


def near_pool(folder: Path) -> tuple[Pool, list[MadeSample]]:
    """Four texts, each nearly the next one, over x, x, its copy y, and another clip z."""
    texts = [MadeSample(f"what {i}", [clip]) for i, clip in enumerate("xxyz")]
    made = pool_with(texts[2:], texts[:2], pairs=[("x", "y")])
    pool = made.make(folder / "pool")
    pair(pool, SOURCES, [(a, b, 900) for a, b in pairwise(texts)])
    return pool, texts


def test_a_text_nearly_equal_to_one_that_stays_is_refused_and_its_own_twins_are_not(
    tmp_path: Path,
) -> None:
    pool, texts = near_pool(tmp_path)
    assert refused(plan_over(tmp_path, pool)) == {}
    plan = plan_over(tmp_path, pool, "near_text: 0.85")
    assert refused(plan) == {("b", "what 1"): ("plan", "DUPLICATE_NEAR")}
    (gone,) = [r for r in refusals(plan) if r.key]
    assert gone.detail == f"nearly the same as {texts[2].key} of a"
    assert plan.manifest.contents.recipe.near_text == "17/20"
    assert [books.not_chosen for books in plan.books] == [0, 1]


def test_texts_less_alike_than_the_recipe_says_stay(tmp_path: Path) -> None:
    pool, _ = near_pool(tmp_path)
    assert refused(plan_over(tmp_path, pool, "near_text: 0.9001")) == {}
    with pytest.raises(UserError, match=r"near_text: must be a number from 0\.8 to 1, not 0\.5"):
        plan_over(tmp_path, pool, "near_text: 0.5")


def test_equal_images_with_different_questions_lose_nothing(tmp_path: Path) -> None:
    asked = "which digit is on the left of the picture"
    other = "which digit is on the right of the picture"
    made = pool_with([MadeSample(asked, ["x"])], [MadeSample(other, ["y"])], pairs=[("x", "y")])
    pool = made.make(tmp_path / "pool")
    pair(pool, SOURCES, [])
    assert refused(plan_over(tmp_path, pool, "near_text: 0.8")) == {}


def test_texts_that_were_compared_with_others_only_or_in_part_do_not_count(
    tmp_path: Path,
) -> None:
    pool = pool_with([MadeSample("what", ["x"])], []).make(tmp_path / "pool")
    pair(pool, SOURCES | {"c": "1"}, [])
    message = r"near_text: the texts of \['a', 'b'\] were never compared"
    with pytest.raises(UserError, match=message):
        plan_over(tmp_path, pool, "near_text: 0.8")
    pair(pool, SOURCES, [])
    half = next(r for r in pool.receipts("twins") if r.parameters["sources"] == SOURCES)
    pool.store.remove(f"receipts/{half.work_id}.json")
    with pytest.raises(UserError, match=message):
        plan_over(tmp_path, pool, "near_text: 0.8")


def test_unknown_keys_of_the_rule_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="leaks: unknown key 'indx'; did you mean 'index'"):
        load_recipe(write_recipe(tmp_path, RATIOS, "leaks: {indx: here}"))
    with pytest.raises(UserError, match="leaks: text: must be one of flag, refuse"):
        load_recipe(write_recipe(tmp_path, RATIOS, "leaks: {index: here, text: drop}"))
