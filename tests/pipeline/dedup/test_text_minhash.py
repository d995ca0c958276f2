"""Near-duplicate conversations: every pair that is alike enough, no other, however it is cut."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from mixtures.pool.clusters import components
from pipeline.dedup import text_minhash
from pipeline.dedup.text_minhash import pairs_among, shingles, similarity
from pipeline.stages import pair_texts
from pipeline.stages.pair_texts import text_table
from shards.ids import short_hash
from shards.index import SAMPLES, TEXT_PAIRS, table_of
from shards.pool import Pool
from shards.profile import Profile
from shards.receipts import Work
from shards.sample import Turn, digest_turns, turns_to_json
from tests.support.words import said

Talk = tuple[str, str]


def table(talks: list[Talk]) -> pa.Table:
    asked, answered = ([talk[i] for talk in talks] for i in (0, 1))
    digests = pa.chunked_array([[short_hash(talk) for talk in talks]])
    return text_table(digests, shingles(asked), shingles(answered))


def twins(talks: list[Talk], parts: int = 1) -> dict[tuple[int, int], int]:
    """(place, place) -> per mille of every pair found."""
    place = {short_hash(talk): i for i, talk in enumerate(talks)}
    half, whole = len(talks) // 2, table(talks)

    def tables() -> list[pa.Table]:
        return [whole.slice(half), whole.slice(0, half), whole.slice(0, 1)]

    found = {}
    for part in range(parts):
        for row in pairs_among(tables, part, parts).to_pylist():
            assert row["text_a"] < row["text_b"]
            ends = sorted((place[row["text_a"]], place[row["text_b"]]))
            found[ends[0], ends[1]] = row["permille"]
    return found


def alike(one: str, other: str) -> int:
    sets = [naive(text) for text in (one, other)]
    return 1000 * len(sets[0] & sets[1]) // len(sets[0] | sets[1])


def naive(text: str) -> set[tuple[str, ...]]:
    words = said(text)
    if len(words) < 3:
        return {(" ".join(text.lower().split()).rstrip(".!? "),)}
    return {tuple(words[i : i + 3]) for i in range(len(words) - 2)}


def prose(seed: int, words: int = 60) -> str:
    rng = np.random.Generator(np.random.Philox(key=seed))
    return " ".join(f"word{n}" for n in rng.integers(0, 5000, words))


def changed(text: str, places: list[int]) -> str:
    words = text.split()
    for place in places:
        words[place] = f"other{place}"
    return " ".join(words)


SHORT = st.lists(st.text(alphabet="ab c-5?", max_size=16), min_size=2, max_size=6)


@settings(deadline=None)
@given(SHORT)
def test_similarity_is_that_of_the_sets_of_3_grams(texts: list[str]) -> None:
    pairs = np.array(list(itertools.combinations(range(len(texts)), 2)), np.int64).T
    expected = [alike(texts[a], texts[b]) for a, b in pairs.T]
    assert similarity(shingles(texts), pairs).tolist() == expected


def test_case_and_punctuation_make_no_difference_and_numbers_do() -> None:
    talks = [("What IS shown here?", "A cat, a dog."), ("what is shown here", "a cat a dog")]
    talks += [("What is shown here?", "5"), ("What is shown here?", "-5")]
    talks += [("What is shown here?", "yes"), ("What is shown here?", "no")]
    talks += [("What is shown here?", "Yes.")]
    assert twins(talks) == {(0, 1): 1000, (4, 6): 1000}


def test_a_long_question_with_another_answer_is_no_twin() -> None:
    question = prose(1)
    assert twins([(question, "yes"), (question, "no"), (f"{question} x", "no")]) == {(1, 2): 983}


def planted(count: int, places: list[int]) -> list[Talk]:
    """Conversations and beside each one whose answer has some words changed."""
    answers = [prose(seed) for seed in range(count)]
    copies = [changed(text, places) for text in answers]
    return [("describe it", text) for text in (*answers, *copies)]


def test_copies_are_found_and_nothing_else() -> None:
    for places, least in (([0], 1.0), ([0, 59], 1.0), ([30], 0.99), ([20, 21], 0.98)):
        talks = planted(400, places)
        expected = {(i, i + 400): alike(talks[i][1], talks[i + 400][1]) for i in range(400)}
        assert min(expected.values()) >= text_minhash.FLOOR
        found = twins(talks)
        assert found.items() <= expected.items()
        assert len(found) >= least * len(expected), places
    assert twins(planted(100, [10, 30, 50])) == {}


@given(st.integers(2, 7), st.randoms(use_true_random=False))
@settings(max_examples=10, deadline=None)
def test_parts_and_the_order_of_rows_change_nothing(parts: int, random: Random) -> None:
    talks = planted(40, [7]) + [("go on", f"{prose(5, 30)} and then {i}") for i in range(60)]
    whole = {tuple(sorted((talks[a], talks[b]))): n for (a, b), n in twins(talks).items()}
    random.shuffle(talks)
    cut = {tuple(sorted((talks[a], talks[b]))): n for (a, b), n in twins(talks, parts).items()}
    assert cut == whole and len(whole) > 100


def test_a_bucket_that_a_common_phrase_fills_costs_linear_time_and_loses_no_copy() -> None:
    rule = "Answer the question using a single word or phrase and nothing else at all please."
    talks = [(f"{prose(n, 6)} {rule}", f"answer {n // 2}") for n in range(20_000)]
    talks += [(f"{talks[n][0]} {rule}", f"Answer {n // 2}!") for n in range(0, 2_000, 100)]
    rows = np.frombuffer(b"".join(table(talks)["sketch"].to_pylist()), np.uint8)
    started = time.process_time()
    compared = sum(p.shape[1] for p in text_minhash._neighbours(rows.reshape(len(talks), -1), 0, 1))
    assert compared <= text_minhash.BANDS * text_minhash.WINDOW * len(talks)
    assert twins(talks).keys() == {(n * 100, 20_000 + n) for n in range(20)}
    assert time.process_time() - started < 60


def test_many_copies_of_one_text_are_one_component() -> None:
    pairs = twins([("say it", f"{prose(3)} {i}") for i in range(300)])
    assert components(pairs) == dict.fromkeys(range(300), 0)


def test_the_stages_leave_receipts_and_cut_by_content(tmp_path: Path) -> None:
    pool = Pool(str(tmp_path), Profile())
    answers = [prose(1), changed(prose(1), [4]), prose(2)]
    rows = []
    for number, answer in enumerate([*answers, answers[0]]):
        turns = (Turn(role="user", text="what is it"), Turn(role="assistant", text=answer))
        said = {"turns": json.dumps(turns_to_json(turns)), "turns_digest": digest_turns(turns)}
        rows.append(said | {"key": str(number), "source": "a", "clip_ids": []})
    receipt = pool.commit(Work("admit", "1", {}, []), {"index/samples": table_of(SAMPLES, rows)})
    (name,) = receipt.outputs["index/samples"]
    texts = [pair_texts.sketch(pair_texts.TextsUnit(pool=str(tmp_path), table=name))]
    assert texts[0].counts == {"texts": 3}
    (unit,) = pair_texts.parted(str(tmp_path), texts, {"a": "1"})
    done = pair_texts.pair(unit)
    assert pair_texts.pair(unit) == done and done.parameters["sources"] == {"a": "1"}
    (pair,) = pool.table([done], "clusters/text", TEXT_PAIRS).to_pylist()
    assert {pair["text_a"], pair["text_b"]} == {row["turns_digest"] for row in rows[:2]}
    assert pair["permille"] == alike(answers[0], answers[1])
