"""Rows of published JSON: strictly parsed, bounded, and each row a value of its own.

A `.jsonl` file holds one object per line; any other holds one list of objects. A bad row is
refused on its own; a file that is cut or is no such file at all raises UserError with its name.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from pipeline.sources.records import Record, RowRefusal, read_id, refusal
from pipeline.untrusted import Problem
from shards.errors import UserError

Row = dict[str, Any]
MAX_ROW_BYTES = 4_000_000
WINDOW = 16 << 20  # bytes of a list that are read at once


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


def parse_row(line: bytes) -> Row | Problem:
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


def object_of(value: Any) -> Row | Problem:
    """`value` if it is an object."""
    if isinstance(value, dict):
        return value
    return Problem("ROW_NOT_OBJECT", f"is a {type(value).__name__}")


# Finds where a row ends that the strict decoder refused for its values, not for its syntax.
_LENIENT = json.JSONDecoder(strict=False, parse_int=len)
_SPACE = " \t\r\n"


RecordOf = Callable[[str, Row], Record | RowRefusal]
"""Makes a record of a row's name and its fields."""


def records(path: Path, record_of: RecordOf, id_field: str = "") -> Iterator[Record | RowRefusal]:
    """The record of each row; a row is named by its `id_field` or, without one, by its number."""
    for number, row in enumerate(rows(path)):
        yield row_record(row, number, record_of, id_field)


def row_record(
    row: Row | Problem, number: int, record_of: RecordOf, id_field: str
) -> Record | RowRefusal:
    """The record of one parsed row; `#<number>` names it until its id is known."""
    label = f"#{number}"
    if isinstance(row, Problem):
        return refusal(label, row)
    name = read_id(row[id_field]) if id_field in row else label
    return refusal(label, name) if isinstance(name, Problem) else record_of(name, row)


def rows(path: Path) -> Iterator[Row | Problem]:
    """Each row of a `.jsonl` file, or of a file that holds one list."""
    return _lines(path) if path.suffix == ".jsonl" else _elements(path)


def whole(path: Path) -> Row:
    """A file that is one object, parsed as strictly as a row."""
    text = _text(path)
    try:
        found = object_of(STRICT.decode(text))
    except (ValueError, RecursionError) as error:
        found = json_problem(error)
    if isinstance(found, Problem):
        raise UserError(f"{path}: {found.detail}; one JSON object is expected, fetch it again")
    return found


def _lines(path: Path) -> Iterator[Row | Problem]:
    """Each line of a JSONL file; an endless line is skipped in pieces, never held."""
    with path.open("rb") as file:
        while line := file.readline(MAX_ROW_BYTES + 1):
            rest = line
            while len(rest) > MAX_ROW_BYTES and not rest.endswith(b"\n"):
                rest = file.readline(MAX_ROW_BYTES + 1)
            yield parse_row(line)


class _Window:
    """The part of a long text file that is being parsed; what was parsed is let go."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path, self._file = path, file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._bytes = self._gone = 0
        self.text, self.at, self.ended = "", 0, False

    def more(self) -> None:
        """Let go of what lies before `at`, and read on."""
        data = self._file.read(WINDOW)
        try:
            grown = self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            at = self._bytes + error.start
            raise UserError(f"{self.path}: not UTF-8 near byte {at}; convert the file") from error
        self._bytes += len(data)
        self._gone += self.at
        self.text, self.at, self.ended = self.text[self.at :] + grown, 0, not data

    def sign(self) -> str:
        """The next character that is no space, "" at the end."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in _SPACE:
                self.at += 1
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self.more()

    def place(self) -> int:
        """Number of the next character in the file, from 0."""
        return self._gone + self.at


def _elements(path: Path) -> Iterator[Row | Problem]:
    """Each element of a JSON list, decoded one by one; the file is never held as a whole."""
    with path.open("rb") as file:
        window = _Window(path, file)
        if window.sign() != "[":
            raise UserError(
                f"{path}: not a JSON list; a file of one object per line must be named .jsonl"
            )
        window.at += 1
        first = True
        while window.sign() != "]":
            if not first:
                _pass_comma(window)
            first = False
            yield _element(window)
        window.at += 1
        if window.sign():
            raise UserError(
                f"{path}: text after the list ends, at character {window.place()}; mend the file"
            )


def _element(window: _Window) -> Row | Problem:
    """The next element; a syntax error leaves no way to find the one behind it."""
    window.sign()
    while True:
        try:
            value, end = STRICT.raw_decode(window.text, window.at)
            row = object_of(value)
        except (ValueError, RecursionError) as error:
            row, end = json_problem(error), -1
            try:
                _, end = _LENIENT.raw_decode(window.text, window.at)
            except (ValueError, RecursionError) as broken:
                if window.ended:
                    reason = f"not JSON: {broken}; download the file again"
                    raise UserError(f"{window.path}: {reason}") from broken
        if window.ended or 0 <= end < len(window.text) - 3:
            break
        window.more()  # the element may go on, and so may a number: 3 could be 3.5 or 3e+9
    if len(window.text[window.at : end].encode(errors="replace")) > MAX_ROW_BYTES:
        row = Problem("ROW_TOO_LONG", f"more than {MAX_ROW_BYTES} bytes")
    window.at = end
    return row


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}; convert the file") from error


def _pass_comma(window: _Window) -> None:
    if window.sign() != ",":
        place = window.place()
        raise UserError(
            f"{window.path}: not a JSON list at character {place}; download the file again"
        )
    window.at += 1
    if window.sign() == "]":
        raise UserError(f"{window.path}: not JSON: a comma before the end; mend the file")
