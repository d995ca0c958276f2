"""OCRBench and TextVQA: text in one image, answered in a few words.

OCRBench: `{dataset, question, question_type, answer, image}`, any of the answers. TextVQA:
`{question_id, question, answers, image}`, the answers of ten people.
"""

from __future__ import annotations

from pipeline.sources.benchmarks.item import (
    Benchmark,
    BenchmarkItem,
    axes,
    free_answers,
    image_of,
    text_of,
)
from pipeline.sources.fields import Row


def ocrbench(name: str, row: Row) -> BenchmarkItem:
    """One question of OCRBench."""
    return BenchmarkItem(
        id=name,
        media=(image_of(row, "image"),),
        question=text_of(row, "question"),
        answers=free_answers(row["answer"]),
        groups=axes(type=row["question_type"], dataset=row["dataset"]),
    )


def textvqa(name: str, row: Row) -> BenchmarkItem:
    """One question of TextVQA."""
    return BenchmarkItem(
        id=name,
        media=(image_of(row, "image"),),
        question=text_of(row, "question").capitalize(),
        answers=free_answers(row["answers"]),
        # as lmms-eval asks it
    )


OCRBENCH = Benchmark(
    name="ocrbench",
    annotations=("data/test-*.parquet", "test-*.parquet"),
    columns=("dataset", "question", "question_type", "answer", "image"),
    item_of=ocrbench,
    kind="image",
    layout="EvolvingLMMs-Lab/lmms-eval 46a88d8, lmms_eval/tasks/ocrbench/utils.py",
)
TEXTVQA = Benchmark(
    name="textvqa_val",
    annotations=("data/validation-*.parquet", "validation-*.parquet"),
    training=("data/train-*.parquet", "train-*.parquet"),
    columns=("question_id", "question", "answers", "image"),
    item_of=textvqa,
    kind="image",
    id_columns=("question_id",),
    layout="EvolvingLMMs-Lab/lmms-eval 03b2f7c, lmms_eval/tasks/textvqa/utils.py",
)
