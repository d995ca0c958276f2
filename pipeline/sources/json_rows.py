"""Rows of published JSON: strictly parsed, bounded, and each row a value of its own.

A `.jsonl` file holds one object per line; any other holds one list of objects. A bad row is a
`Problem`; a file that is cut or is no such file at all raises UserError with its name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.records import Problem
from shards.errors import UserError

MAX_ROW_BYTES = 4_000_000


class _NotFiniteError(ValueError):
    pass


class _DuplicateKeyError(ValueError):
    pass


def _refuse_constant(name: str) -> None:
    raise _NotFiniteError(name)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _DuplicateKeyError(", ".join(sorted({k for k, _ in pairs})))
    return found


STRICT = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)


def json_problem(error: ValueError | RecursionError) -> Problem:
    """The refusal for an error that the strict decoder raised."""
    match error:
        case RecursionError():
            return Problem("ROW_TOO_DEEP", "nested beyond the interpreter's bound")
        case _NotFiniteError():
            return Problem("ROW_NOT_FINITE", f"holds {error}")
        case _DuplicateKeyError():
            return Problem("ROW_DUPLICATE_KEY", f"a key repeats among {error}"[:200])
    return Problem("ROW_NOT_JSON", str(error)[:200])


def parse_row(line: bytes) -> dict[str, Any] | Problem:
    """The object on one line of JSON, parsed strictly; a byte order mark is allowed."""
    if len(line) > MAX_ROW_BYTES:
        return Problem("ROW_TOO_LONG", f"more than {MAX_ROW_BYTES} bytes")
    try:
        text = line.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        return Problem("ROW_NOT_UTF8", f"byte {error.start} is not UTF-8")
    if not text:
        return Problem("ROW_EMPTY", "a blank line")
    try:
        value = STRICT.decode(text)
    except (ValueError, RecursionError) as error:
        return json_problem(error)
    return object_of(value)


def object_of(value: Any) -> dict[str, Any] | Problem:
    """`value` if it is an object."""
    if isinstance(value, dict):
        return value
    return Problem("ROW_NOT_OBJECT", f"is a {type(value).__name__}")


# Finds where a row ends that the strict decoder refused for its values, not for its syntax.
_LENIENT = json.JSONDecoder(strict=False, parse_int=len)
_SPACE = " \t\r\n"


def rows(path: Path) -> Iterator[dict[str, Any] | Problem]:
    """Each row of a `.jsonl` file, or of a file that holds one list."""
    return _lines(path) if path.suffix == ".jsonl" else _elements(path)


def whole(path: Path) -> dict[str, Any]:
    """A file that is one object, parsed as strictly as a row."""
    text = _text(path)
    try:
        found = object_of(STRICT.decode(text))
    except (ValueError, RecursionError) as error:
        found = json_problem(error)
    if isinstance(found, Problem):
        raise UserError(f"{path}: {found.detail}; one JSON object is expected, fetch it again")
    return found


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
