"""Scores for people: the task files in one table, and a table for each benchmark."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from mixtures.console import Console, fitting
from train.evaluation.rules import prompts
from train.evaluation.statistics import Z95

HEADERS = ("task", "type", "pathways", "right", "accuracy", "interval", "majority\nanswer")
"""Of the table of task files."""


def tables_of(result: dict[str, Any], console: Console) -> list[Table]:
    """What people look at: the task files together, and a table for each benchmark."""
    tables = [_task_table(result["pathways"], console)] if result["pathways"] else []
    return tables + [
        benchmark_table(name, by_condition, result["question_only"].get(name))
        for name, by_condition in result["benchmarks"].items()
    ]


def _task_table(pathways: dict[str, Any], console: Console) -> Table:
    """One line per task, type and choice of pathways, in as few columns as find room."""
    rows: list[tuple[str, ...]] = []
    # one table for all task files: models are compared over all of them
    for shown, result in pathways.items():
        label = f"{shown} (masked)" if result["masked"] else shown
        for task, found in result["tasks"].items():
            for kind, type_score in {**found["types"], "all": found["all"]}.items():
                floor = (
                    found["majority_per_type"] if kind == "all" else type_score["majority_accuracy"]
                )
                rows.append(
                    (
                        task,
                        kind,
                        label,
                        f"{type_score['right']}/{type_score['count']}",
                        f"{type_score['accuracy']:.3f}",
                        f"{type_score['low']:.2f}..{type_score['high']:.2f}",
                        f"{floor:.3f}",
                    )
                )
    table = fitting(console, HEADERS, rows, spare=("right", "interval"))
    table.title = "held-out accuracy (exact match, Wilson 95 % interval)"
    return table


def benchmark_table(
    name: str, by_condition: dict[str, dict[str, Any]], question_only: dict[str, Any] | None = None
) -> Table:
    """The score and each axis of a benchmark under the first condition, with clustered 95 %
    intervals; beside it the means under the others, such as floors."""
    paper = prompts(name).paper
    table = Table(title=name, caption=f"SlowFast-LLaVA-1.5: {paper}" if paper else None)
    # the first condition is the score, the others are floors beside it
    (first, result), *others = by_condition.items()
    for title in ("axis", "value"):
        table.add_column(title)
    for title in (
        "questions",
        "videos",
        first,
        "95 %",
        *(shown for shown, _ in others),
        "majority",
    ):
        table.add_column(title, justify="right")
    beside = [_mean(other["score"]) for _, other in others]
    if result["scored"]:
        table.add_row("all", "", *_cells(result["score"]), *beside, _mean(result["majority"]))
    elif result["without_public_answer"]:
        table.add_row("all", "no public answers: predictions only")
    else:
        table.add_row("all", "nothing scored")
    if question_only is not None:
        learnt = f"question only, learnt from {question_only['learnt']}"
        table.add_row("floor", learnt, "", "", f"{question_only['mean']:.3f}")
    for axis, rows in result["tables"].items():
        for value, row in rows.items():
            beside = [_mean(other["tables"][axis].get(value)) for _, other in others]
            table.add_row(axis, value, *_cells(row), *beside, _mean({"mean": row["majority"]}))
    for shown, each in by_condition.items():
        # a score over the questions that could be asked is no score of the set: it says so
        if not each["complete"]:
            counts = ", ".join(f"{code} {count}" for code, count in each["missing"].items())
            table.add_row("INCOMPLETE", f"{shown}, not asked: {counts or 'no rows'}")
    return table


def _cells(estimate: dict[str, Any]) -> list[str]:
    error, mean = estimate["error"], estimate["mean"]
    # clustered by video: see train.evaluation.statistics
    spread = "" if error is None else f"{mean - Z95 * error:.3f}..{mean + Z95 * error:.3f}"
    return [str(estimate["count"]), str(estimate["videos"]), f"{mean:.3f}", spread]


def _mean(estimate: dict[str, Any] | None) -> str:
    return "" if estimate is None or estimate["mean"] is None else f"{estimate['mean']:.3f}"
