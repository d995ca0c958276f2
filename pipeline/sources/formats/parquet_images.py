"""Parquet files with embedded images or videos, told apart by the names of their columns.

LLaVA-OneVision-Data: `id, image {bytes, path} or null, conversations, data_source`.
The Cauldron and FineVision: `images [{bytes, path}], texts [{user, assistant}]`, no placeholders:
all images stand before the first question (nanoVLM's data/datasets.py does the same).
TRL and others: `messages`, or `prompt` and `completion`, and `image`, `images`, `video`, `videos`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.sources.fields import MEDIA_FIELDS, Row, is_empty
from pipeline.sources.formats import llava_json
from pipeline.sources.parquet_rows import rows
from pipeline.sources.records import (
    MAX_TURNS,
    MediaRef,
    Record,
    RowRefusal,
    check,
    embedded,
    kept,
    read_id,
    read_name,
    refusal,
)
from pipeline.sources.turns import before_first_question
from pipeline.untrusted import Problem
from shards.sample import Turn

FORMS = [("conversations",), ("texts",), ("messages",), ("prompt", "completion")]
READS = llava_json.READS | {"texts": ("user", "assistant")}
_BATCH = 8  # rows in memory: of a hostile file each may be large
_STRAY = re.compile(r"<image>\n?")


def read(annotations: Path) -> Iterator[Record | RowRefusal]:
    """Records of a Parquet file, or of every `*.parquet` of a folder in order of their names."""
    for path, number, row in rows(annotations, FORMS, _BATCH, _is_read):
        yield _read(path, number, llava_json.completed(row))


def _is_read(column: pa.Field) -> bool:
    return column.name in READS or column.name in MEDIA_FIELDS


def _read(path: Path, number: int, row: Row | Problem) -> Record | RowRefusal:
    """One row as a record; a row without an id is named by its file and number."""
    label = f"{path.stem}#{number}"
    if isinstance(row, Problem):
        return refusal(label, row)
    name = label if row.get("id") is None else read_id(row["id"])
    if isinstance(name, Problem):
        return refusal(label, name)
    return kept(name, row, READS, partial(_record, path=path, number=number))


def _record(name: str, row: Row, path: Path, number: int) -> Record | RowRefusal:
    if "texts" not in row:
        return llava_json.record(name, row, partial(_media, path=path, number=number))
    media = _media(row, path, number)
    if isinstance(media, Problem):
        return refusal(name, media)
    turns = _pairs(row["texts"], len(media))
    if isinstance(turns, Problem):
        return refusal(name, turns)
    return check(Record(record=name, turns=turns, media=media))


def _media(row: Row, path: Path, number: int) -> tuple[MediaRef, ...] | Problem:
    """The images of a row, then its videos: none, one struct, or a list of structs."""
    media: list[MediaRef] = []
    for kind in ("image", "video"):
        named = [name for name in (kind, f"{kind}s") if row.get(name) not in (None, [], "")]
        if len(named) > 1:
            return Problem("ROW_WRONG_TYPE", f"names both {' and '.join(named)}")
        for column in named:
            values = row[column] if isinstance(row[column], list) else [row[column]]
            for i, value in enumerate(values):
                item = medium(kind, value, partial(embedded, path, number, i, column))
                if isinstance(item, Problem):
                    return item
                media.append(item)
    return llava_json.spanned(media, llava_json.row_span(row))


def medium(kind: str, value: Any, address: Callable[[], str]) -> MediaRef | Problem:
    """What a cell holds of one medium: its bytes, which `address()` finds again, or its path."""
    data = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(data, bytes):
        return MediaRef(kind=kind, data=data, address=address())
    if isinstance(value, dict) and {"bytes", "path"} & set(value):
        value = value.get("path")
        if is_empty(value):
            return Problem("MEDIA_EMPTY", f"a {kind} has neither bytes nor a path")
    name = read_name(value)
    return name if isinstance(name, Problem) else MediaRef(kind=kind, name=name)


def _pairs(value: Any, images: int) -> tuple[Turn, ...] | Problem:
    """The turns of `texts`, all images before the first question, stray markers removed."""
    pairs = value or []
    if 2 * len(pairs) > MAX_TURNS:
        return Problem("TURNS_TOO_MANY", f"{2 * len(pairs)} turns")
    turns = []
    for i, pair in enumerate(pairs):
        texts = {role: pair.get(role) for role in ("user", "assistant")}
        for role, text in texts.items():
            if not isinstance(text, str):
                return Problem("TURN_WRONG_SHAPE", f"pair {i} has no text for {role}")
            turns.append(Turn(role=role, text=_STRAY.sub("", text).strip()))
    return before_first_question(turns, images)
