"""VideoInstruct-100K and VCG+112K: a list of `{video_id, q, a}`, one question each.

Videos are ActivityNet's, `<video_id>` with any ending; those that are gone are refused one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.sources.fields import Row
from pipeline.sources.json_rows import records
from pipeline.sources.questions import asked, video_file
from pipeline.sources.records import Record, RowRefusal, field_problem, refusal

READS: dict[str, tuple[str, ...]] = {"video_id": (), "q": (), "a": ()}


def read(annotations: Path) -> Iterator[Record | RowRefusal]:
    """One record per question, named `<video_id>#<number>`: rows have no ids."""
    return records(annotations, _record, READS)


def _record(label: str, row: Row) -> Record | RowRefusal:
    if problem := field_problem(row, list(READS)):
        return refusal(label, problem)
    return asked(f"{row['video_id']}{label}", video_file(row["video_id"]), row["q"], row["a"])
