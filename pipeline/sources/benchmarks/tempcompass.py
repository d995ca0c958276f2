"""TempCompass: five temporal dimensions, as choices, yes or no, and matching of captions.

Parquet files in a folder a task (`multi-choice`, `yes_no`, `caption_matching`): `{video_id,
question, answer, dim}`; options are lines of the question, the answer is such a line or its
letter. Captioning is scored by a judge, so it is not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.sources.benchmarks.item import (
    Benchmark,
    BenchmarkItem,
    axes,
    free_answers,
    letter_given,
    letter_of_text,
    rows_of,
    split_options,
    stem_video,
    text_of,
)
from pipeline.sources.fields import Row
from pipeline.untrusted import Problem

TASKS = ("multi-choice", "yes_no", "caption_matching")
_CAPTIONS = ("Caption ", "Option ", "Sentence ")


def rows(path: Path) -> Iterator[Row | Problem]:
    """The rows of a task, which its folder's name tells."""
    for row in rows_of(path, ("video_id", "question", "answer", "dim")):
        yield row if isinstance(row, Problem) else row | {"task": path.parent.name}


def item_of(name: str, row: Row) -> BenchmarkItem:
    """One question; captions to match are named `Caption A: ...`, `Option 1: ...`."""
    question, options = _matching(text_of(row, "question"))
    answer = row["answer"]
    if not options:
        answers: tuple[str, ...] = free_answers(answer)
    elif isinstance(answer, str) and answer.startswith(_CAPTIONS):
        answers = letter_of_text(answer.partition(": ")[2], options)
    else:
        answers = letter_given(answer, len(options))
    return BenchmarkItem(
        id=f"{row['task']}:{name}",
        media=(stem_video(row["video_id"]),),
        question=question,
        options=options,
        answers=answers,
        groups=axes(task=row["task"], dimension=row["dim"]),
    )


def _matching(text: str) -> tuple[str, tuple[str, ...]]:
    lines = text.split("\n")
    captions = [line.partition(": ")[2].strip() for line in lines[1:] if line.startswith(_CAPTIONS)]
    if len(captions) > 1 and len(captions) == len(lines) - 1:
        return lines[0].strip(), tuple(captions)
    return split_options(text)


BENCHMARK = Benchmark(
    name="tempcompass",
    # by name: the fourth folder, captioning, has no answers to compare with
    annotations=(" + ".join(f"{task}/test-*.parquet" for task in TASKS),),
    columns=("video_id", "question", "answer", "dim"),
    item_of=item_of,
    rows=rows,
    id_columns=("video_id",),
    media=("videos", ""),
    layout="EvolvingLMMs-Lab/lmms-eval 06f392e, lmms_eval/tasks/tempcompass/utils.py",
)
