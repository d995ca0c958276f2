"""Rows of published JSON: strictly parsed, bounded, and each row a value of its own.

A `.jsonl` or `.ndjson` file holds one object per line; any other holds one list of objects; both
may be compressed (`.gz`, `.zst`). A bad row is refused on its own; a file that is cut or is no such
file at all raises UserError with its name. Positions in errors are those of the unpacked file.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from pipeline.sources.fields import NotFinite, Reads, Row
from pipeline.sources.records import Record, RecordOf, RowRefusal, kept, read_id, refusal
from pipeline.sources.text_files import opened, suffix_of
from pipeline.untrusted import Problem
from shards.errors import UserError

LINES = (".jsonl", ".ndjson")
MAX_ROW_BYTES = 4_000_000
WINDOW = 4 << 20  # bytes of a list that are read at once


class _DuplicateKeyError(ValueError):
    pass


def _unique_keys(members: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(members)
    # RFC 8259 leaves duplicate keys open; parsers differ in which one wins
    if len(mapping) != len(members):
        raise _DuplicateKeyError(", ".join(sorted({k for k, _ in members})))
    return mapping


STRICT = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_constant=NotFinite)


def json_problem(
    cause: ValueError | RecursionError, before_number: str, before: int = 0
) -> Problem:
    """The refusal for an error that the strict decoder raised.

    `before_number` comes before the number of a character, `before` are those that the decoder did
    not see.
    """
    match cause:
        case RecursionError():
            return Problem("ROW_TOO_DEEP", "nested beyond the interpreter's bound")
        case _DuplicateKeyError():
            return Problem("ROW_DUPLICATE_KEY", f"a key repeats among {cause}"[:200])
        case json.JSONDecodeError():
            return Problem("ROW_NOT_JSON", f"{cause.msg} at {before_number}{before + cause.pos}")
    return Problem("ROW_NOT_JSON", str(cause)[:200])


def parse_row(line: bytes, number: int | None = None) -> Row | Problem:
    """The object of line `number` (from 0), parsed strictly; a byte order mark is allowed."""
    line_prefix = "" if number is None else f"line {number + 1}, "
    # bounded before it is decoded
    if len(line) > MAX_ROW_BYTES:
        return Problem("ROW_TOO_LONG", f"more than {MAX_ROW_BYTES} bytes")
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Problem("ROW_NOT_UTF8", f"{line_prefix}byte {error.start} is not UTF-8")
    if not text.strip():
        return Problem("ROW_EMPTY", "a blank line")
    try:
        value = STRICT.decode(text.strip())
    except (ValueError, RecursionError) as error:
        return json_problem(error, f"{line_prefix}character ", len(text) - len(text.lstrip()))
    return object_of(value)


def object_of(value: Any) -> Row | Problem:
    """`value` if it is an object."""
    if isinstance(value, dict):
        return value
    return Problem("ROW_NOT_OBJECT", f"is a {type(value).__name__}")


# Finds where a row ends that the strict decoder refused for its values, not for its syntax.
# ints are measured only: Python converts a long number in quadratic time
_LENIENT = json.JSONDecoder(strict=False, parse_int=len)
_SPACE = " \t\r\n"
_EDGE = 16  # a decoder that fails this near to the end of a window may have needed more
_DEEP, _LONG = -1, -2
_INSIDE, _BRACKET, _QUOTE = map(re.compile, (r'["\[\]{}]', r'["\[\]{},]', r'["\\]'))


def records(
    path: Path, record_of: RecordOf, reads: Reads, id_field: str = ""
) -> Iterator[Record | RowRefusal]:
    """The record of each row; a row is named by its `id_field` or, without one, by its number."""
    for number, row in enumerate(rows(path)):
        yield row_record(row, number, record_of, reads, id_field)


def row_record(
    row: Row | Problem, number: int, record_of: RecordOf, reads: Reads, id_field: str
) -> Record | RowRefusal:
    """The record of one parsed row; `#<number>` names it where it has no id."""
    label = f"#{number}"
    if isinstance(row, Problem):
        return refusal(label, row)
    if id_field and isinstance(row.get(id_field), NotFinite):
        return refusal(label, Problem("ROW_NOT_FINITE", f"{id_field} is no number"))
    name = read_id(row[id_field]) if row.get(id_field) is not None else label
    return refusal(label, name) if isinstance(name, Problem) else kept(name, row, reads, record_of)


def rows(path: Path) -> Iterator[Row | Problem]:
    """Each row of a file of lines, or of a file that holds one list."""
    return _lines(path) if suffix_of(path) in LINES else _elements(path)


def whole(path: Path) -> Row:
    """A file that is one object, parsed as strictly as a row."""
    text = _text(path)
    try:
        value = object_of(STRICT.decode(text))
    except (ValueError, RecursionError) as error:
        value = json_problem(error, "character ")
    if isinstance(value, Problem):
        raise UserError(f"{path}: {value.detail}; one JSON object is expected, fetch it again")
    return value


def _lines(path: Path) -> Iterator[Row | Problem]:
    """Each line of a JSONL file; an endless line is skipped in pieces, never held."""
    with opened(path) as file:
        number = 0
        while line := file.readline(MAX_ROW_BYTES + 1):
            rest = line
            # an endless line is read on in pieces, and let go
            while len(rest) > MAX_ROW_BYTES and not rest.endswith(b"\n"):
                rest = file.readline(MAX_ROW_BYTES + 1)
            yield parse_row(line, number)
            number += 1


class _Window:
    """The part of a long text file that is being parsed; what was parsed is let go."""

    def __init__(self, path: Path, opened_file: IO[bytes]) -> None:
        self.path = path
        self._file = opened_file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._bytes = self._gone = 0
        self.text = ""
        self.at = 0
        self.ended = False

    def more(self) -> None:
        """Let go of what lies before `at`, and read on."""
        data = self._file.read(WINDOW)
        # incremental: a window may end within a character
        try:
            grown = self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            at = self._bytes + error.start
            raise UserError(f"{self.path}: not UTF-8 near byte {at}; convert the file") from error
        self._bytes += len(data)
        self._gone += self.at
        self.text = self.text[self.at :] + grown
        self.at = 0
        self.ended = not data

    def sign(self) -> str:
        """The next character that is no space, "" at the end."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in _SPACE:
                self.at += 1
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self.more()

    def place(self, at: int | None = None) -> int:
        """Number in the file, from 0, of the character `at`, or of the next one."""
        return self._gone + (self.at if at is None else at)


def _elements(path: Path) -> Iterator[Row | Problem]:
    """Each element of a JSON list, decoded one by one; the file is never held as a whole."""
    with opened(path) as file:
        window = _Window(path, file)
        if window.sign() != "[":
            raise UserError(
                f"{path}: not a JSON list; a file of one object per line must be named .jsonl, "
                "one that holds an object with the list in it must be cut down to the list"
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
    """The next element; a syntax error leaves no way to find the one behind it.

    One that is longer or deeper than the bounds is passed over by its brackets, and never held.
    """
    window.sign()
    # an element is decoded only with the whole bound behind it: what fails then is no cut
    while len(window.text) - window.at <= MAX_ROW_BYTES + _EDGE and not window.ended:
        window.more()
    try:
        value, end = STRICT.raw_decode(window.text, window.at)
        row = object_of(value)
    except (ValueError, RecursionError) as error:
        row = json_problem(error, "character ", window.place(0))
        end = _end(window)
    # a decoder that stops at the edge may have read half a number
    if end < 0 or (end > len(window.text) - _EDGE and not window.ended):
        _pass_over(window)
        return row if end == _DEEP else Problem("ROW_TOO_LONG", f"more than {MAX_ROW_BYTES} bytes")
    if len(window.text[window.at : end].encode(errors="replace")) > MAX_ROW_BYTES:
        row = Problem("ROW_TOO_LONG", f"more than {MAX_ROW_BYTES} bytes")
    window.at = end
    return row


def _end(window: _Window) -> int:
    """Where an element ends whose values are wrong; _DEEP or _LONG if it is to be passed over."""
    try:
        return _LENIENT.raw_decode(window.text, window.at)[1]
    except RecursionError:
        return _DEEP
    except ValueError as error:
        # these two errors are what a cut looks like; any other is no JSON
        cut = isinstance(error, json.JSONDecodeError) and (
            error.msg.startswith("Unterminated string") or error.pos > len(window.text) - _EDGE
        )
        if cut and not window.ended:
            return _LONG
        problem = json_problem(error, "character ", window.place(0))
        raise UserError(
            f"{window.path}: not JSON: {problem.detail}; download the file again"
        ) from error


def _pass_over(window: _Window) -> None:
    """Go behind an element by its brackets and strings alone, a window at a time."""
    depth = 0
    while True:
        # brackets within strings do not count: strings are passed as a whole
        sign = _seek(window, _INSIDE if depth else _BRACKET)
        if sign in ",]}" and not depth:  # of the list: the element was no list and no object
            window.at -= 1
            return
        if sign == '"':
            while _seek(window, _QUOTE) == "\\":
                window.at += 1  # whatever is escaped; it may lie in the next window
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(sign, 0)
        if not depth:
            return


def _seek(window: _Window, signs: re.Pattern[str]) -> str:
    """Go behind the next of the wanted signs, and say which it is."""
    while not (match := signs.search(window.text, window.at)):
        if window.ended:
            raise UserError(f"{window.path}: not JSON: it breaks off; download the file again")
        beyond = max(0, window.at - len(window.text))
        window.at = len(window.text)
        window.more()
        window.at = beyond
    window.at = match.end()
    return match[0]


def _text(path: Path) -> str:
    try:
        with opened(path) as file:
            return file.read().decode("utf-8-sig")
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
