"""ShareGPT `messages`: `{messages: [{role, content}], images: [...], videos: [...]}`.

The form of ms-swift and LLaMA-Factory; `conversations` with {from, value} is read as well. The
n-th `<image>` stands for the n-th of `images`, the n-th `<video>` for the n-th of `videos`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.sources.json_rows import Row, records
from pipeline.sources.records import (
    MediaRef,
    Record,
    RowRefusal,
    check,
    read_name,
    read_turns,
    refusal,
)
from pipeline.untrusted import Problem

_PLACE = re.compile("<(image|video)>")


def read(annotations: Path) -> Iterator[Record | RowRefusal]:
    """Records of a list or of JSONL; a row without an id is named by its number."""
    return records(annotations, _record, "id")


def _record(name: str, row: Row) -> Record | RowRefusal:
    talk = row.get("messages", row.get("conversations"))
    if talk is None:
        return refusal(name, Problem("ROW_MISSING_FIELD", "no messages"))
    media = _media(row, talk)
    if isinstance(media, Problem):
        return refusal(name, media)
    turns = read_turns(talk, media)
    if isinstance(turns, Problem):
        return refusal(name, turns)
    return check(Record(record=name, turns=turns, media=media))


def _media(row: Row, talk: Any) -> tuple[MediaRef, ...] | Problem:
    """The media in the order in which the questions name them; unnamed ones stand last."""
    named: dict[str, list[MediaRef]] = {"image": [], "video": []}
    for kind, found in named.items():
        values = row.get(f"{kind}s") or []
        for value in values if isinstance(values, list) else [values]:
            name = read_name(value)
            if isinstance(name, Problem):
                return name
            found.append(MediaRef(kind=kind, name=name))
    turns = [turn for turn in talk if isinstance(turn, dict)] if isinstance(talk, list) else []
    texts = [turn.get("content", turn.get("value")) for turn in turns]
    places = [kind for text in texts if isinstance(text, str) for kind in _PLACE.findall(text)]
    ordered = [named[kind].pop(0) for kind in places if named[kind]]
    return (*ordered, *named["image"], *named["video"])
