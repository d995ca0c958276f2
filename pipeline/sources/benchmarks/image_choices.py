"""AI2D, ScienceQA and RealWorldQA: lettered options over one image.

AI2D: `{question, options, answer, image}`, the answer is an option's number as text. ScienceQA
(its questions with images): `{question, choices, answer, hint, image, subject, grade}`.
RealWorldQA: `{question, answer, image}`, the options are lines of some questions, whose last line
asks for a letter; the others are answered in a word.
"""

from __future__ import annotations

from pipeline.sources.benchmarks.item import (
    Benchmark,
    BenchmarkItem,
    axes,
    free_answers,
    image_of,
    letter_given,
    letter_of,
    split_options,
    text_of,
    texts_of,
)
from pipeline.sources.fields import Row

_ASKS = "Please answer directly with "


def ai2d(name: str, row: Row) -> BenchmarkItem:
    """One question of AI2D."""
    options = texts_of(row["options"], "options")
    return BenchmarkItem(
        id=name,
        media=(image_of(row, "image"),),
        question=text_of(row, "question"),
        options=options,
        answers=letter_of(row["answer"], len(options)),
    )


def scienceqa(name: str, row: Row) -> BenchmarkItem:
    """One question of ScienceQA, behind its hint."""
    options = texts_of(row["choices"], "choices")
    hint = row["hint"]
    question = text_of(row, "question")
    return BenchmarkItem(
        id=name,
        media=(image_of(row, "image"),),
        question=f"Context: {hint}\n{question}" if hint else question,
        options=options,
        answers=letter_of(row["answer"], len(options)),
        groups=axes(subject=row.get("subject"), grade=row.get("grade"), topic=row.get("topic")),
    )


def realworldqa(name: str, row: Row) -> BenchmarkItem:
    """One question of RealWorldQA, without the line that says how to answer."""
    lines = text_of(row, "question").split("\n")
    question, options = split_options("\n".join(x for x in lines if not x.startswith(_ASKS)))
    answer = row["answer"]
    return BenchmarkItem(
        id=name,
        media=(image_of(row, "image"),),
        question=question,
        options=options,
        answers=letter_given(answer, len(options)) if options else free_answers(answer),
    )


AI2D = Benchmark(
    name="ai2d",
    annotations=("data/test-*.parquet", "test-*.parquet"),
    columns=("question", "options", "answer", "image"),
    item_of=ai2d,
    kind="image",
    layout="EvolvingLMMs-Lab/lmms-eval 0312cf2, lmms_eval/tasks/ai2d/utils.py",
)
SCIENCEQA = Benchmark(
    name="scienceqa_img",
    annotations=("ScienceQA-IMG/test-*.parquet", "test-*.parquet"),
    training=("ScienceQA-IMG/train-*.parquet", "train-*.parquet"),
    columns=("question", "choices", "answer", "hint", "image"),
    item_of=scienceqa,
    kind="image",
    layout="EvolvingLMMs-Lab/lmms-eval 2f636e7, lmms_eval/tasks/scienceqa/utils.py",
)
REALWORLDQA = Benchmark(
    name="realworldqa",
    annotations=("data/test-*.parquet", "test-*.parquet"),
    columns=("question", "answer", "image"),
    item_of=realworldqa,
    kind="image",
    layout="EvolvingLMMs-Lab/lmms-eval 001eca0, lmms_eval/tasks/realworldqa/utils.py",
)
