"""MMMU: college subjects, choices and open questions with up to seven images in the text.

Parquet: `{id, question, options, answer, question_type, subfield, image_1..image_7}`; `options` is
a list written as Python text, `<image N>` in question or options says where an image stands, and
the subject is in the id (`validation_Accounting_1`).
"""

from __future__ import annotations

import ast
import re

from pipeline.sources.benchmarks.item import (
    BadRow,
    Benchmark,
    BenchmarkItem,
    axes,
    image_of,
    letter_given,
    text_of,
    texts_of,
)
from pipeline.sources.fields import Row

_SUBJECT = re.compile(r"[a-z]+_(.+)_\d+")
_MARK = re.compile(r"<image (\d)>")
DOMAINS = {
    "Art and Design": ("Art", "Art_Theory", "Design", "Music"),
    "Business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "Science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "Health and Medicine": (
        *("Basic_Medical_Science", "Clinical_Medicine"),
        *("Diagnostics_and_Laboratory_Medicine", "Pharmacy", "Public_Health"),
    ),
    "Humanities and Social Science": ("History", "Literature", "Sociology", "Psychology"),
    "Tech and Engineering": (
        *("Agriculture", "Architecture_and_Engineering", "Computer_Science", "Electronics"),
        *("Energy_and_Power", "Materials", "Mechanical_Engineering"),
    ),
}
"""The authors' six disciplines and their thirty subjects."""
_DOMAIN_OF = {subject: domain for domain, subjects in DOMAINS.items() for subject in subjects}


def item_of(name: str, row: Row) -> BenchmarkItem:
    """One question; the images that its text and options name, in the order of their numbers."""
    question = text_of(row, "question")
    options = _options(row["options"]) if row["question_type"] == "multiple-choice" else ()
    numbers = sorted({int(n) for text in (question, *options) for n in _MARK.findall(text)})
    subject = _SUBJECT.fullmatch(str(row["id"]))
    return BenchmarkItem(
        id=name,
        media=tuple(image_of(row, f"image_{number}") for number in numbers),
        question=question,
        options=options,
        answers=_answers(row["answer"], options),
        groups=axes(
            domain=_DOMAIN_OF.get(subject[1]) if subject else None,
            subject=subject[1] if subject else None,
            type=row["question_type"],
        ),
    )


def _options(value: object) -> tuple[str, ...]:
    try:
        listed = ast.literal_eval(value) if isinstance(value, str) else value
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise BadRow("ROW_WRONG_TYPE", "options are no list") from error
    return texts_of(listed, "options")


def _answers(value: object, options: tuple[str, ...]) -> tuple[str, ...]:
    """A letter, or texts of which any is right; `?` stands where the test set hides them."""
    if value in (None, "", "?"):
        return ()
    if options:
        return letter_given(value, len(options))
    if isinstance(value, str) and value.startswith("["):
        return _options(value)
    return (str(value),)


BENCHMARK = Benchmark(
    name="mmmu_val",
    annotations=("data/validation-*.parquet", "*/validation-*.parquet", "validation-*.parquet"),
    columns=("id", "question", "options", "answer", "question_type"),
    item_of=item_of,
    kind="image",
    id_columns=("id",),
    layout="EvolvingLMMs-Lab/lmms-eval 02bc1c0, lmms_eval/tasks/mmmu/utils.py",
)
