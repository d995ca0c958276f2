"""LLaVA-style annotations: a JSON list, or JSONL, of {id, image | video, conversations}.

The form of mix665k, LLaVA-Video-178K and most others, in the variants their publishers use; also
{messages, images, videos, system}, as ms-swift, LLaMA-Factory, Qwen and TRL name them, and TRL's
{prompt, completion}, whose prompt has no loss. The n-th `<image>` stands for the n-th image, the
n-th `<video>` for the n-th video. A row with one video may carry its span in seconds:
`span: [start, end]`, or the fields `start` and `end`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.sources.fields import Row, is_empty
from pipeline.sources.json_rows import row_record, rows
from pipeline.sources.records import (
    MediaRef,
    Record,
    RowRefusal,
    check,
    read_name,
    read_span,
    refusal,
)
from pipeline.sources.turns import MEDIUM_FIELDS, TURN_FIELDS, read_talk
from pipeline.untrusted import Problem

Media = tuple[MediaRef, ...] | Problem
TALKS = ("conversations", "messages")
COMPLETED = ("prompt", "completion")
READS = (
    dict.fromkeys("id span start end system licence license".split(), ())
    | dict.fromkeys(("image", "images", "video", "videos"), MEDIUM_FIELDS)
    | dict.fromkeys(TALKS, TURN_FIELDS)
)


def read(annotations: Path) -> Iterator[Record | RowRefusal]:
    """Records of a list or of lines; a row without an id is named by its number."""
    for number, row in enumerate(rows(annotations)):
        yield row_record(completed(row), number, record, READS, "id")


def record(
    name: str, row: Row, read_media: Callable[[Row], Media] | None = None
) -> Record | RowRefusal:
    """The record of one row; `read_media` finds its media where they are not named as usual."""
    talk = talk_of(row)
    if isinstance(talk, Problem):
        return refusal(name, talk)
    media = (read_media or named_media)(row)
    if isinstance(media, Problem):
        return refusal(name, media)
    talk_and_media = read_talk(talk, media, row.get("system"))
    if isinstance(talk_and_media, Problem):
        return refusal(name, talk_and_media)
    turns, ordered = talk_and_media
    licence = row.get("licence", row.get("license"))
    stated = licence if isinstance(licence, str) else ""
    return check(Record(record=name, turns=turns, media=ordered, licence=stated))


def talk_of(row: Row) -> Any | Problem:
    """The published turns of a row, under whatever name they stand."""
    # two lists of turns in one row may differ: neither is preferred
    present = [name for name in TALKS if not is_empty(row.get(name))]
    if len(present) > 1:
        return Problem("ROW_WRONG_TYPE", "holds both conversations and messages")
    name = next((name for name in (*present, *TALKS) if name in row), None)
    return Problem("ROW_MISSING_FIELD", "no conversations") if name is None else row[name]


def completed(row: Row | Problem) -> Row | Problem:
    """A row of a prompt, of which nothing is learned, and what completes it, as one of messages."""
    if isinstance(row, Problem) or not set(COMPLETED) <= set(row) or set(TALKS) & set(row):
        return row
    prompt, completion = (row[name] for name in COMPLETED)
    if isinstance(prompt, str) and isinstance(completion, str):
        prompt = [{"role": "user", "content": prompt}]
        completion = [{"role": "assistant", "content": completion}]
    if not isinstance(prompt, list) or not isinstance(completion, list):
        return Problem("ROW_WRONG_TYPE", "prompt and completion are neither texts nor turns")
    # nothing of a prompt is learned (TRL's completion-only loss)
    unlearned = [turn | {"loss": 0} if isinstance(turn, dict) else turn for turn in prompt]
    rest = {name: value for name, value in row.items() if name not in COMPLETED}
    return rest | {"messages": [*unlearned, *completion]}


def named_media(row: Row) -> Media:
    """The media a row names, its images first; none of a row of text only."""
    media: list[MediaRef] = []
    for kind in ("image", "video"):
        # singular and plural are both in use; a row with both is ambiguous
        named = [name for name in (kind, f"{kind}s") if not is_empty(row.get(name))]
        if len(named) > 1:
            return Problem("ROW_WRONG_TYPE", f"names both {' and '.join(named)}")
        items = _named(kind, named[0], row[named[0]]) if named else ()
        if isinstance(items, Problem):
            return items
        media += items
    return spanned(media, row_span(row))


def _named(kind: str, field: str, value: Any) -> Media:
    values = value if isinstance(value, list) else [value]
    if field == "video" and len(values) != 1:
        return Problem("ROW_WRONG_TYPE", f"video is a list of {len(values)}")
    media = []
    for number, item in enumerate(values):
        if is_empty(item):
            return Problem("MEDIA_EMPTY", f"{kind} {number} of {field} names nothing")
        path = item.get("path") if isinstance(item, dict) and is_empty(item.get("bytes")) else item
        name = read_name(path)
        if isinstance(name, Problem):
            return name
        media.append(MediaRef(kind=kind, name=name))
    return tuple(media)


def spanned(media: Sequence[MediaRef], span: tuple[int, int] | Problem | None) -> Media:
    """The media with the span of their row, which is that of its only medium or video."""
    if span is None or isinstance(span, Problem):
        return span or tuple(media)
    # the span is the video's; without a video that of the only medium
    candidates = [ref for ref in media if ref.kind == "video"] or media
    if len(candidates) != 1:
        return Problem("SPAN_INVALID", f"one span, {len(candidates)} media")
    return tuple(replace(ref, span=span) if ref is candidates[0] else ref for ref in media)


def row_span(row: Row) -> tuple[int, int] | Problem | None:
    """The span of a row in microseconds, from `start` and `end` or from `span`."""
    has_ends = row.get("start") is not None or row.get("end") is not None
    return read_span([row.get("start"), row.get("end")] if has_ends else row.get("span"))
