"""FineVideo: Parquet rows of `mp4` (the bytes of a video) and `json` (what is known about it).

A row becomes one conversation: its `qAndA` in turn or, where there is none, its description.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.sources.fields import Row
from pipeline.sources.parquet_rows import rows
from pipeline.sources.questions import DESCRIBE
from pipeline.sources.records import (
    MAX_TURNS,
    MediaRef,
    Record,
    RowRefusal,
    check,
    embedded,
    kept,
    refusal,
    spoken_text,
)
from pipeline.untrusted import Problem
from shards.sample import Turn

COLUMNS = ("mp4", "json")
READS: dict[str, tuple[str, ...]] = dict.fromkeys(COLUMNS, ())


def read(annotations: Path) -> Iterator[Record | RowRefusal]:
    """Records of a Parquet file or a folder of them, one row in memory: a row is a whole video."""
    for path, number, row in rows(annotations, [COLUMNS], 1):
        label = f"{path.stem}#{number}"
        record_of = partial(_record, address=embedded(path, number, 0))
        yield kept(label, row, READS, record_of) if isinstance(row, dict) else refusal(label, row)


def _record(name: str, row: Row, address: str) -> Record | RowRefusal:
    if not isinstance(row["mp4"], bytes) or not isinstance(row["json"], dict):
        return refusal(name, Problem("ROW_WRONG_TYPE", "mp4 is not bytes, or json no object"))
    turns = _turns(row["json"])
    if isinstance(turns, Problem):
        return refusal(name, turns)
    media = MediaRef(kind="video", data=row["mp4"], address=address)
    return check(Record(record=name, turns=turns, media=(media,)))


def _turns(metadata: dict[str, Any]) -> tuple[Turn, ...] | Problem:
    pairs = metadata.get("qAndA") or []
    if not isinstance(pairs, list) or not all(isinstance(pair, dict) for pair in pairs):
        return Problem("ROW_WRONG_TYPE", "qAndA is not a list of objects")
    if 2 * len(pairs) > MAX_TURNS:
        return Problem("TURNS_TOO_MANY", f"{2 * len(pairs)} turns")
    # a video without questions is described
    about = metadata.get("content_metadata")
    description = about.get("description") if isinstance(about, dict) else None
    spoken = [(pair.get("question"), pair.get("answer")) for pair in pairs]
    turns = []
    for number, pair in enumerate(spoken or [(DESCRIBE, description)]):
        texts = [spoken_text(value, f"qAndA[{number}]") for value in pair]
        for text in texts:
            if isinstance(text, Problem):
                return text
        places = ((0, 0),) if number == 0 else ()
        turns += [
            Turn(role="user", text=str(texts[0]), media=places),
            Turn(role="assistant", text=str(texts[1])),
        ]
    return tuple(turns)
