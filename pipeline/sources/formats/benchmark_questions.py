"""Questions of an evaluation set: a table with the column `question`, Parquet, JSON or JSONL.

Every column of {bytes, path} holds an image of its row (MMMU has seven); else the first of VIDEOS
that the table has names a video. Answers and options are never read: held-out data need none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from pipeline.sources import json_rows, parquet_rows
from pipeline.sources.fields import Row
from pipeline.sources.questions import CONTAINERS
from pipeline.sources.records import (
    MediaRef,
    Record,
    RowRefusal,
    check,
    embedded,
    read_id,
    read_name,
    refusal,
    spoken_text,
)
from pipeline.sources.text_files import suffix_of
from pipeline.sources.turns import before_first_question
from pipeline.untrusted import Problem
from shards.sample import Turn

IDS = ("question_id", "questionId", "qid", "id", "uid", "pid")
VIDEOS = ("video_path", "videoID", "video_name", "video", "video_id")
UNREAD = "(not read)"
_BATCH = 8  # rows in memory: of a hostile file each may be large
_MARKERS = re.compile(r"<(?:image|video)(?: \d+)?>\n?")


def read(annotations: Path) -> Iterator[Record | RowRefusal]:
    """One record a row, named `<row>:<id>`, for ids repeat from video to video."""
    if suffix_of(annotations) in (".json", *json_rows.LINES):
        for number, row in enumerate(json_rows.rows(annotations)):
            yield _record(annotations, number, row)
        return
    rows = parquet_rows.rows(annotations, [("question",)], _BATCH, _is_read, others=False)
    for path, number, row in rows:
        yield _record(path, number, row)


def _is_read(column: pa.Field) -> bool:
    return column.name in (*IDS, *VIDEOS) or _is_image(column.type)


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _is_image(kind.value_type)
    return pa.types.is_struct(kind) and {"bytes", "path"} <= {field.name for field in kind}


def _record(path: Path, number: int, row: Row | Problem) -> Record | RowRefusal:
    if isinstance(row, Problem):
        return refusal(f"#{number}", row)
    published_id = next((row[key] for key in IDS if row.get(key) is not None), "")
    name = read_id(published_id)
    # a row's number leads its name: ids repeat from video to video
    if isinstance(name, Problem):
        return refusal(f"#{number}", name)
    name = f"{number}:{name}"
    question = spoken_text(row.get("question"), "question")
    if isinstance(question, Problem):
        return refusal(name, question)
    media = _images(path, number, row) or _video(row)
    if isinstance(media, Problem):
        return refusal(name, media)
    spoken = (("user", _MARKERS.sub("", question).strip()), ("assistant", UNREAD))
    turns = before_first_question([Turn(role=role, text=text) for role, text in spoken], len(media))
    return check(Record(record=name, turns=turns, media=media))


def _images(path: Path, number: int, row: Row) -> tuple[MediaRef, ...]:
    """The images embedded in a row, column by column."""
    images = []
    for column in sorted(row):
        value = row[column]
        for i, cell in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(cell, dict) and isinstance(cell.get("bytes"), bytes):
                address = embedded(path, number, i, column)
                images.append(MediaRef(kind="image", data=cell["bytes"], address=address))
    return tuple(images)


def _video(row: Row) -> tuple[MediaRef, ...] | Problem:
    """The video a row names, whatever ending its file has; ActivityNet's start with `v_`."""
    value = next((row[key] for key in VIDEOS if row.get(key) is not None), None)
    if value is None:
        return ()
    name = read_id(value)
    name = name if isinstance(name, Problem) else read_name(name)
    if isinstance(name, Problem):
        return name
    # publishers leave endings out, and ActivityNet's prefix
    endings = ("",) if name.endswith(CONTAINERS) else CONTAINERS
    first, *also = [f"{prefix}{name}{ending}" for prefix in ("", "v_") for ending in endings]
    return (MediaRef(kind="video", name=first, also=tuple(also)),)
