"""The project's own synthetic set of eight temporal axes, as `python -m benchmarks temporal` makes
it: `{id, video, axis, question, options, answer}` a line, the answer an option's number from 0.
"""

from __future__ import annotations

from pipeline.sources.benchmarks.item import (
    Benchmark,
    BenchmarkItem,
    axes,
    letter_of,
    named_video,
    text_of,
    texts_of,
)
from pipeline.sources.fields import Row


def item_of(name: str, row: Row) -> BenchmarkItem:
    """One question."""
    options = texts_of(row["options"], "options")
    return BenchmarkItem(
        id=name,
        media=(named_video(row["video"]),),
        question=text_of(row, "question"),
        options=options,
        answers=letter_of(row["answer"], len(options)),
        groups=axes(task=row["axis"]),
    )


BENCHMARK = Benchmark(
    name="temporal",
    annotations=("temporal.jsonl",),
    columns=("id", "video", "axis", "question", "options", "answer"),
    item_of=item_of,
    id_columns=("id",),
    media=("videos",),
    layout="this project's benchmarks/inputs/temporal_set.py",
)
