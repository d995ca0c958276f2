"""VideoChat2-IT: `[{video | image, QA: [{i, q, a}], start, end}]`, one file per task.

`i` is an instruction (only the first one is used, as its authors do), `q` a question, empty for
captions; `start` and `end` bound a clip in seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.sources.fields import Reads, Row
from pipeline.sources.formats.llava_json import named_media
from pipeline.sources.json_rows import records
from pipeline.sources.records import (
    MAX_TURNS,
    Record,
    RowRefusal,
    check,
    field_problem,
    refusal,
    spoken_text,
)
from pipeline.sources.turns import MEDIUM_FIELDS
from pipeline.untrusted import Problem
from shards.sample import Turn

READS: Reads = (
    dict.fromkeys("span start end".split(), ())
    | dict.fromkeys("image images video videos".split(), MEDIUM_FIELDS)
    | {"QA": ("i", "q", "a")}
)


def read(annotations: Path) -> Iterator[Record | RowRefusal]:
    """One record per row, named by its medium and its number: rows have no ids."""
    return records(annotations, _record, READS)


def _record(label: str, row: Row) -> Record | RowRefusal:
    named = row.get("video", row.get("image"))
    # rows have no ids: the medium and the row's number name them
    name = f"{named}{label}" if isinstance(named, str) else label
    if problem := field_problem(row, ["QA"]):
        return refusal(name, problem)
    media = named_media(row)
    if isinstance(media, Problem):
        return refusal(name, media)
    turns = _turns(row["QA"], len(media))
    if isinstance(turns, Problem):
        return refusal(name, turns)
    return check(Record(record=name, turns=turns, media=media))


def _turns(value: Any, num_media: int) -> tuple[Turn, ...] | Problem:
    if not isinstance(value, list) or not all(isinstance(pair, dict) for pair in value):
        return Problem("ROW_WRONG_TYPE", "QA is not a list of objects")
    if 2 * len(value) > MAX_TURNS:
        return Problem("TURNS_TOO_MANY", f"{2 * len(value)} turns")
    turns = []
    for number, pair in enumerate(value):
        # the authors train with the first instruction only
        parts = [(pair.get("i") or "") if number == 0 else "", pair.get("q") or ""]
        texts = [spoken_text(part, f"QA[{number}]") for part in (*parts, pair.get("a"))]
        for text in texts:
            if isinstance(text, Problem):
                return text
        question = "\n".join(str(text) for text in texts[:2] if text)
        places = tuple((i, 0) for i in range(num_media)) if number == 0 else ()
        turns += [
            Turn(role="user", text=question, media=places),
            Turn(role="assistant", text=str(texts[2])),
        ]
    return tuple(turns)
