"""NExT-QA and NExT-OE: CSV files of questions about `<video>.mp4`.

Multiple choice: `video,frame_count,width,height,question,answer,qid,type,a0..a4`, `answer` is the
0-based index of an option. Open-ended (NExT-OE): no a0..a4, `answer` is text.
`qid` is unique per video only, so a record is named `<video>/<qid>`; `video` is text, not a number.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from pipeline.sources.questions import asked, lettered
from pipeline.sources.records import MediaRef, Record, RowRefusal, read_name, refusal
from pipeline.untrusted import Problem
from shards.errors import UserError

COLUMNS = ("video", "question", "answer", "qid", "type")
OPTIONS = ("a0", "a1", "a2", "a3", "a4")

Row = dict[str, str]


def read(annotations: Path) -> Iterator[Record | RowRefusal]:
    """Records of a NExT-QA or NExT-OE file."""
    # Bytes that are not UTF-8 become half surrogates, which refuse their row and not the file.
    with annotations.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        lines = csv.reader(file, strict=True)
        header = _header(lines, annotations)
        for number, cells in enumerate(_rows(lines)):
            label = f"#{number}"
            if isinstance(cells, Problem):
                yield refusal(label, cells)
            elif len(cells) != len(header):
                counted = f"{len(cells)} cells, the header names {len(header)}"
                yield refusal(label, Problem("ROW_MISSING_FIELD", counted))
            else:
                yield _record(dict(zip(header, cells, strict=True)), label)


def _header(lines: Iterator[list[str]], path: Path) -> list[str]:
    header = next(_rows(lines), [])
    if isinstance(header, Problem) or not set(COLUMNS) <= set(header):
        raise UserError(
            f"{path}: not a NExT-QA table: the header needs {', '.join(COLUMNS)}; "
            "choose another 'format' in the recipe"
        )
    return header


def _rows(lines: Iterator[list[str]]) -> Iterator[list[str] | Problem]:
    """The rows of a CSV reader; it starts afresh on the line after one that it refuses."""
    while True:
        try:
            yield next(lines)
        except StopIteration:
            return
        except csv.Error as error:
            code = (
                "ROW_TOO_LONG" if "larger than field limit" in str(error) else "ROW_MISSING_FIELD"
            )
            yield Problem(code, str(error)[:100])


def _record(row: Row, label: str) -> Record | RowRefusal:
    if any("\udc80" <= c <= "\udcff" for cell in row.values() for c in cell):
        return refusal(label, Problem("ROW_NOT_UTF8", "holds bytes that are not UTF-8"))
    if not row["video"].strip() or not row["qid"].strip():
        return refusal(label, Problem("ROW_EMPTY_ID", "video or qid is blank"))
    name = f"{row['video']}/{row['qid']}"
    said = _choice(row) if set(OPTIONS) <= set(row) else (row["question"], row["answer"])
    if isinstance(said, Problem):
        return refusal(name, said)
    media = read_name(f"{row['video']}.mp4")
    if isinstance(media, Problem):
        return refusal(name, media)
    return asked(name, MediaRef(kind="video", name=media), *said)


def _choice(row: Row) -> tuple[str, str] | Problem:
    """(question with its options as lettered lines, letter of the answer)."""
    options = [row[name].strip() for name in OPTIONS]
    while options and not options[-1]:
        options.pop()
    index = row["answer"].strip()
    if not (index.isascii() and index.isdigit() and int(index[:4]) < len(options)):
        return Problem("ROW_BAD_ANSWER", f"answer {index[:40]!r}, {len(options)} options")
    return lettered(row["question"], options, int(index))
