"""Held-out questions -> scores: a JSON file for programs, a table for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from mixtures.console import Console
from train.evaluation.answerer import Answerer
from train.evaluation.scoring import score, score_types
from train.evaluation.tasks import Question, read_tasks
from train.json_files import write_json


def evaluate(
    model: Path,
    tasks: Sequence[Path],
    pathways: Sequence[str],
    out: Path,
    console: Console,
    relevance: Path | None = None,
) -> dict[str, Any]:
    """Score a saved model; media are decoded once, however many pathways are asked for.

    No `pathways` means those the model was trained with. Others are masks over the same weights
    ("masked": true): a floor of this model, not of one trained that way. `relevance` is as for
    `Answerer`.
    """
    questions = {f"{path.parent.name}/{path.stem}": read_tasks(path) for path in tasks}
    answerer = Answerer(model, relevance)
    trained = answerer.rules.layout.pathways
    every = [question for asked in questions.values() for question in asked]
    wanted = list(pathways) or [trained]
    sighted = set(wanted) != {"none"}  # what nobody is shown need not be opened
    seen = answerer.see([q.medium for q in every if q.medium is not None and sighted])
    result: dict[str, Any] = {
        "model": str(model),
        "manifest_id": answerer.manifest_id,
        "trained_pathways": trained,
        "selection": answerer.rules.view.selection,
        "pathways": {},
    }
    for shown in wanted:
        asked = [(seen.get(q.medium) if q.medium is not None else None, q.text) for q in every]
        answers = dict(zip(map(id, every), answerer.answer(asked, shown), strict=True))
        result["pathways"][shown] = {
            "masked": shown != trained,
            "tasks": {
                name: _scores(rows, [answers[id(q)] for q in rows])
                for name, rows in questions.items()
            },
        }
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, result)
    console.print(table_of(result))
    return result


def _scores(questions: Sequence[Question], answers: Sequence[str]) -> dict[str, Any]:
    types, truths = [q.type for q in questions], [q.answer for q in questions]
    by_type = score_types(types, answers, truths)
    guessed = sum(s.majority_accuracy * s.count for s in by_type.values()) / len(questions)
    return {
        "all": asdict(score(answers, truths)),
        "majority_per_type": guessed,
        "types": {name: asdict(each) for name, each in by_type.items()},
        "answers": [
            {"record": q.record, "type": q.type, "question": q.text, "truth": q.answer, "said": a}
            for q, a in zip(questions, answers, strict=True)
        ],
    }


def table_of(result: dict[str, Any]) -> Table:
    """One line per task, type and choice of pathways."""
    table = Table(title="held-out accuracy (exact match, Wilson 95 % interval)")
    for name in ("task", "type", "pathways", "right", "accuracy", "interval", "majority answer"):
        table.add_column(name, justify="left" if name in ("task", "type", "pathways") else "right")
    for shown, each in result["pathways"].items():
        label = f"{shown} (masked)" if each["masked"] else shown
        for task, scores in each["tasks"].items():
            for kind, one in {**scores["types"], "all": scores["all"]}.items():
                floor = scores["majority_per_type"] if kind == "all" else one["majority_accuracy"]
                table.add_row(
                    task,
                    kind,
                    label,
                    f"{one['right']}/{one['count']}",
                    f"{one['accuracy']:.3f}",
                    f"{one['low']:.2f}..{one['high']:.2f}",
                    f"{floor:.3f}",
                )
    return table
