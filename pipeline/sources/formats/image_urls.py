"""PixMo: Parquet rows that name an image by its address on the web.

`image_url, question, answer`, or `image_url, caption`, or `image_url, label, count`
(PixMo-Points and -Count: how many there are is asked, where they are is not). Rows without an id
are named by file and number. Addresses rot: what cannot be fetched is refused row by row.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.sources.fields import Row
from pipeline.sources.parquet_rows import rows
from pipeline.sources.questions import BRIEFLY, DESCRIBE_IMAGE, asked
from pipeline.sources.records import MediaRef, Record, RowRefusal, kept, refusal
from pipeline.untrusted import Problem

QUESTIONS = ("image_url", "question", "answer")
CAPTIONS = ("image_url", "caption")
COUNTS = ("image_url", "label", "count")


def read(annotations: Path) -> Iterator[Record | RowRefusal]:
    """Records of a Parquet file, or of every `*.parquet` of a folder in order of their names."""
    for path, number, row in rows(annotations, [QUESTIONS, CAPTIONS, COUNTS], 256):
        label = f"{path.stem}#{number}"
        yield (
            kept(label, row, _reads(row), _record) if isinstance(row, dict) else refusal(label, row)
        )


def _reads(row: Row) -> dict[str, tuple[str, ...]]:
    """What is read of a row: the columns of the first form that it has."""
    forms = (QUESTIONS, CAPTIONS, COUNTS)
    return dict.fromkeys(next(form for form in forms if set(form) <= set(row)), ())


def _record(name: str, row: Row) -> Record | RowRefusal:
    if not isinstance(row["image_url"], str) or not row["image_url"]:
        return refusal(name, Problem("ROW_WRONG_TYPE", "image_url is not text"))
    media = MediaRef(kind="image", url=row["image_url"])
    form = [*_reads(row)]
    if form == [*CAPTIONS]:
        return asked(name, media, DESCRIBE_IMAGE, row["caption"])
    if form == [*COUNTS]:
        return _counted(name, media, row["label"], row["count"])
    return asked(name, media, row["question"], row["answer"])


def _counted(name: str, medium: MediaRef, label: object, count: object) -> Record | RowRefusal:
    if not isinstance(label, str) or not label.strip() or type(count) is not int:
        return refusal(name, Problem("ROW_WRONG_TYPE", "label is no text, or count no number"))
    return asked(name, medium, f'How many of "{label.strip()}" are there?\n{BRIEFLY}', str(count))
