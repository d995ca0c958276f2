"""PixMo: Parquet rows that name an image by its address on the web.

`image_url, caption` or `image_url, question, answer`; rows without an id are named by file and
number. Addresses rot: what cannot be fetched is refused row by row.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.records import MediaRef, Problem, Record, RowRefusal, refusal
from pipeline.sources.parquet_rows import Row, rows
from pipeline.sources.questions import asked

CAPTIONS = ("image_url", "caption")
QUESTIONS = ("image_url", "question", "answer")
DESCRIBE = "Describe this image in detail."


def read(annotations: Path) -> Iterator[Record | RowRefusal]:
    """Records of a Parquet file, or of every `*.parquet` of a folder in order of their names."""
    for path, number, row in rows(annotations, [QUESTIONS, CAPTIONS], 256):
        yield _record(f"{path.stem}#{number}", row)


def _record(name: str, row: Row | Problem) -> Record | RowRefusal:
    if isinstance(row, Problem):
        return refusal(name, row)
    if not isinstance(row["image_url"], str) or not row["image_url"]:
        return refusal(name, Problem("ROW_WRONG_TYPE", "image_url is not text"))
    media = MediaRef(kind="image", url=row["image_url"])
    if "caption" in row:
        return asked(name, media, DESCRIBE, row["caption"])
    return asked(name, media, row["question"], row["answer"])
