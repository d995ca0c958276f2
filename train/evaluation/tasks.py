"""Held-out questions, read from the published formats: LLaVA-style JSON, OneVision-style Parquet.

A task row is {id, image | video, conversations} and may name its question `type` (one word, or one
per question; the file's own name if it has none). Each human/gpt pair is one question. Rows are
ours to vouch for, so a bad one is a UserError, not a refusal.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from shards.errors import UserError
from shards.index import UNREADABLE

PLACEHOLDERS = ("<image>", "<video>")
MEDIA_FOLDERS = {"image": ("", "images"), "video": ("", "videos")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Medium:
    """One image or video: a file, or bytes that came with the task."""

    kind: str
    name: str
    path: Path | None = None
    data: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question with its true answer; `medium` is None for text alone."""

    task: str
    record: str
    type: str
    medium: Medium | None
    text: str
    answer: str


def read_tasks(path: Path) -> list[Question]:
    """Every question of a task file; UserError names file, row and what is wrong with it."""
    rows = _parquet_rows(path) if path.suffix == ".parquet" else _json_rows(path)
    questions = [
        question for number, row in enumerate(rows) for question in _questions(row, path, number)
    ]
    if not questions:
        raise UserError(f"{path}: holds no question; give another task file")
    return questions


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        # utf-8-sig: files from spreadsheets begin with a byte order mark
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error}); mend the file") from error
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise UserError(f"{path}: must be a list of objects; see the LLaVA format")
    for row in value:
        yield row | {"medium": _named_medium(row, path)}


def _named_medium(row: dict[str, Any], path: Path) -> Medium | None:
    # exactly one medium a row, by name
    named = [(kind, row[kind]) for kind in MEDIA_FOLDERS if row.get(kind) is not None]
    if not named:
        return None
    (kind, name), *more = named
    if more or not isinstance(name, str):
        raise UserError(f"{path}: row {row.get('id')!r}: needs one image or one video by name")
    # a name that climbs out of the folder is not looked for
    for folder in MEDIA_FOLDERS[kind] if ".." not in Path(name).parts else ():
        file = path.parent / folder / name
        if file.is_file() and not Path(name).is_absolute():
            return Medium(kind=kind, name=name, path=file)
    raise UserError(
        f"{path}: row {row.get('id')!r}: {kind} {name!r} is neither beside the file nor in "
        f"{MEDIA_FOLDERS[kind][1]}/; put it there"
    )


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        rows = pq.read_table(path).to_pylist()
    except UNREADABLE as error:
        raise UserError(f"{path}: not readable as Parquet ({error}); mend the file") from error
    for row in rows:
        image = row.get("image")
        if image is None:
            yield row | {"medium": None}
        elif isinstance(image, dict) and isinstance(image.get("bytes"), bytes):
            name = f"{row.get('id')}.image"
            yield row | {"medium": Medium(kind="image", name=name, data=image["bytes"])}
        else:
            raise UserError(f"{path}: row {row.get('id')!r}: image holds no bytes; mend the file")


def _questions(row: dict[str, Any], path: Path, number: int) -> Iterator[Question]:
    where = f"{path}: row {number} ({row.get('id')!r})"
    turns = row.get("conversations")
    if not isinstance(turns, list) or not turns or len(turns) % 2:
        raise UserError(f"{where}: conversations must be pairs of human and gpt turns")
    # turns in pairs: a question, its answer
    pairs = [_pair(turns[i], turns[i + 1], where) for i in range(0, len(turns), 2)]
    kinds = row.get("type") or path.stem
    kinds = kinds if isinstance(kinds, list) else [kinds] * len(pairs)
    if len(kinds) != len(pairs) or not all(isinstance(kind, str) for kind in kinds):
        raise UserError(
            f"{where}: type must be one word, or one for each of {len(pairs)} questions"
        )
    for kind, (question, answer) in zip(kinds, pairs, strict=True):
        yield Question(
            task=path.stem,
            record=str(row.get("id")),
            type=kind,
            medium=row["medium"],
            text=question,
            answer=answer,
        )


def _pair(human: Any, gpt: Any, where: str) -> tuple[str, str]:
    texts = []
    for turn, role in ((human, "human"), (gpt, "gpt")):
        if not isinstance(turn, dict) or turn.get("from") != role:
            raise UserError(f"{where}: expected a turn from {role!r}, not {turn!r}")
        text = turn.get("value")
        if not isinstance(text, str):
            raise UserError(f"{where}: the {role} turn says nothing")
        # placeholders stand for media that are given beside the text
        for placeholder in PLACEHOLDERS if role == "human" else ():
            text = text.replace(placeholder, "")
        # after the placeholders are gone: a question of nothing but "<image>" asks nothing
        if not text.strip():
            raise UserError(f"{where}: the {role} turn says nothing")
        texts.append(text.strip())
    return texts[0], texts[1]
