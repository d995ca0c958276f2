"""Parquet files with embedded images, told apart by the names of their columns.

LLaVA-OneVision-Data: `id, image {bytes, path} or null, conversations, data_source`.
The Cauldron and FineVision: `images [{bytes, path}], texts [{user, assistant}]`, no placeholders:
all images stand before the first question (nanoVLM's data/datasets.py does the same).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.sources.parquet_rows import Row, rows
from pipeline.sources.records import (
    MAX_TURNS,
    MediaRef,
    Record,
    RowRefusal,
    before_first_question,
    check,
    embedded,
    read_id,
    read_name,
    read_turns,
    refusal,
)
from pipeline.untrusted import Problem
from shards.sample import Turn

CONVERSATIONS = ("id", "image", "conversations")
TEXTS = ("images", "texts")
FORMS = [CONVERSATIONS, (*TEXTS, "id"), TEXTS]
_BATCH = 8  # rows in memory: of a hostile file each may be large
_STRAY = re.compile(r"<image>\n?")


def read(annotations: Path) -> Iterator[Record | RowRefusal]:
    """Records of a Parquet file, or of every `*.parquet` of a folder in order of their names."""
    for path, number, row in rows(annotations, FORMS, _BATCH):
        yield _record(path, number, row)


def _record(path: Path, number: int, row: Row | Problem) -> Record | RowRefusal:
    """One row as a record; a row without an id is named by its file and number."""
    label = f"{path.stem}#{number}"
    if isinstance(row, Problem):
        return refusal(label, row)
    name = read_id(row["id"]) if "id" in row else label
    if isinstance(name, Problem):
        return refusal(label, name)
    media = _media(row["images"] if "images" in row else row["image"], path, number)
    if isinstance(media, Problem):
        return refusal(name, media)
    if "conversations" in row:
        turns = read_turns(row["conversations"], media)
    else:
        turns = _pairs(row["texts"], len(media))
    if isinstance(turns, Problem):
        return refusal(name, turns)
    return check(Record(record=name, turns=turns, media=media))


def _media(value: Any, path: Path, row: int) -> tuple[MediaRef, ...] | Problem:
    """The images of a row: none, one struct, or a list of structs."""
    images = value if isinstance(value, list) else [] if value is None else [value]
    media = []
    for i, image in enumerate(images):
        if not isinstance(image, dict) or not {"bytes", "path"} <= set(image):
            return Problem("ROW_WRONG_TYPE", f"image {i} is not {{bytes, path}}")
        if image["bytes"] is None and image["path"] is None:
            return Problem("MEDIA_EMPTY", f"image {i} has neither bytes nor a path")
        if image["bytes"] is None:
            name = read_name(image["path"])
            if isinstance(name, Problem):
                return name
            media.append(MediaRef(kind="image", name=name))
        else:
            address = embedded(path, row, i)
            media.append(MediaRef(kind="image", data=image["bytes"], address=address))
    return tuple(media)


def _pairs(value: Any, images: int) -> tuple[Turn, ...] | Problem:
    """The turns of `texts`, all images before the first question, stray markers removed."""
    pairs = value or []
    if 2 * len(pairs) > MAX_TURNS:
        return Problem("TURNS_TOO_MANY", f"{2 * len(pairs)} turns")
    turns = []
    for i, pair in enumerate(pairs):
        said = {role: pair.get(role) for role in ("user", "assistant")}
        for role, text in said.items():
            if not isinstance(text, str):
                return Problem("TURN_WRONG_SHAPE", f"pair {i} has no text for {role}")
            turns.append(Turn(role=role, text=_STRAY.sub("", text).strip()))
    return before_first_question(turns, images)
