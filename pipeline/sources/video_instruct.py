"""VideoInstruct-100K and VCG+112K: a list of `{video_id, q, a}`, one question each.

Videos are ActivityNet's, `<video_id>` with any ending; those that are gone are refused one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.records import Problem, Record, RowRefusal, field_problem, refusal
from pipeline.sources.json_rows import rows
from pipeline.sources.questions import asked, video_file


def read(annotations: Path) -> Iterator[Record | RowRefusal]:
    """One record per question, named `<video_id>#<number>`: rows have no ids."""
    for number, row in enumerate(rows(annotations)):
        yield _record(row, number)


def _record(row: dict[str, Any] | Problem, number: int) -> Record | RowRefusal:
    if isinstance(row, Problem):
        return refusal(f"#{number}", row)
    if problem := field_problem(row, ["video_id", "q", "a"]):
        return refusal(f"#{number}", problem)
    return asked(f"{row['video_id']}#{number}", video_file(row["video_id"]), row["q"], row["a"])
