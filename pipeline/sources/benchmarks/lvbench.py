"""LVBench: four options that stand in the question, one or more abilities a question.

The authors' `video_info.meta.jsonl`, a line a video (`{key, qa: [{uid, question, answer,
question_type, time_reference}]}`), or a Parquet copy with a row a question and `video_path`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.sources import json_rows
from pipeline.sources.benchmarks.item import (
    BadRow,
    Benchmark,
    BenchmarkItem,
    axes,
    letter_given,
    named_video,
    rows_of,
    split_options,
    stem_video,
    text_of,
    texts_of,
)
from pipeline.sources.fields import Row
from pipeline.sources.text_files import suffix_of
from pipeline.untrusted import Problem


def rows(path: Path) -> Iterator[Row | Problem]:
    """A row for each question of each video."""
    if suffix_of(path) == ".parquet":
        yield from rows_of(path, ("uid", "video_path", "question", "answer"))
        return
    for line in json_rows.rows(path):
        if isinstance(line, Problem):
            yield line
        elif not isinstance(line.get("qa"), list):
            yield Problem("ROW_MISSING_FIELD", "no list qa of the video")
        else:
            for question in line["qa"]:
                whole = isinstance(question, dict)
                yield (
                    question | {"key": line.get("key")}
                    if whole
                    else Problem("ROW_WRONG_TYPE", "an entry of qa is no object")
                )


def item_of(name: str, row: Row) -> BenchmarkItem:
    """One question; its options are lines of its text."""
    question, options = split_options(text_of(row, "question"))
    if row.get("options"):
        options = texts_of(row["options"], "options")
    if not options:
        raise BadRow("ROW_MISSING_FIELD", "no options in the question")
    named = row.get("video_path")
    return BenchmarkItem(
        id=name,
        media=(named_video(named) if named else stem_video(row.get("key")),),
        question=question,
        options=options,
        answers=letter_given(row.get("answer"), len(options)),
        groups=axes(task=row.get("question_type")),
    )


BENCHMARK = Benchmark(
    name="lvbench",
    annotations=("video_info.meta.jsonl", "data/video_info.meta.jsonl", "data/*.parquet"),
    columns=("uid", "question", "answer"),
    item_of=item_of,
    rows=rows,
    id_columns=("uid",),
    media=("videos", "all_videos", "video", ""),
    layout="THUDM/LVBench dd7d99d, lvbench/metrics/compute_accuracy.py; "
    "EvolvingLMMs-Lab/lmms-eval 9c25ff5, lmms_eval/tasks/lvbench/utils.py",
)
