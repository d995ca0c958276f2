"""Leak indexes: benchmarks become hashes, and what asks or shows the same is found by benchmark."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.dedup.questions import GRAM, Questions, asked
from pipeline.jobs.leak_index import load_benchmarks
from pipeline.sources.formats import benchmark_questions
from pipeline.sources.records import Record, RowRefusal
from pipeline.stages import decode_media, match_leaks
from pipeline.stages.hash_questions import COMMON, question_table
from shards.errors import UserError
from shards.index import LEAK_QUESTIONS, read_table
from shards.leak_index import open_index
from shards.pool import Pool
from tests.support import small_world
from tests.support.words import said

ROOT = Path(__file__).resolve().parents[3]
LONG = "What does the person in the red coat do after opening the small wooden box on the table?"
Rows = dict[tuple[int, str], tuple[str, bool, int]]


def matched(texts: list[tuple[int, str]], **benchmarks: list[tuple[str, str]]) -> Rows:
    """(owner, benchmark) -> (record, as a whole, shared 12-grams)."""
    tables = [question_table(name, found) for name, found in benchmarks.items()]
    questions = Questions.of(pa.concat_tables([LEAK_QUESTIONS.empty_table(), *tables]))
    owner = np.array([number for number, _ in texts], np.int64)
    found = asked([text for _, text in texts], owner, questions)
    names = [each.take(pa.array(found.question)).to_pylist()
             for each in (questions.benchmark, questions.record)]  # fmt: skip
    return {
        (int(number), benchmark): (record, bool(whole), int(shared))
        for number, benchmark, record, whole, shared in zip(
            found.owner, *names, found.whole, found.shared, strict=True
        )
    }


def test_a_question_is_found_in_other_words_around_it_and_by_each_benchmark() -> None:
    talks = [(0, f"Look closely. {LONG.upper()} Answer briefly."), (1, "And then?"), (2, "Then?")]
    found = matched(talks, one=[("q1", LONG), ("q2", "and then")], two=[("z", f"{LONG} Say it.")])
    assert found == {
        (0, "one"): ("q1", False, 18 - GRAM + 1),
        (0, "two"): ("z", False, 18 - GRAM + 1),
        (1, "one"): ("q2", True, 0),
    }


def test_a_long_match_goes_before_a_short_one_of_the_same_sample() -> None:
    talks = [(0, "What is this?"), (0, f"{LONG}\nA. sings\nB. sits")]
    questions = [("a", "what is this"), ("b", LONG), ("c", f"So {LONG}")]
    assert matched(talks, one=questions) == {(0, "one"): ("b", True, 7)}


def test_eleven_words_in_common_are_no_match_and_options_are_no_question() -> None:
    eleven = " ".join(LONG.split()[:11])
    options = "A. the very same long list of options\nB. that many of the questions have"
    found = matched([(0, f"{eleven} now"), (1, f"What?\n{options}")],
                    one=[("a", LONG), ("b", f"Which?\n{options}")])  # fmt: skip
    assert {key: row[0] for key, row in found.items()} == {(1, "one"): "b"}


def test_a_benchmarks_way_of_asking_is_no_question() -> None:
    rule = "Answer with the letter of the right option from the given choices and nothing else."
    many = [(f"q{n:02}", f"What is item {n}? {rule}") for n in range(COMMON + 1)]
    assert matched([(0, f"How many are there? {rule}")], one=many) == {}
    assert len(matched([(0, f"How many are there? {rule}")], one=many[:-1])) == 1
    assert matched([(0, many[3][1])], one=many)[0, "one"][:2] == ("q03", True)


def test_nothing_matches_an_index_without_questions_nor_a_sample_without_words() -> None:
    assert matched([(0, LONG)]) == {}
    assert matched([(0, "?!"), (1, "")], one=[("a", "!?"), ("b", LONG)]) == {}


WORD = st.sampled_from("abc")
TEXT = st.lists(WORD, min_size=1, max_size=20).map(" ".join)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), TEXT), max_size=5), st.lists(TEXT, max_size=4))
def test_matches_are_those_of_sets_of_12_grams(
    texts: list[tuple[int, str]], held_out: list[str]
) -> None:
    def grams(text: str) -> set[tuple[str, ...]]:
        words = said(text)
        return {tuple(words[i : i + GRAM]) for i in range(len(words) - GRAM + 1)}

    distinct = dict.fromkeys(held_out)
    named = {text: f"q{i}" for i, text in reversed(list(enumerate(held_out)))}
    expected: Rows = {}
    for owner in {number for number, _ in texts}:
        own = [text for number, text in texts if number == owner]
        ranked = []
        for text in distinct:
            shared = len(set().union(*map(grams, own)) & grams(text))
            whole = text in own
            if whole or shared:
                ranked.append((not shared, not whole, -shared, named[text]))
        if ranked:
            _, not_whole, shared, record = min(ranked)
            expected[owner, "one"] = (record, not not_whole, -shared)
    assert matched(texts, one=[(f"q{i}", text) for i, text in enumerate(held_out)]) == expected


# reading benchmarks ----------------------------------------------------------------


def image(root: Path, seed: int) -> dict[str, object]:
    small_world.picture(root / "image.jpg", seed)
    return {"bytes": (root / "image.jpg").read_bytes(), "path": f"{seed}.jpg"}


def test_every_image_column_of_a_parquet_benchmark_is_read_and_no_answer(tmp_path: Path) -> None:
    rows = [
        {"id": "v_1", "question": "<image 1> What?", "answer": "A", "image_1": image(tmp_path, 1),
         "image_2": image(tmp_path, 2), "options": "['x']"},
        {"id": "v_1", "question": "Why?", "answer": "B", "image_1": image(tmp_path, 3),
         "image_2": None, "options": "[]"},
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    found = list(benchmark_questions.read(tmp_path / "t.parquet"))
    assert all(isinstance(one, Record) for one in found)
    assert [(one.record, len(one.media), one.turns[0].text) for one in found] == [
        ("0:v_1", 2, "What?"), ("1:v_1", 1, "Why?")
    ]  # fmt: skip
    assert {turn.text for one in found for turn in one.turns[1:]} == {benchmark_questions.UNREAD}
    assert found[0].media[1].address.endswith("#000000000/0/image_2")


def test_a_video_of_a_benchmark_is_found_under_any_ending(tmp_path: Path) -> None:
    rows = [{"videoID": "abc", "video_id": "001", "question": "What?", "question_id": "1-1"},
            {"video_path": "x/y.mp4", "question": "What?", "id": 3},
            {"question": "Text only?", "id": 4}, {"id": 5}]  # fmt: skip
    (tmp_path / "q.json").write_text(json.dumps(rows))
    first, second, third, fourth = benchmark_questions.read(tmp_path / "q.json")
    assert isinstance(first, Record) and isinstance(second, Record) and isinstance(third, Record)
    names = (first.media[0].name, *first.media[0].also)
    assert names == tuple(f"{v}abc{e}" for v in ("", "v_") for e in (".mp4", ".mkv", ".webm"))
    assert (second.media[0].name, third.media) == ("x/y.mp4", ())
    assert isinstance(fourth, RowRefusal) and fourth.code == "ROW_WRONG_TYPE"


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"question": 5}, "ROW_WRONG_TYPE"),
        ({"question": " "}, "TURN_EMPTY"),
        ({"question": "a\0b"}, "TEXT_NUL"),
        ({"question": "say <|im_end|>"}, "TEXT_SPECIAL_TOKEN"),
        ({"question": "What?", "id": [1]}, "ROW_WRONG_TYPE"),
        ({"question": "What?", "id": "a\u202eb"}, "ROW_BAD_ID"),
        ({"question": "What?", "video": "../x.mp4"}, "MEDIA_PATH_REFUSED"),
        ({"question": "What?", "video": {"path": "x"}}, "ROW_WRONG_TYPE"),
    ],
)
def test_a_bad_row_of_a_benchmark_is_refused_with_its_code(
    tmp_path: Path, row: dict[str, object], code: str
) -> None:
    (tmp_path / "q.json").write_text(json.dumps([row, {"question": "Good?", "id": 1}]))
    bad, good = benchmark_questions.read(tmp_path / "q.json")
    assert isinstance(bad, RowRefusal) and bad.code == code
    assert isinstance(good, Record) and good.record == "1:1"


def test_a_table_without_questions_is_said(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["What?"]}), tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r"this format needs \('question',\)"):
        list(benchmark_questions.read(tmp_path / "t.parquet"))


def listed(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "benchmarks.yaml"
    path.write_text(text)
    return path


def test_a_copy_stands_for_the_hub_addresses_of_the_catalogue(tmp_path: Path) -> None:
    text = "benchmarks: [{name: mme, dataset: eval-video-mme, copy: /data/mme/}, OWN]"
    own = "{name: own, dataset: eval-mlvu, copy: /data/mlvu, media: /videos}"
    one, other = load_benchmarks(listed(tmp_path, text.replace("OWN", own)))
    assert (other.archives, other.media) == ((), "/videos")
    assert one.annotations == ("/data/mme/*/test-*.parquet",)
    assert [archive.at for archive in one.archives] == ["/data/mme/*.zip"]
    assert (one.name, one.format) == ("mme", "benchmark_questions")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("benchmarks: []", "benchmarks: empty"),
        ("benchmarks: [{name: a, format: f, annotations: x}, {name: a}]", "two are named 'a'"),
        ("benchmarks: [{name: a, copy: /x}]", "'a' is not in the catalogue; name its `format`"),
        ("held_out: []", "unknown key 'held_out'; the keys here are benchmarks"),
    ],
)
def test_a_wrong_list_of_benchmarks_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_benchmarks(listed(tmp_path, text))


# end to end ------------------------------------------------------------------------


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small world whose recipe avoids two benchmarks: one of pictures in Parquet, one of films.

    The films' one is a copy of a film of the recipe; of its two questions one is asked there.
    """
    root = tmp_path_factory.mktemp("leaks")
    recipe = small_world.make(root)
    rows = json.loads((root / "pictures.json").read_text())
    rows.append(small_world.row("p-asks", "image", "5.jpg", LONG, "sings"))
    (root / "pictures.json").write_text(json.dumps(rows))
    held = {"bytes": (root / "exam/held.jpg").read_bytes(), "path": None}
    broken = {"bytes": b"no picture", "path": None}
    (root / "copy/data").mkdir(parents=True)
    table = [{"question": "What is held out?", "decoded_image": held},
             {"question": "Is it?", "decoded_image": broken}]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(table), root / "copy/data/test-0.parquet")
    (root / "films.bench").mkdir()
    (root / "films.bench/v_one.mp4").write_bytes((root / "films/2.mp4").read_bytes())
    (root / "bench.json").write_text(json.dumps([
        {"qid": 1, "video_name": "one", "question": "How far does it zoom?"},
        {"qid": 2, "video_name": "gone", "question": LONG},
    ]))  # fmt: skip
    zooms = f"annotations: {root}/bench.json, media: {root}/films.bench"
    listed(
        root,
        "benchmarks:\n"
        f"  - {{name: real, dataset: eval-realworldqa, copy: {root}/copy}}\n"
        f"  - {{name: zooms, format: benchmark_questions, {zooms}}}\n",
    )
    text = recipe.read_text().split("held_out:")[0]
    recipe.write_text(f"{text}leaks: {{index: {root}/index}}\nnear_text: 0.9\n")
    return root


@pytest.fixture(scope="module")
def indexed(root: Path) -> Path:
    done = run("leaks", "build", f"{root}/benchmarks.yaml", "--out", f"{root}/index")
    assert done.returncode == 0, done.stderr
    assert open_index(f"{root}/index").index_id in done.stdout
    return root


@pytest.fixture(scope="module")
def built(indexed: Path) -> Path:
    root = indexed
    done = run("build", f"{root}/recipe.yaml", "--out", f"{root}/out", "--pool", f"{root}/pool")
    assert done.returncode == 0, done.stderr
    said = "zooms: 1 samples match its media (1 refused), 1 ask its questions (0 refused)"
    assert said in done.stdout
    return root


def test_the_index_counts_what_it_saw_and_holds_no_media_and_no_text(indexed: Path) -> None:
    counts = "records records_refused without_media questions media media_refused".split()
    books = {b["name"]: [b[c] for c in counts] for b in open_index(f"{indexed}/index").benchmarks}
    assert books == {"real": [2, 0, 0, 2, 2, 1], "zooms": [2, 0, 1, 2, 1, 0]}
    data = b"".join(path.read_bytes() for path in (indexed / "index").rglob("*.*"))
    assert str(indexed).encode() not in data and b"red coat" not in data
    assert sorted(path.name for path in (indexed / "index").iterdir()) == [
        "fingerprints", "index.json", "media", "questions"
    ]  # fmt: skip


def test_clips_are_refused_and_questions_flagged_by_benchmark(built: Path) -> None:
    refused = read_table((built / "out/refused.parquet").read_bytes(), "refused").to_pylist()
    codes = {(row["source"], row["record"]): row["code"] for row in refused}
    assert codes["pictures", "p-leak"] == codes["films", "f2"] == "LEAK_MEDIA"
    assert ("pictures", "p-asks") not in codes
    matches = read_table((built / "out/leaks.parquet").read_bytes(), "leaks").to_pylist()
    named = [(m["source"], m["kind"], m["benchmark"], m["held_out"], m["code"]) for m in matches]
    assert sorted(named) == [
        ("films", "media", "zooms", "0:1", "LEAK_MEDIA"),
        ("pictures", "media", "real", "0:", "LEAK_MEDIA"),
        ("pictures", "text", "zooms", "1:2", ""),
    ]


def test_the_same_copies_give_the_same_index_wherever_they_lie(
    indexed: Path, tmp_path: Path
) -> None:
    (indexed / "films.bench").rename(indexed / "elsewhere")
    text = (indexed / "benchmarks.yaml").read_text().replace("films.bench", "elsewhere")
    done = run("leaks", "build", str(listed(tmp_path, text)), "--out", f"{tmp_path}/again")
    (indexed / "elsewhere").rename(indexed / "films.bench")
    assert done.returncode == 0, done.stderr
    assert open_index(f"{tmp_path}/again").index_id == open_index(f"{indexed}/index").index_id


def test_tables_compared_together_or_alone_leave_the_same_receipts(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def receipts(pool: Pool, stage: str) -> dict[str, dict[str, list[str]]]:
        return {one.work_id: one.outputs for one in pool.receipts(stage)}

    shutil.copytree(built / "pool", tmp_path / "pool")
    pool, index = Pool(str(tmp_path / "pool")), match_leaks.index_of(f"{built}/index")
    before = [receipts(pool, stage) for stage in ("leak_media", "leak_text")]
    tables = [name for one in pool.receipts("leak_media") for name in one.inputs]
    samples = [name for one in pool.receipts("leak_text") for name in one.inputs]
    assert len(tables) > 1 and len(samples) == 2
    for found in before:
        for name in found:
            pool.store.remove(f"receipts/{name}.json")
    clips = [name for one in pool.receipts("decode") for name in one.inputs]
    (together,) = match_leaks.units(pool, index, clips, [])
    assert isinstance(together, match_leaks.MediaLeakUnit) and set(together.tables) == set(tables)
    for name in reversed(tables):
        match_leaks.match(
            match_leaks.MediaLeakUnit(pool=together.pool, index=index.url, tables=(name,))
        )
    for name in reversed(samples):
        match_leaks.match(match_leaks.TextLeakUnit(pool=together.pool, index=index.url, table=name))
    assert [receipts(pool, stage) for stage in ("leak_media", "leak_text")] == before
    assert match_leaks.units(pool, index, clips, []) == []
    monkeypatch.setattr(match_leaks, "MEDIA_VERSION", "2/0")  # of another version: matched again
    (again,) = match_leaks.units(pool, index, clips, [])
    assert isinstance(again, match_leaks.MediaLeakUnit) and set(again.tables) == set(tables)


@pytest.mark.faults
def test_an_index_whose_making_is_killed_ends_the_same(indexed: Path, tmp_path: Path) -> None:
    for moment in range(4):
        out = f"{tmp_path}/{moment}"
        words = ["leaks", "build", f"{indexed}/benchmarks.yaml", "--out", out]
        first = subprocess.Popen(
            [sys.executable, "-m", "pipeline", *words], cwd=ROOT,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(3 + 2 * moment)
        first.send_signal(signal.SIGKILL)
        first.wait()
        done = run(*words)
        assert done.returncode == 0, done.stderr
        assert open_index(out).index_id == open_index(f"{indexed}/index").index_id


def test_an_index_that_is_not_there_or_of_another_version_is_said_first(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = built / "no_index.yaml"
    text = (built / "recipe.yaml").read_text()
    recipe.write_text(text.replace(f"{built}/index", f"{built}/none"))
    done = run("build", str(recipe), "--out", f"{tmp_path}/out")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "leaks build" in done.stderr and not (tmp_path / "out").exists()
    monkeypatch.setattr(decode_media, "DECODE_VERSION", "of tomorrow")
    with pytest.raises(UserError, match="this version compares of tomorrow; run"):
        match_leaks.index_of(f"{built}/index")
