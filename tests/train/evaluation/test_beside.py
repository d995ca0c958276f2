"""What goes beside a score: another model by pairs, a floor that reads questions, submissions."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from benchmarks.inputs.made_model import made_copy, made_model
from pipeline.sources.benchmarks import BENCHMARKS
from pipeline.sources.benchmarks.item import BenchmarkItem
from shards.errors import UserError
from tests.train.evaluation.test_evaluation import pair, write_json
from train.evaluation.beside.against import SCORES, Pair, compared
from train.evaluation.beside.question_only import question_only
from train.evaluation.beside.submission import SUBMISSIONS, submission
from train.evaluation.copies import copies
from train.evaluation.evaluate import evaluate
from train.evaluation.predictions import Prediction
from train.evaluation.rules import prompts
from train.evaluation.scores import scores


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models and a copy of four questions over two videos."""
    folder = tmp_path_factory.mktemp("world")
    made_copy(folder / "copy", 2, 2)
    for seed in (0, 1):
        made_model(folder / f"model-{seed}", seed=seed)
    return folder


def score(world: Path, out: Path, seed: int = 0, **more: Any) -> tuple[dict[str, Any], str]:
    said = io.StringIO()
    named = copies(more.pop("benchmarks", [f"egoschema={world}/copy"]))
    found = evaluate(
        world / f"model-{seed}",
        more.pop("tasks", []),
        more.pop("shown", ["none"]),
        out,
        Console(file=said, width=200),
        benchmarks=named,
        **more,
    )
    return found, said.getvalue()


# Another model -------------------------------------------------------------------


def test_differences_are_paired_by_question_and_clustered_by_video() -> None:
    credits_ = [(1.0, 0.0), (1.0, 1.0), (0.0, 1.0), (1.0, None)]
    pairs = [
        Pair(cluster=f"v{i // 2}", group="", replies=("a", "a" if i else "b"), credits_=both)
        for i, both in enumerate(credits_)
    ]
    found = compared(pairs, grouped=False)
    assert (found["questions"], found["clusters"], found["equal_replies"]) == (3, 2, 0.75)
    assert found["ours"] == pytest.approx(2 / 3)
    assert found["theirs"] == pytest.approx(2 / 3)
    assert found["difference"] == pytest.approx(0)
    # the differences 1, 0 of v0 and -1 of v1 around 0: (1/3)^2 + (1/3)^2, times C / (C - 1) = 2
    assert found["error"] == pytest.approx(np.sqrt(2 * 2 / 9))


def test_two_models_are_compared_on_the_same_questions(world: Path, tmp_path: Path) -> None:
    score(world, tmp_path / "a.json", 0)
    found, printed = score(world, tmp_path / "b.json", 1, other=tmp_path / "a.json")
    (row,) = found["against"]
    assert (row["set"], row["shown"], row["questions"]) == ("egoschema", "none", 4)
    assert row["differs"] == ["model"]
    assert row["difference"] == pytest.approx(row["ours"] - row["theirs"])
    assert "paired differences" in printed
    again, _ = score(world, tmp_path / "c.json", 0, other=tmp_path / "a.json")
    assert again["against"][0]["equal_replies"] == 1
    assert (again["against"][0]["difference"], again["against"][0]["error"]) == (0, 0)
    assert again["against"][0]["differs"] == []


def test_task_files_are_compared_too(world: Path, tmp_path: Path) -> None:
    rows = [{"id": f"r{i}", "conversations": pair(f"What is it? {i}", "red")} for i in range(3)]
    tasks = [write_json(tmp_path / "test.json", rows)]
    score(world, tmp_path / "a.json", benchmarks=[], tasks=tasks)
    found, _ = score(
        world, tmp_path / "b.json", benchmarks=[], tasks=tasks, other=tmp_path / "a.json"
    )
    (row,) = found["against"]
    assert (row["questions"], row["difference"], row["equal_replies"]) == (3, 0, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "not readable"),
        ("{", "not readable"),
        ("[" * 100_000, "not readable"),
        ("{}", "no scores of an evaluation"),
        ('{"pathways": {}}', "no scores of an evaluation"),
        (json.dumps({"schema": SCORES, "pathways": {}}), "neither predictions of these sets"),
    ],
)
def test_what_cannot_be_compared_is_named(
    world: Path, tmp_path: Path, text: str | None, message: str
) -> None:
    other = tmp_path / "a.json"
    if text is not None:
        other.write_text(text)
    with pytest.raises(UserError, match=f"--against .*{message}"):
        score(world, tmp_path / "b.json", other=other)


def test_scores_stay_whatever_they_are_compared_with(world: Path, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"schema": SCORES, "pathways": {}}))
    with pytest.raises(UserError, match="neither predictions of these sets"):
        score(world, tmp_path / "b.json", other=tmp_path / "a.json")
    assert json.loads((tmp_path / "b.json").read_text())["benchmarks"]["egoschema"]


def test_another_copy_is_not_compared(world: Path, tmp_path: Path) -> None:
    made_copy(tmp_path / "copy", 1, 1)
    score(world, tmp_path / "a.json", benchmarks=[f"egoschema={tmp_path}/copy"])
    with pytest.raises(UserError, match=r"about other questions \(questions: "):
        score(world, tmp_path / "b.json", other=tmp_path / "a.json")


# A floor -------------------------------------------------------------------------


def item(question: str, *answers: str, options: tuple[str, ...] = ()) -> BenchmarkItem:
    return BenchmarkItem(id="1", media=(), question=question, answers=answers, options=options)


def test_a_training_split_that_gives_options_away_is_a_high_floor() -> None:
    rules = prompts("nextqa_mc")
    right, wrong = ("to play", "to eat"), ("unknown", "nothing at all")
    training = [
        item("why does he run?", "AB"[i % 2], options=(right[0], wrong[i % 2])[:: 1 - 2 * (i % 2)])
        for i in range(20)
    ]
    asked = [item("why does she sit?", "B", options=(wrong[0], right[0]))] * 10
    assert question_only(training, asked, rules) == {"mean": 1.0, "learnt": 20}
    assert question_only([item("a", options=("x", "y"))], asked, rules) is None


def test_free_answers_follow_the_longest_beginning_that_was_seen() -> None:
    rules = prompts("activitynet_qa_test")
    training = [item("is he tall?", "yes")] * 3 + [item("what is it?", "a dog")] * 4
    asked = [item("is he old?", "yes"), item("what is this?", "A dog"), item("where?", "a dog")]
    assert question_only(training, asked, rules) == {"mean": 1.0, "learnt": 7}


def test_a_copy_with_its_training_split_has_the_floor_beside_it(
    world: Path, tmp_path: Path
) -> None:
    row = {"video": 7, "question": "why", "answer": 1, "qid": 0, "type": "CW"}
    row |= {f"a{i}": text for i, text in enumerate(["no", "to play", "up", "on", "it"])}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "x.parquet")
    for name in ("test", "train"):
        lines = [",".join(map(str, one)) for one in (row, row.values())]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "x.parquet").unlink()
    # there, and not opened: nothing is shown
    (tmp_path / "7.mp4").touch()
    found, printed = score(world, tmp_path / "s.json", benchmarks=[f"nextqa_mc={tmp_path}"])
    assert found["question_only"] == {"nextqa_mc": {"mean": 1.0, "learnt": 1}}
    assert "question only, learnt from 1" in printed


# Submissions ---------------------------------------------------------------------


def made(number: int, **more: Any) -> Prediction:
    base = Prediction(
        id=f"{number}:q{number}",
        published=f"q{number}",
        place=number,
        video=f"v{number}.mp4",
        question="Why?",
        groups={},
        answers=[],
        options=3,
        read="C",
    )
    return replace(base, **more)


def test_splits_without_answers_are_written_as_their_publishers_take_them(tmp_path: Path) -> None:
    rows = [made(0), made(1, read=""), made(2, missing="MISSING: v2")]
    written = {}
    for name in SUBMISSIONS:
        file = submission(name, rows, tmp_path / f"{name}.json")
        assert file is not None
        written[name] = json.loads(file.read_text())
    assert written["egoschema"] == {"v0": 2, "v1": -1}
    assert written["longvideobench"] == {"q0": "C", "q1": ""}
    assert written["perception_test_mc"][0] == {
        "video_name": "v0",
        "question": "Why?",
        "question_id": "q0",
        "pred_id": 2,
    }
    assert submission("mlvu", rows, tmp_path / "no.json") is None
    public = [replace(one, answers=["A"]) for one in rows]
    assert submission("egoschema", public, tmp_path / "no.json") is None
    assert not (tmp_path / "no.json").exists()


def test_a_hidden_split_is_answered_and_written_and_not_scored(world: Path, tmp_path: Path) -> None:
    rows = pq.read_table(world / "copy/test.parquet").to_pylist()
    hidden = [row | {"answer": None} for row in rows]
    shutil.copytree(world / "copy", tmp_path / "copy")
    table = pa.Table.from_pylist(hidden, pq.read_schema(world / "copy/test.parquet"))
    pq.write_table(table, tmp_path / "copy/test.parquet")
    found, printed = score(world, tmp_path / "s.json", benchmarks=[f"egoschema={tmp_path}/copy"])
    name = found["submissions"]["egoschema"]
    assert set(json.loads((tmp_path / name).read_text())) == {"v00000", "v00001"}
    assert (found["benchmarks"]["egoschema"]["none"]["scored"], "no public" in printed) == (0, True)
    assert name in printed


# Averages ------------------------------------------------------------------------


@pytest.mark.parametrize("name", BENCHMARKS)
def test_averages_of_twenty_questions_are_those_by_hand(name: str) -> None:
    """Every set's mean and tables over made credits, added up here in plain loops."""
    rules = prompts(name)
    axes = sorted({*rules.tables, *([rules.mean_of] if rules.mean_of else [])})
    rows, by_value = [], {axis: {} for axis in axes}
    for i in range(20):
        groups = {axis: [f"{axis}{i % (3 + at)}"] for at, axis in enumerate(axes)}
        earned = [1.0, 0.0, 0.3][i * i % 3]
        for axis, (value,) in groups.items():
            by_value[axis].setdefault(value, []).append(earned)
        rows.append(made(i, groups=groups, credit=earned, answers=["A"]))
    found = scores(rows, rules)
    means = {axis: {v: sum(x) / len(x) for v, x in of.items()} for axis, of in by_value.items()}
    every = [row.credit or 0 for row in rows]
    expected = sum(every) / 20
    if rules.mean_of:
        of_tasks = means[rules.mean_of].values()
        expected = sum(of_tasks) / len(of_tasks)
    assert found["score"]["mean"] == pytest.approx(expected)
    for axis in rules.tables:
        assert {v: row["mean"] for v, row in found["tables"][axis].items()} == pytest.approx(
            means[axis]
        )
    assert (found["complete"], found["questions"], found["scored"]) == (True, 20, 20)
