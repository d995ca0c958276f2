"""NExT-QA and NExT-OE: CSV files of questions about `<video>.mp4`.

Multiple choice: `video,frame_count,width,height,question,answer,qid,type,a0..a4`, `answer` is the
0-based index of an option. Open-ended (NExT-OE): no a0..a4, `answer` is text.
`qid` is unique per video only, so a record is named `<video>/<qid>`; `video` is text, not a number.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.sources.csv_rows import rows
from pipeline.sources.fields import Row
from pipeline.sources.questions import asked, lettered
from pipeline.sources.records import MediaRef, Record, RowRefusal, kept, read_name, refusal
from pipeline.untrusted import Problem

COLUMNS = ("video", "question", "answer", "qid", "type")
OPTIONS = ("a0", "a1", "a2", "a3", "a4")

READS: dict[str, tuple[str, ...]] = dict.fromkeys((*COLUMNS, *OPTIONS), ())


def read(annotations: Path) -> Iterator[Record | RowRefusal]:
    """Records of a NExT-QA or NExT-OE file."""
    for number, row in enumerate(rows(annotations, COLUMNS)):
        label = f"#{number}"
        yield kept(label, row, READS, _record) if isinstance(row, dict) else refusal(label, row)


def _record(label: str, row: Row) -> Record | RowRefusal:
    if not row["video"].strip() or not row["qid"].strip():
        return refusal(label, Problem("ROW_EMPTY_ID", "video or qid is blank"))
    name = f"{row['video']}/{row['qid']}"
    question_and_answer = (
        _choice(row) if set(OPTIONS) <= set(row) else (row["question"], row["answer"])
    )
    if isinstance(question_and_answer, Problem):
        return refusal(name, question_and_answer)
    media = read_name(f"{row['video']}.mp4")
    if isinstance(media, Problem):
        return refusal(name, media)
    return asked(name, MediaRef(kind="video", name=media), *question_and_answer)


def _choice(row: Row) -> tuple[str, str] | Problem:
    """(question with its options as lettered lines, letter of the answer)."""
    options = [row[name].strip() for name in OPTIONS]
    while options and not options[-1]:
        options.pop()
    # an answer of many digits is not converted
    index = row["answer"].strip()
    if not (index.isascii() and index.isdigit() and int(index[:4]) < len(options)):
        return Problem("ROW_BAD_ANSWER", f"answer {index[:40]!r}, {len(options)} options")
    return lettered(row["question"], options, int(index))
