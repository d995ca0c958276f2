"""LLaVA-style annotations: a JSON list, or JSONL, of {id, image | video, conversations}.

The form of mix665k, LLaVA-Video-178K and most others, in the variants their publishers use.
A video row may carry a span in seconds: `span: [start, end]`, or the fields `start` and `end`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.records import (
    MAX_ROW_BYTES,
    STRICT,
    MediaRef,
    Problem,
    Record,
    RowRefusal,
    check,
    field_problem,
    json_problem,
    object_of,
    parse_row,
    read_id,
    read_name,
    read_span,
    read_turns,
    refusal,
)
from shards.errors import UserError

# Finds where a row ends that the strict decoder refused for its values, not for its syntax.
_LENIENT = json.JSONDecoder(strict=False, parse_int=len)
_SPACE = " \t\r\n"


def read(annotations: Path) -> Iterator[Record | RowRefusal]:
    """Records of a `.json` list or a `.jsonl` file of one object per line."""
    rows = _lines(annotations) if annotations.suffix == ".jsonl" else _elements(annotations)
    for number, row in enumerate(rows):
        yield row_record(row, number)


def row_record(row: dict[str, Any] | Problem, number: int) -> Record | RowRefusal:
    """The record of one parsed row; `number` names it until its id is known."""
    if isinstance(row, Problem):
        return refusal(f"#{number}", row)
    name = read_id(row["id"]) if "id" in row else f"#{number}"
    if isinstance(name, Problem):
        return refusal(f"#{number}", name)
    if problem := field_problem(row, ["id", "conversations"]):
        return refusal(name, problem)
    media = _read_media(row)
    if isinstance(media, Problem):
        return refusal(name, media)
    turns = read_turns(row["conversations"], media)
    if isinstance(turns, Problem):
        return refusal(name, turns)
    return check(Record(record=name, turns=turns, media=media))


def _read_media(row: dict[str, Any]) -> tuple[MediaRef, ...] | Problem:
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
    has_ends = "start" in row or "end" in row
    given = [row.get("start"), row.get("end")] if has_ends else row.get("span")
    span = read_span(given)
    if isinstance(span, Problem):
        return span
    media = []
    for each in values:
        name = read_name(each)
        if isinstance(name, Problem):
            return name
        media.append(MediaRef(kind=kind, name=name, span=span))
    return tuple(media)


def _lines(path: Path) -> Iterator[dict[str, Any] | Problem]:
    """Each line of a JSONL file; an endless line is skipped in pieces, never held."""
    with path.open("rb") as file:
        while line := file.readline(MAX_ROW_BYTES + 1):
            rest = line
            while len(rest) > MAX_ROW_BYTES and not rest.endswith(b"\n"):
                rest = file.readline(MAX_ROW_BYTES + 1)
            yield parse_row(line)


def _elements(path: Path) -> Iterator[dict[str, Any] | Problem]:
    """Each element of a JSON list, decoded one by one."""
    text = _text(path)
    at = _skip(text, 0)
    if text[at : at + 1] != "[":
        raise UserError(
            f"{path}: not a JSON list; a file of one object per line must be named .jsonl"
        )
    at = _skip(text, at + 1)
    first = True
    while text[at : at + 1] != "]":
        if not first:
            at = _skip(text, _after_comma(text, at, path))
        first = False
        value, at = _element(text, at, path)
        yield value
        at = _skip(text, at)
    if _skip(text, at + 1) != len(text):
        raise UserError(f"{path}: text after the list ends, at character {at + 1}; mend the file")


def _element(text: str, at: int, path: Path) -> tuple[dict[str, Any] | Problem, int]:
    """One element and where it ends; a syntax error leaves no way to find the next one."""
    try:
        value, end = STRICT.raw_decode(text, at)
        row = object_of(value)
    except (ValueError, RecursionError) as error:
        row = json_problem(error)
        try:
            _, end = _LENIENT.raw_decode(text, at)
        except (ValueError, RecursionError) as broken:
            raise UserError(f"{path}: not JSON: {broken}; download the file again") from broken
    if len(text[at:end].encode(errors="replace")) > MAX_ROW_BYTES:
        row = Problem("ROW_TOO_LONG", f"more than {MAX_ROW_BYTES} bytes")
    return row, end


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}; convert the file") from error


def _after_comma(text: str, at: int, path: Path) -> int:
    if text[at : at + 1] != ",":
        raise UserError(f"{path}: not a JSON list at character {at}; download the file again")
    return at + 1


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at
