"""CinePile: Parquet rows of multiple-choice questions about film clips that it only links to.

`yt_clip_link, question, choices, answer_key_position`. The videos are on a video site and are not
fetched: a row is used where its media hold `<video id>.mp4`, and refused where they do not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from pipeline.sources.fields import Row
from pipeline.sources.parquet_rows import rows
from pipeline.sources.questions import asked, lettered, video_file
from pipeline.sources.records import Record, RowRefusal, kept, refusal
from pipeline.untrusted import Problem

COLUMNS = ("yt_clip_link", "question", "choices", "answer_key_position")
READS: dict[str, tuple[str, ...]] = dict.fromkeys(COLUMNS, ())


def read(annotations: Path) -> Iterator[Record | RowRefusal]:
    """Records of a Parquet file, or of every `*.parquet` of a folder in order of their names."""
    for path, number, row in rows(annotations, [COLUMNS], 256):
        label = f"{path.stem}#{number}"
        yield kept(label, row, READS, _record) if isinstance(row, dict) else refusal(label, row)


def _record(name: str, row: Row) -> Record | RowRefusal:
    link, question, choices, index = (row[column] for column in COLUMNS)
    texts = isinstance(choices, list) and all(isinstance(choice, str) for choice in choices)
    if not texts or not isinstance(question, str) or type(index) is not int:
        return refusal(name, Problem("ROW_WRONG_TYPE", "question, choices or answer_key_position"))
    video = parse_qs(urlsplit(link).query).get("v") if isinstance(link, str) else None
    media = video_file(video[0] if video else None, link_only=True)
    question_and_answer = lettered(question, choices, index)
    return (
        refusal(name, question_and_answer)
        if isinstance(question_and_answer, Problem)
        else asked(name, media, *question_and_answer)
    )
