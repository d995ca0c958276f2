"""Held-out questions -> scores: a JSON file for programs, a table for people."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from mixtures.console import Console
from pipeline.sources.benchmarks.item import BenchmarkItem
from shards.errors import UserError
from train import ranks
from train.evaluation.answerer import BATCH, Answerer
from train.evaluation.benchmark import (
    MEDIA_MEMORY,
    NONE,
    SHUFFLED,
    Run,
    Work,
    is_masked,
)
from train.evaluation.beside.against import SCORES, against, against_table, scores_in
from train.evaluation.beside.question_only import question_only
from train.evaluation.beside.submission import submission
from train.evaluation.copies import Copy
from train.evaluation.on_tasks import named_tasks, on_tasks
from train.evaluation.predictions import Prediction
from train.evaluation.scores import scores
from train.evaluation.tables import tables_of
from train.evaluation.tasks import read_tasks
from train.json_files import write_json

OF_BENCHMARKS = ("benchmarks", "work", "question_only", "submissions")
"""Keys of a result that have an entry for each benchmark."""
PATIENCE = timedelta(days=7)
"""A launcher ends the others when one process fails; nobody else ends a wait."""


def evaluate(
    model: Path,
    tasks: Sequence[Path],
    conditions: Sequence[str],
    out: Path,
    console: Console,
    relevance: Path | None = None,
    *,
    benchmarks: Sequence[Copy] = (),
    subtitles: bool = False,
    precision: str = "",
    batch: int = BATCH,
    media_memory: int = MEDIA_MEMORY,
    other: Path | None = None,
) -> dict[str, Any]:
    """Score a saved model on task files and on copies of benchmarks; the ranks of a launch share
    the videos.

    `conditions` are pathways, "none", "shuffled_frames". Without any, task files are asked
    with what the model was trained on, benchmarks with their floors beside it. Pathways other than
    those of training are masks over the same weights ("masked": true): a floor of this model, not
    of one trained that way. `relevance`, `precision` and `batch` are as for `Answerer`;
    `media_memory` bounds the bytes of decoded media that a process holds. Predictions of benchmarks
    lie beside `out`, as `<out>.<benchmark>.<condition>.jsonl`. With `other`, the scores of another
    evaluation, both are compared question by question.
    """
    check_conditions(benchmarks, conditions)
    questions = {name: read_tasks(path) for name, path in named_tasks(tasks).items()}
    if other is not None:
        scores_in(other)  # a mistake is told before hours of work
    with launched():
        # every rank holds the whole model; they share out the videos, not the weights
        answerer = Answerer(model, relevance, precision=precision, batch=batch)
        trained = answerer.rules.layout.pathways
        check_pathways(trained, conditions)
        result = nothing_asked(answerer)
        if questions:
            # a condition named twice is asked once
            wanted = list(dict.fromkeys(conditions)) or [trained]
            result["pathways"] = on_tasks(answerer, questions, wanted, media_memory)
        files = {
            copy.benchmark.name: files_of(copy, conditions, trained, out) for copy in benchmarks
        }
        asking = partial(Run, answerer=answerer, subtitles=subtitles, memory=media_memory)
        for copy in benchmarks:
            name = copy.benchmark.name
            for key, value in of_benchmark(asking(copy=copy, files=files[name])).items():
                result[key][name] = value
        if ranks.rank() == 0:
            if other is not None:
                write_scores(out, result)  # whatever the other evaluation is, this one is done
                result["against"] = against(other, files, result["pathways"])
            publish(result, out, console, other)
    return result


def nothing_asked(answerer: Answerer) -> dict[str, Any]:
    """A result without a score: which model it is of, and how media are shown to it."""
    return {
        "schema": SCORES,
        **answerer.identity,
        "trained_pathways": answerer.rules.layout.pathways,
        "selection": answerer.rules.view.selection,
        "pathways": {},
        **{key: {} for key in OF_BENCHMARKS},
    }


def of_benchmark(run: Run) -> dict[str, Any]:
    """What a result says of one benchmark, by OF_BENCHMARKS; on the first rank all of it."""
    predictions, heads = run.ask(), run.heads()
    said = {
        "benchmarks": {
            condition: {
                **heads[condition],
                "masked": is_masked(condition, run.answerer),
                **scores(rows, run.rules),
            }
            for condition, rows in predictions.items()
        },
        "work": total(ranks.by_each(lambda: run.work)),
    }
    # only the first rank has all counts and may write OUT
    if ranks.rank() == 0:
        for condition, rows in predictions.items():
            check_asked(run.copy, rows, run.files[condition])
        # rows that could not be read have no question to answer; a floor is of what the score is of
        lost = {row.id for rows in predictions.values() for row in rows if row.missing}
        readable = (item for item in run.copy.items() if isinstance(item, BenchmarkItem))
        items = (item for item in readable if item.id not in lost)
        floor = question_only(run.copy.training(), items, run.rules)
        if floor is not None:
            said["question_only"] = floor
        # what is submitted was shown as the first condition says: as trained, unless asked
        # otherwise
        first, rows = next(iter(predictions.items()))
        file = run.files[first].with_suffix(".submission.json")
        if submission(run.copy.benchmark.name, rows, file):
            said["submissions"] = file.name
    return said


def check_asked(copy: Copy, predictions: Sequence[Prediction], file: Path) -> None:
    """UserError where questions are without a prediction: other ranks wrote theirs elsewhere."""
    # ranks exchange predictions through files, so a folder that they do not share loses some
    asked = {item.id for item in copy.items() if isinstance(item, BenchmarkItem)}
    lacking = asked - {row.id for row in predictions}
    if lacking:
        raise UserError(
            f"{file}: {len(lacking)} of {len(asked)} questions have no prediction (such as "
            f"{min(lacking)}); give an --out on a disk that all processes share, and run it again"
        )


def check_conditions(benchmarks: Sequence[Copy], conditions: Sequence[str]) -> None:
    """UserError where nothing of a set would be asked: pictures have no order to be shuffled."""
    for copy in benchmarks:
        if copy.benchmark.kind != "video" and set(conditions) == {SHUFFLED}:
            raise UserError(
                f"--pathways {SHUFFLED}: {copy.benchmark.name} shows pictures, which have no "
                "order; name another condition beside it"
            )


def check_pathways(trained: str, conditions: Sequence[str]) -> None:
    """UserError for a pathway that the model was never shown: a mask over it is no floor."""
    if trained == "both":
        return
    for one in conditions:
        if one not in (trained, NONE, SHUFFLED):
            raise UserError(
                f"--pathways {one}: the model was trained on {trained} alone; ask with {trained}, "
                f"{NONE} or {SHUFFLED}"
            )


@contextmanager
def launched() -> Iterator[None]:
    """Inside, the processes of this launch are one group, if there are several.

    They only exchange files and objects, and one may wait for hours for the videos of another.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # gloo also on GPUs: only Python objects travel
    dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def publish(result: dict[str, Any], out: Path, console: Console, other: Path | None) -> None:
    """The scores as a file and as tables."""
    write_scores(out, result)
    for table in tables_of(result, console):
        console.print(table)
    if other is not None:
        console.print(against_table(str(other), result["against"]))
    for name, work in result["work"].items():
        told = ", ".join(f"{count:,} {what}" for what, count in work.items())
        console.print(f"{name}: {told}", highlight=False)
    for name, file in result["submissions"].items():
        console.print(f"{name}: predictions for its publisher in {file}", highlight=False)


def write_scores(out: Path, result: dict[str, Any]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, result)


def files_of(copy: Copy, conditions: Sequence[str], trained: str, out: Path) -> dict[str, Path]:
    """The predictions under each condition; pictures have no order to be shuffled."""
    wanted = list(dict.fromkeys(conditions)) or [trained, NONE, SHUFFLED]
    return {
        one: out.with_name(f"{out.stem}.{copy.benchmark.name}.{one}.jsonl")
        for one in wanted
        if one != SHUFFLED or copy.benchmark.kind == "video"
    }


def total(works: Sequence[Work]) -> dict[str, int]:
    """What all ranks did."""
    names = ("asked", "decoded", "encoded")
    return {name: sum(getattr(work, name) for work in works) for name in names}
