"""ActivityNet-QA: short free answers, by the authors' nine types, compared as texts.

A Parquet copy with a row a question (`{video_name, question_id, question, answer, type}`). Videos
are `v_<video_name>` with any ending.
"""

from __future__ import annotations

from pipeline.sources.benchmarks.item import (
    Benchmark,
    BenchmarkItem,
    axes,
    free_answers,
    stem_video,
    text_of,
)
from pipeline.sources.fields import Row


def item_of(name: str, row: Row) -> BenchmarkItem:
    """One question; published without a question mark."""
    return BenchmarkItem(
        id=name,
        media=(stem_video(f"v_{row['video_name']}"),),
        question=f"{text_of(row, 'question').rstrip('?').rstrip()}?",
        answers=free_answers(row["answer"]),
        groups=axes(type=row["type"]),
    )


BENCHMARK = Benchmark(
    name="activitynet_qa_test",
    annotations=("data/test-*.parquet", "Generation/test-*.parquet", "*.parquet"),
    columns=("video_name", "question_id", "question", "answer", "type"),
    item_of=item_of,
    media=("all_test", "videos", ""),
    layout="EvolvingLMMs-Lab/lmms-eval 0863814, lmms_eval/tasks/activitynetqa/utils.py",
)
