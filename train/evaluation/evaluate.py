"""Held-out questions -> scores: a JSON file for programs, a table for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from mixtures.console import Console
from train.evaluation.answerer import Answerer, Asked
from train.evaluation.benchmark import run_benchmark
from train.evaluation.copies import Copy
from train.evaluation.rules import prompts
from train.evaluation.scoring import score, score_types
from train.evaluation.statistics import Z95
from train.evaluation.tasks import Question, read_tasks
from train.json_files import write_json


def evaluate(
    model: Path,
    tasks: Sequence[Path],
    pathways: Sequence[str],
    out: Path,
    console: Console,
    relevance: Path | None = None,
    *,
    benchmarks: Sequence[Copy] = (),
    subtitles: bool = False,
) -> dict[str, Any]:
    """Score a saved model on task files and on copies of benchmarks.

    Media of task files are decoded once; of a benchmark once for each of the pathways.

    No `pathways` means those the model was trained with. Others are masks over the same weights
    ("masked": true): a floor of this model, not of one trained that way. `relevance` is as for
    `Answerer`. Predictions of benchmarks lie beside `out`, as `<out>.<benchmark>.<pathways>.jsonl`.
    """
    questions = {name: read_tasks(path) for name, path in named_tasks(tasks).items()}
    answerer = Answerer(model, relevance)
    trained = answerer.rules.layout.pathways
    # without a choice those that it was trained with
    wanted = list(dict.fromkeys(pathways)) or [trained]
    result: dict[str, Any] = {
        "model": str(model),
        **answerer.identity,
        "trained_pathways": trained,
        "selection": answerer.rules.view.selection,
        "pathways": _on_tasks(answerer, questions, wanted) if questions else {},
        "benchmarks": {
            copy.benchmark.name: {
                shown: run_benchmark(
                    answerer,
                    copy,
                    shown,
                    out.with_name(f"{out.stem}.{copy.benchmark.name}.{shown}.jsonl"),
                    subtitles=subtitles,
                )
                for shown in wanted
            }
            for copy in benchmarks
        },
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, result)
    for table in tables_of(result):
        console.print(table)
    return result


def named_tasks(paths: Sequence[Path]) -> dict[str, Path]:
    """Task files by folder and name, or by their whole path where two share these."""
    # short names, unless two files share one
    short = Counter(f"{path.parent.name}/{path.stem}" for path in paths)
    names = [f"{path.parent.name}/{path.stem}" for path in paths]
    return {
        name if short[name] == 1 else str(path): path
        for name, path in zip(names, paths, strict=True)
    }


def _on_tasks(
    answerer: Answerer, questions: Mapping[str, Sequence[Question]], pathways: Sequence[str]
) -> dict[str, Any]:
    """Scores of task files by pathways; what nobody is shown is not opened."""
    all_questions = [
        question for shown_questions in questions.values() for question in shown_questions
    ]
    sighted = set(pathways) != {"none"}
    # pathways none: media are not even opened
    seen = answerer.see([q.medium for q in all_questions if q.medium is not None and sighted])
    shown_questions = [
        Asked(text=q.text, seen=(seen[q.medium],) if q.medium in seen else ())
        for q in all_questions
    ]
    result = {}
    for shown in pathways:
        replies = answerer.answer(shown_questions, shown)
        # by identity: two equal questions of two tasks have answers of their own
        reply_of = {id(q): reply.text for q, reply in zip(all_questions, replies, strict=True)}
        result[shown] = {
            "masked": shown != answerer.rules.layout.pathways,
            "tasks": {
                name: _scores(rows, [reply_of[id(q)] for q in rows])
                for name, rows in questions.items()
            },
        }
    return result


def _scores(questions: Sequence[Question], answers: Sequence[str]) -> dict[str, Any]:
    types, truths = (
        [question.type for question in questions],
        [question.answer for question in questions],
    )
    by_type = score_types(types, answers, truths)
    # a floor that knows the type: the most frequent answer of each type
    guessed = sum(scored.majority_accuracy * scored.count for scored in by_type.values()) / len(
        questions
    )
    return {
        "all": asdict(score(answers, truths)),
        "majority_per_type": guessed,
        "types": {name: asdict(type_score) for name, type_score in by_type.items()},
        "answers": [
            {
                "record": question.record,
                "type": question.type,
                "question": question.text,
                "truth": question.answer,
                "said": a,
            }
            for question, a in zip(questions, answers, strict=True)
        ],
    }


def tables_of(result: dict[str, Any]) -> list[Table]:
    """What people look at: the task files together, and a table for each benchmark."""
    tables = [_task_table(result["pathways"])] if result["pathways"] else []
    return tables + [
        benchmark_table(name, by_pathways) for name, by_pathways in result["benchmarks"].items()
    ]


def _task_table(pathways: dict[str, Any]) -> Table:
    """One line per task, type and choice of pathways."""
    table = Table(title="held-out accuracy (exact match, Wilson 95 % interval)")
    for name in ("task", "type", "pathways", "right", "accuracy", "interval", "majority answer"):
        table.add_column(name, justify="left" if name in ("task", "type", "pathways") else "right")
    # one table for all task files: models are compared over all of them
    for shown, result in pathways.items():
        label = f"{shown} (masked)" if result["masked"] else shown
        for task, scores in result["tasks"].items():
            for kind, type_score in {**scores["types"], "all": scores["all"]}.items():
                floor = (
                    scores["majority_per_type"]
                    if kind == "all"
                    else type_score["majority_accuracy"]
                )
                table.add_row(
                    task,
                    kind,
                    label,
                    f"{type_score['right']}/{type_score['count']}",
                    f"{type_score['accuracy']:.3f}",
                    f"{type_score['low']:.2f}..{type_score['high']:.2f}",
                    f"{floor:.3f}",
                )
    return table


def benchmark_table(name: str, by_pathways: dict[str, dict[str, Any]]) -> Table:
    """The score and each axis of a benchmark, with clustered 95 % intervals."""
    paper = prompts(name).paper
    table = Table(title=name, caption=f"SlowFast-LLaVA-1.5: {paper}" if paper else None)
    for title in ("axis", "value", "pathways"):
        table.add_column(title)
    for title in ("questions", "videos", "score", "95 %"):
        table.add_column(title, justify="right")
    for shown, result in by_pathways.items():
        if not result["scored"]:
            table.add_row("all", "no public answers: predictions only", shown)
            continue
        table.add_row("all", "", shown, *_cells(result["score"]))
        floor = result["majority"]
        table.add_row("floor", f"always {floor['answer']!r}", "", "", "", f"{floor['mean']:.3f}")
        for axis, rows in result["tables"].items():
            for value, row in rows.items():
                table.add_row(axis, value, shown, *_cells(row))
        if not result["complete"]:
            counts = ", ".join(f"{code} {count}" for code, count in result["missing"].items())
            table.add_row("INCOMPLETE", f"not asked: {counts}", shown)
    return table


def _cells(estimate: dict[str, Any]) -> list[str]:
    error, mean = estimate["error"], estimate["mean"]
    # clustered by video: see train.evaluation.statistics
    spread = "" if error is None else f"{mean - Z95 * error:.3f}..{mean + Z95 * error:.3f}"
    return [str(estimate["count"]), str(estimate["videos"]), f"{mean:.3f}", spread]
