"""MathVista (testmini): choices, numbers and lists over one image.

Parquet: `{pid, question, choices, unit, precision, answer, question_type, answer_type,
decoded_image, metadata}`; of a choice the answer is an option's text. The authors let a judge
find the answer in a long reply; replies here are short, and read by rule.
"""

from __future__ import annotations

from pipeline.sources.benchmarks.item import (
    Benchmark,
    BenchmarkItem,
    axes,
    image_of,
    letter_of_text,
    text_of,
    texts_of,
)
from pipeline.sources.fields import Row


def item_of(name: str, row: Row) -> BenchmarkItem:
    """One question; a unit is said behind it, as in the authors' prompts."""
    options = texts_of(row["choices"], "choices") if row["choices"] else ()
    question = text_of(row, "question")
    answer = row["answer"]
    metadata = row["metadata"] if isinstance(row.get("metadata"), dict) else {}
    free = () if answer in (None, "") else (str(answer).strip(),)
    return BenchmarkItem(
        id=name,
        media=(image_of(row, "decoded_image"),),
        question=f"{question} (Unit: {row['unit']})" if row.get("unit") else question,
        options=options,
        answers=letter_of_text(answer, options) if options else free,
        groups=axes(
            **{key: metadata.get(key) for key in ("task", "category", "context", "grade", "skills")}
        ),
        number="" if options else str(row["answer_type"]),
        precision=int(row.get("precision") or 0),
    )


BENCHMARK = Benchmark(
    name="mathvista",
    annotations=("data/testmini-*.parquet", "testmini-*.parquet"),
    columns=("pid", "question", "choices", "answer", "question_type", "answer_type"),
    item_of=item_of,
    kind="image",
    id_columns=("pid",),
    layout="EvolvingLMMs-Lab/lmms-eval 0229ae5, lmms_eval/tasks/mathvista/utils.py",
)
