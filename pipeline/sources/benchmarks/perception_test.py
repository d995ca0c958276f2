"""Perception Test, multiple choice: three options, scored by area and by reasoning.

The authors' JSON (`{video: {metadata, mc_question: [...]}}`, a question as
pipeline.sources.formats.perceptiontest reads it) or a Parquet copy of the validation split, a row a
question. Cup games show their answer at the end: their videos must be those that the publisher has
cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.sources.benchmarks.item import (
    Benchmark,
    BenchmarkItem,
    axes,
    letter_of,
    rows_of,
    stem_video,
    text_of,
    texts_of,
)
from pipeline.sources.fields import Row
from pipeline.sources.json_rows import whole
from pipeline.sources.text_files import suffix_of
from pipeline.untrusted import Problem

_COLUMNS = ("video_name", "question", "question_id", "options", "answer_id")


def rows(path: Path) -> Iterator[Row | Problem]:
    """A row for each question of each video."""
    if suffix_of(path) == ".parquet":
        yield from rows_of(path, _COLUMNS)
        return
    for video, entry in whole(path).items():
        questions = entry.get("mc_question") if isinstance(entry, dict) else None
        if not isinstance(questions, list):
            yield Problem("ROW_MISSING_FIELD", f"{video}: no list mc_question")
            continue
        for question in questions:
            fields = question if isinstance(question, dict) else {}
            yield {"video_name": video, "question_id": fields.get("id"), **fields}


def item_of(name: str, row: Row) -> BenchmarkItem:
    """One question."""
    options = texts_of(row.get("options"), "options")
    return BenchmarkItem(
        id=f"{name}:{row['video_name']}",
        media=(stem_video(row["video_name"]),),
        question=text_of(row, "question"),
        options=options,
        answers=letter_of(row.get("answer_id"), len(options)),
        groups=axes(area=row.get("area"), reasoning=row.get("reasoning"), tag=row.get("tag")),
    )


BENCHMARK = Benchmark(
    name="perception_test_mc",
    annotations=("mc_question_val/*.parquet", "mc_question_valid.json", "*.parquet"),
    columns=_COLUMNS,
    item_of=item_of,
    rows=rows,
    training=("mc_question_train.json", "all_train.json"),
    layout="EvolvingLMMs-Lab/lmms-eval 06f392e, lmms_eval/tasks/perceptiontest/val/utils.py",
)
