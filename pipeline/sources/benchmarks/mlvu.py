"""MLVU: multiple choice by task, whose mean over tasks is the m-avg; two tasks of free text.

The authors' JSON, one file a task (`{video, question, candidates, answer, question_type}`, the
answer is an option's text), or the Parquet copy of the dev set (`video_name`, `task_type`, the
answer is a letter, and the options may stand in the question). Sub-scene captioning and
summaries have no options: their score (g-avg) is a judge's, so they are answered only.
"""

from __future__ import annotations

from pipeline.sources.benchmarks.item import (
    BadRow,
    Benchmark,
    BenchmarkItem,
    axes,
    letter_given,
    letter_of_text,
    named_video,
    split_options,
    text_of,
    texts_of,
)
from pipeline.sources.fields import Row

_TASKS = tuple(
    f"{at}video/{task}"
    for at in ("", "MLVU/")
    for task in (
        *("1_plotQA", "2_needle", "3_ego", "4_count", "5_order"),
        *("6_anomaly_reco", "7_topic_reasoning", "8_sub_scene", "9_summary"),
    )
)


def item_of(name: str, row: Row) -> BenchmarkItem:
    """One question of either copy."""
    question, options = split_options(text_of(row, "question"))
    if row.get("candidates"):
        options = texts_of(row["candidates"], "candidates")
    task = row.get("task_type") or row.get("question_type")
    video = row.get("video_name") or row.get("video")
    if not isinstance(task, str) or video is None:
        raise BadRow("ROW_MISSING_FIELD", "no task and video")
    return BenchmarkItem(
        id=name,
        media=(named_video(video),),
        question=question,
        options=options,
        answers=_answer(row.get("answer"), options),
        groups=axes(task=task),
    )


def _answer(value: object, options: tuple[str, ...]) -> tuple[str, ...]:
    if not options:
        return (value.strip(),) if isinstance(value, str) and value.strip() else ()
    by_text = isinstance(value, str) and value.strip() in options
    return letter_of_text(value, options) if by_text else letter_given(value, len(options))


BENCHMARK = Benchmark(
    name="mlvu",
    annotations=("json/[1-9]_*.json", "MLVU/json/[1-9]_*.json", "*.parquet"),
    columns=("question",),
    item_of=item_of,
    media=("", "video", "MLVU/video", *_TASKS),
    layout="JUNJIE99/MLVU 2d80156, Evaluation_Test/test_bench.py; "
    "EvolvingLMMs-Lab/lmms-eval 025f016, lmms_eval/tasks/mlvu/utils.py",
)
