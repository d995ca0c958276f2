"""LLaVA-style annotations: a JSON list, or JSONL, of {id, image | video, conversations}.

The form of mix665k, LLaVA-Video-178K and most others, in the variants their publishers use.
A video row may carry a span in seconds: `span: [start, end]`, or the fields `start` and `end`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.sources.json_rows import Row, records
from pipeline.sources.records import (
    MediaRef,
    Record,
    RowRefusal,
    check,
    field_problem,
    read_name,
    read_span,
    read_turns,
    refusal,
)
from pipeline.untrusted import Problem

Media = tuple[MediaRef, ...] | Problem
PREFERENCES = ("chosen", "rejected")


def read(annotations: Path) -> Iterator[Record | RowRefusal]:
    """Records of a `.json` list or a `.jsonl` file of one object per line."""
    return records(annotations, record, "id")


def record(
    name: str, row: Row, read_media: Callable[[Row], Media] | None = None
) -> Record | RowRefusal:
    """The record of one row; `read_media` finds its media where they are not named as usual."""
    if found := [key for key in PREFERENCES if key in row]:
        return refusal(name, Problem("ROW_PREFERENCE", f"holds {' and '.join(found)} answers"))
    if problem := field_problem(row, ["id", "conversations"]):
        return refusal(name, problem)
    media = (read_media or named_media)(row)
    if isinstance(media, Problem):
        return refusal(name, media)
    turns = read_turns(row["conversations"], media)
    if isinstance(turns, Problem):
        return refusal(name, turns)
    licence = row.get("licence", row.get("license"))
    own = licence if isinstance(licence, str) else ""
    return check(Record(record=name, turns=turns, media=media, licence=own))


def named_media(row: Row) -> Media:
    """The media a row names: one video, one image, a list of images, or none (text only)."""
    named = {kind: row[kind] for kind in ("image", "video") if row.get(kind) is not None}
    if not named:
        return ()
    if len(named) > 1:
        return Problem("ROW_WRONG_TYPE", "names both an image and a video")
    ((kind, value),) = named.items()
    values = value if isinstance(value, list) else [value]
    if kind == "video" and len(values) != 1:
        return Problem("ROW_WRONG_TYPE", f"video is a list of {len(values)}")
    span = row_span(row)
    if isinstance(span, Problem):
        return span
    media = []
    for each in values:
        name = read_name(each)
        if isinstance(name, Problem):
            return name
        media.append(MediaRef(kind=kind, name=name, span=span))
    return tuple(media)


def row_span(row: Row) -> tuple[int, int] | Problem | None:
    """The span of a row in microseconds, from `start` and `end` or from `span`."""
    has_ends = "start" in row or "end" in row
    return read_span([row.get("start"), row.get("end")] if has_ends else row.get("span"))
