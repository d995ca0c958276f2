"""Held-out questions -> scores: a JSON file for programs, a table for people."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from mixtures.console import Console
from train import ranks
from train.evaluation.answerer import BATCH, Answerer
from train.evaluation.benchmark import (
    MEDIA_MEMORY,
    NONE,
    SHUFFLED,
    Run,
    Work,
)
from train.evaluation.copies import Copy
from train.evaluation.on_tasks import named_tasks, on_tasks
from train.evaluation.scores import scores
from train.evaluation.tables import tables_of
from train.evaluation.tasks import read_tasks
from train.json_files import write_json

PATIENCE = timedelta(days=7)
"""A launcher ends the others when one process fails; nobody else ends a wait."""


def evaluate(
    model: Path,
    tasks: Sequence[Path],
    shown: Sequence[str],
    out: Path,
    console: Console,
    relevance: Path | None = None,
    *,
    benchmarks: Sequence[Copy] = (),
    subtitles: bool = False,
    precision: str = "",
    batch: int = BATCH,
    memory: int = MEDIA_MEMORY,
) -> dict[str, Any]:
    """Score a saved model on task files and on copies of benchmarks; the ranks of a launch share
    the videos.

    `shown` are conditions: pathways, "none", "shuffled_frames". Without any, task files are asked
    with what the model was trained on, benchmarks with their floors beside it. Pathways other than
    those of training are masks over the same weights ("masked": true): a floor of this model, not
    of one trained that way. `relevance`, `precision` and `batch` are as for `Answerer`; `memory`
    bounds the bytes of decoded media that a process holds. Predictions of benchmarks lie beside
    `out`, as `<out>.<benchmark>.<shown>.jsonl`.
    """
    questions = {name: read_tasks(path) for name, path in named_tasks(tasks).items()}
    with launched():
        answerer = Answerer(model, relevance, precision=precision, batch=batch)
        trained = answerer.rules.layout.pathways
        result: dict[str, Any] = {
            "model": str(model),
            **answerer.identity,
            "trained_pathways": trained,
            "selection": answerer.rules.view.selection,
            "pathways": {},
            "benchmarks": {},
            "work": {},
        }
        if questions:
            wanted = list(dict.fromkeys(shown)) or [trained]
            result["pathways"] = on_tasks(answerer, questions, wanted, memory)
        for copy in benchmarks:
            name = copy.benchmark.name
            files = {
                condition: out.with_name(f"{out.stem}.{name}.{condition}.jsonl")
                for condition in conditions(copy, shown, trained)
            }
            asked = Run(
                answerer=answerer, copy=copy, files=files, subtitles=subtitles, memory=memory
            )
            found, heads = asked.ask(), asked.heads()
            result["benchmarks"][name] = {
                condition: {**heads[condition], **scores(rows, asked.rules)}
                for condition, rows in found.items()
            }
            result["work"][name] = total(ranks.by_each(lambda work=asked.work: work))  # type: ignore[misc]
        if ranks.rank() == 0:
            publish(result, out, console)
    return result


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
    dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def publish(result: dict[str, Any], out: Path, console: Console) -> None:
    """The scores as a file and as tables."""
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, result)
    for table in tables_of(result):
        console.print(table)


def conditions(copy: Copy, shown: Sequence[str], trained: str) -> list[str]:
    """Under which conditions a benchmark is asked; pictures have no order to be shuffled."""
    wanted = list(dict.fromkeys(shown)) or [trained, NONE, SHUFFLED]
    return [one for one in wanted if one != SHUFFLED or copy.benchmark.kind == "video"]


def total(works: Sequence[Work]) -> dict[str, int]:
    """What all ranks did."""
    names = ("asked", "decoded", "encoded")
    return {name: sum(getattr(work, name) for work in works) for name in names}
