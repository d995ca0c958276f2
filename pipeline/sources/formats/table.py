"""A table whose columns the recipe names: JSON, JSONL, CSV, TSV or Parquet.

`columns` says what each means: `question` (several columns follow one another, blank ones left out)
and `answer`, or `messages`; `image`, `images` or `video`; `id`, `span`, `options`, `system`. An
answer without a question describes its medium. Media stand before the first question unless turns
place them. Cells of CSV that must be lists are JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.sources import csv_rows, json_rows, parquet_rows
from pipeline.sources.fields import CHANGES_MEANING, MEDIA_FIELDS, Row, is_empty
from pipeline.sources.formats import llava_json
from pipeline.sources.formats.parquet_images import medium

# a header, a mistake in `columns` and a file without rows are told apart by what rows hold
from pipeline.sources.questions import DESCRIBE, DESCRIBE_IMAGE, chosen
from pipeline.sources.records import (
    Columns,
    MediaRef,
    Record,
    RowRefusal,
    check,
    embedded,
    kept,
    read_id,
    read_span,
    refusal,
)
from pipeline.sources.text_files import suffix_of
from pipeline.sources.turns import MEDIUM_FIELDS, TURN_FIELDS, read_talk
from pipeline.untrusted import Problem
from shards.errors import UserError

_BATCH = 8  # rows in memory: of a hostile file each may be large
_LISTS = ("messages", "images", "options", "span")
Addressed = Callable[[str, int], str]
"""(column, index in its list) -> the address at which a cell's bytes are found again."""
Cells = Mapping[str, list[Any]]
"""What is meant -> the values of its columns."""
MediaOf = Callable[[Cells], llava_json.Media]


def read(annotations: Path, columns: Columns) -> Iterator[Record | RowRefusal]:
    """Records of one file, or of every `*.parquet` of a folder in order of their names."""
    # the names of all columns that the recipe maps, several of which may mean one thing
    needed = [name for _, names in columns for name in names]
    missing = set(needed)
    last = Row()
    for label, row, addressed in rows(annotations, needed):
        if isinstance(row, Problem):
            yield refusal(label, row)
            continue
        missing = missing.difference(row)
        last = row
        # media_of is bound to the row's file and number: embedded bytes are found again there
        media_of = partial(_media, columns=dict(columns), addressed=addressed)
        yield read_row(label, row, dict(columns), media_of, CHANGES_MEANING | MEDIA_FIELDS)
    if missing and last:
        raise UserError(
            f"{annotations}: no row has {', '.join(sorted(missing))}; mend `columns`: the last row "
            f"has {', '.join(last)[:300]}"
        )


def rows(path: Path, needed: list[str]) -> Iterator[tuple[str, Row | Problem, Addressed]]:
    """(what names the row, the row, where its embedded bytes are) of any kind of table.

    UserError for a file that is none, or whose header lacks one of the columns `needed`.
    """
    kind = suffix_of(path)
    if kind in csv_rows.SUFFIXES or kind in (".json", *json_rows.LINES):
        plain = csv_rows.rows(path, needed) if kind in csv_rows.SUFFIXES else json_rows.rows(path)
        for number, row in enumerate(plain):
            yield f"#{number}", row, _nowhere
        return
    if kind != ".parquet" and not path.is_dir():
        raise UserError(f"{path}: a table is .json, .jsonl, .csv, .tsv or .parquet; rename it")
    for file, number, row in parquet_rows.rows(path, [tuple(needed)], _BATCH):
        yield f"{file.stem}#{number}", row, partial(_embedded, file, number)


def _nowhere(column: str, index: int) -> str:
    """Text files embed no bytes."""
    raise AssertionError(f"bytes in a cell of text: {column}/{index}")


def _embedded(path: Path, number: int, column: str, index: int) -> str:
    return embedded(path, number, index, column)


def read_row(
    label: str,
    row: Row,
    columns: Mapping[str, tuple[str, ...]],
    media_of: MediaOf,
    meaning: frozenset[str],
) -> Record | RowRefusal:
    """The record of a row whose columns mean what `columns` says; `meaning` refuses it."""
    names = [name for named in columns.values() for name in named]
    reads: dict[str, Collection[str]] = dict.fromkeys(names, ())
    for meant in ("messages", "image", "images", "video"):
        fields: Collection[str] = TURN_FIELDS if meant == "messages" else MEDIUM_FIELDS
        reads |= dict.fromkeys(columns.get(meant, ()), fields)
    # Alpaca's `input` continues the instruction: left unread it would change the meaning
    meaning |= {"input"} if "instruction" in names else set()
    published_id = row.get(columns.get("id", ("",))[0])
    name = label if is_empty(published_id) else read_id(published_id)
    if isinstance(name, Problem):
        return refusal(label, name)
    # lists in cells of CSV and TSV are JSON, whose objects have fields of their own
    cells = {
        name: _cell(meant, row[name])
        for meant, named in columns.items()
        for name in named
        if name in row
    }
    broken = next((cell for cell in cells.values() if isinstance(cell, Problem)), None)
    if broken:
        return refusal(name, broken)
    return kept(
        name, row | cells, reads, partial(_record, columns=columns, media_of=media_of), meaning
    )


def _cell(meant: str, value: Any) -> Any:
    """The value of a cell; text that begins a list is JSON where a list is meant."""
    if meant in _LISTS and isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json_rows.STRICT.decode(value)
        except (ValueError, RecursionError) as error:
            return json_rows.json_problem(error, f"{meant}, character ")
    return value


def _record(
    name: str, row: Row, columns: Mapping[str, tuple[str, ...]], media_of: MediaOf
) -> Record | RowRefusal:
    cells = {meant: [row.get(name) for name in named] for meant, named in columns.items()}
    media = media_of(cells)
    if isinstance(media, Problem):
        return refusal(name, media)
    talk = cells["messages"][0] if "messages" in cells else _asked(cells, media)
    if isinstance(talk, Problem):
        return refusal(name, talk)
    talk_and_media = read_talk(talk, media, cells.get("system", [None])[0])
    if isinstance(talk_and_media, Problem):
        return refusal(name, talk_and_media)
    return check(Record(record=name, turns=talk_and_media[0], media=talk_and_media[1]))


def _media(
    cells: Cells, columns: Mapping[str, tuple[str, ...]], addressed: Addressed
) -> llava_json.Media:
    """The media of a row, its images first, with the row's span."""
    media: list[MediaRef] = []
    for meant in ("image", "images", "video"):
        name = columns.get(meant, ("",))[0]
        value = cells.get(meant, [None])[0]
        values = value if isinstance(value, list) else [value]
        for index, cell in enumerate([] if is_blank(value) else values):
            item = medium(meant.removesuffix("s"), cell, partial(addressed, name, index))
            if isinstance(item, Problem):
                return item
            media.append(item)
    return llava_json.spanned(media, span_of(cells))


def is_blank(value: Any) -> bool:
    """Whether a cell names no medium: null, blank, NaN, an empty list."""
    return is_empty(value) if not isinstance(value, (bytes, dict)) else False


def span_of(cells: Cells) -> tuple[int, int] | Problem | None:
    """The span of a row in microseconds, out of one cell or two."""
    bounds = cells.get("span", [None])
    value = bounds[0] if len(bounds) == 1 else bounds
    ends = value if isinstance(value, list) else [value]
    # blank cells for both ends stand for the whole video
    if all(is_empty(end) for end in ends):
        return None
    return read_span([_seconds(end) for end in ends])


def _seconds(value: Any) -> Any:
    """A number that a CSV holds as text; JSON and Parquet have numbers of their own."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _asked(cells: Cells, media: tuple[MediaRef, ...]) -> Any | Problem:
    """A question and its answer as turns."""
    question = _question(cells.get("question", []), media)
    answer = _text(cells["answer"][0], "the answer")
    if "options" in cells and not isinstance(question, Problem):
        options = cells["options"]
        options = options[0] if len(options) == 1 else options
        choice = chosen(question, options, cells["answer"][0])
        if isinstance(choice, Problem):
            return choice
        question, answer = choice
    for text in (question, answer):
        if isinstance(text, Problem):
            return text
    turns = (("user", question), ("assistant", answer))
    return [{"role": role, "content": text} for role, text in turns]


def _question(question_cells: list[Any], media: tuple[MediaRef, ...]) -> str | Problem:
    """The texts of the question's columns, one below the other; of none, a description's."""
    texts = [_text(cell, "the question") for cell in question_cells if not is_empty(cell)]
    for text in texts:
        if isinstance(text, Problem):
            return text
    if not question_cells and media:
        return DESCRIBE if media[0].kind == "video" else DESCRIBE_IMAGE
    return "\n".join(map(str, texts))


def _text(value: Any, what: str) -> str | Problem:
    if isinstance(value, str):
        return value
    if type(value) is int:
        return str(value)
    if value is None:
        return Problem("ROW_MISSING_FIELD", f"{what} is not there")
    return Problem("ROW_WRONG_TYPE", f"{what} is a {type(value).__name__}")
