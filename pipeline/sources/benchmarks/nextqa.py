"""NExT-QA, multiple choice: five options, scored over causal, temporal and descriptive questions.

`{video, question, answer, qid, type, a0..a4}` as CSV or Parquet; `answer` counts from 0, `video` is
a number, and the first letter of `type` (CW, TN, DC, ...) names the kind of question.
"""

from __future__ import annotations

from pipeline.sources.benchmarks.item import (
    Benchmark,
    BenchmarkItem,
    axes,
    letter_of,
    stem_video,
    text_of,
    texts_of,
)
from pipeline.sources.fields import Row

_KINDS = {"C": "causal", "T": "temporal", "D": "descriptive"}
_OPTIONS = ("a0", "a1", "a2", "a3", "a4")


def item_of(name: str, row: Row) -> BenchmarkItem:
    """One question; `qid` counts within its video, whose number leads the name."""
    options = texts_of([row[key] for key in _OPTIONS], "options")
    kind = str(row["type"])
    return BenchmarkItem(
        id=f"{name}:{row['video']}",
        media=(stem_video(row["video"]),),
        question=text_of(row, "question"),
        options=options,
        answers=letter_of(row["answer"], len(options)),
        groups=axes(kind=_KINDS.get(kind[:1]), type=kind),
    )


BENCHMARK = Benchmark(
    name="nextqa_mc",
    annotations=("MC/test-*.parquet", "test.csv", "nextqa/test.csv"),
    columns=("video", "question", "answer", "qid", "type", *_OPTIONS),
    item_of=item_of,
    id_columns=("qid",),
    media=("NExTVideo", "videos", ""),
    training=("train.csv", "nextqa/train.csv"),
    layout="EvolvingLMMs-Lab/lmms-eval 0a589d6, lmms_eval/tasks/nextqa/utils.py",
)
