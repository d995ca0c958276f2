"""EgoSchema: five options about three minutes seen by a person; most answers are not public.

`{question_idx, question, video_idx, option, answer}`: options bear their letters, the answer is
an option's number from 0 and null where it is not public. A submission maps `video_idx` to it.
"""

from __future__ import annotations

from pipeline.sources.benchmarks.item import (
    Benchmark,
    BenchmarkItem,
    bare_options,
    letter_of,
    stem_video,
    text_of,
    texts_of,
)
from pipeline.sources.fields import Row


def item_of(name: str, row: Row) -> BenchmarkItem:
    """One question."""
    options = texts_of(row["option"], "option")
    return BenchmarkItem(
        id=name,
        media=(stem_video(row["video_idx"]),),
        question=text_of(row, "question"),
        options=bare_options(options) or options,
        answers=letter_of(row["answer"], len(options)),
    )


BENCHMARK = Benchmark(
    name="egoschema",
    annotations=("Subset/test-*.parquet", "MC/test-*.parquet", "*.parquet"),
    columns=("question_idx", "question", "video_idx", "option", "answer"),
    item_of=item_of,
    id_columns=("video_idx",),
    layout="EvolvingLMMs-Lab/lmms-eval 147ad5c, lmms_eval/tasks/egoschema/utils.py",
)
