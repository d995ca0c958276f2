"""One question of a published evaluation set, and how the copies of a set lie on a disk.

    copy of a set ─► Benchmark.items ─► BenchmarkItem ─► asked of a model  (train.evaluation)
                                                     └─► record_of ─► held out, or hashed

A question is read once, by one reader, whether it is scored or kept out of a mixture.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import ascii_uppercase
from typing import TypeVar

from pipeline.names import matching
from pipeline.sources import csv_rows, json_rows, parquet_rows
from pipeline.sources.fields import Row
from pipeline.sources.questions import lettered, video_file
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
from shards.errors import UserError
from shards.sample import Turn

UNREAD = "(not read)"
_BATCH = 8  # rows in memory: of a hostile file each may be large
_LETTER = re.compile(r"\s*\(?([A-Z])(?:[).:]|\s*$)")
_OPTION = re.compile(r"\(?([A-Z])[).:]\s*(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkItem:
    """One question.

    `options` are the texts to choose from, in order; empty where the answer is free text.
    `answers` are the right texts, or of a choice the letter; empty where the split is published
    without answers. `groups` are what the authors average over: axis -> value, or several of them.
    `published` is the id as published. `subtitles` names a file of cues, whose clock is at
    `subtitles_from` seconds where the video begins. `number` is the answer's kind where it is a
    number, as MathVista says it: `integer`, `float`.
    """

    id: str
    media: tuple[MediaRef, ...]
    question: str
    options: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    subtitles: str = ""
    subtitles_from: float = 0.0
    number: str = ""
    precision: int = 0
    published: str = ""


class BadRow(Exception):
    """A row cannot be read as a question; `Benchmark.items` makes a refusal of it."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.problem = Problem(code, detail)


ItemOf = Callable[[str, Row], BenchmarkItem]
"""Makes an item of a row's name and its fields, or raises BadRow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """A published set: where its annotations and media lie in a copy, and how a row is read.

    `annotations` are globs, the first that matches is read (all files of those joined by ` + `);
    `media` are folders of the copy in
    which the names of media begin. `columns` are those that every file must hold. `training` are
    globs of the training split in the same layout, where it is published. `layout` says whose
    public code the layout was taken from.
    """

    name: str
    annotations: tuple[str, ...]
    columns: tuple[str, ...]
    item_of: ItemOf
    layout: str
    kind: str = "video"
    media: tuple[str, ...] = ("", "videos")
    subtitles: str = ""
    training: tuple[str, ...] = ()
    rows: Callable[[Path], Iterator[Row | Problem]] | None = None
    id_columns: tuple[str, ...] = ("question_id", "id", "uid", "qid")

    def files(self, copy: Path) -> list[Path]:
        """The annotation files of a copy, in their order; UserError says what was looked for."""
        if copy.is_file():
            return [copy]
        for globs in self.annotations:
            # files of several folders stand together, folder by folder
            if found := [path for glob in globs.split(" + ") for path in matching(copy, glob)]:
                return found
        wanted = " or ".join(self.annotations)
        raise UserError(f"{copy}: no {wanted} of {self.name}; name the folder of your copy")

    def items(self, path: Path) -> Iterator[BenchmarkItem | RowRefusal]:
        """Every question of one annotation file, named `<row>:<id>`; a bad row is a refusal."""
        # ids repeat between the files and videos of many sets: the row's number makes them unique
        for number, row in enumerate(self._rows(path)):
            label = f"#{number}"
            if isinstance(row, Problem):
                yield refusal(label, row)
                continue
            published_id = next(
                (row[key] for key in self.id_columns if row.get(key) is not None), ""
            )
            name = read_id(published_id)
            if isinstance(name, Problem):
                yield refusal(label, name)
                continue
            try:
                yield replace(self.item_of(f"{number}:{name}", row), published=name)
            except BadRow as error:
                yield refusal(f"{number}:{name}", error.problem)

    def records(self, path: Path) -> Iterator[Record | RowRefusal]:
        """The questions as records of held-out data; answers of free text are not read."""
        for item in self.items(path):
            yield item if isinstance(item, RowRefusal) else record_of(item)

    def _rows(self, path: Path) -> Iterator[Row | Problem]:
        return self.rows(path) if self.rows else rows_of(path, self.columns)


def record_of(item: BenchmarkItem) -> Record | RowRefusal:
    """An item as a record: its media, then its question with lettered options."""
    question_and_answer = (item.question, UNREAD)
    # a hidden answer (test splits) is read as the first option: the record only has to be well
    # formed
    if item.options:
        index = ascii_uppercase.find(item.answers[0]) if item.answers else 0
        choice = lettered(item.question, item.options, index)
        if isinstance(choice, Problem):
            return refusal(item.id, choice)
        question_and_answer = choice
    turns = [
        Turn(role="user", text=question_and_answer[0].strip()),
        Turn(role="assistant", text=question_and_answer[1]),
    ]
    placed = before_first_question(turns, len(item.media))
    return check(Record(record=item.id, turns=placed, media=item.media))


# Rows --------------------------------------------------------------------------


def rows_of(path: Path, columns: Sequence[str]) -> Iterator[Row | Problem]:
    """The rows of a Parquet, CSV, JSON or JSONL file that holds these columns.

    Bytes that stand in a Parquet row become `MediaRef`s, so that they have an address as well.
    """
    suffix = suffix_of(path)
    if suffix == ".parquet":
        for file, number, row in parquet_rows.rows(
            path,
            [tuple(columns)],
            _BATCH,
            lambda _: True,
            others=False,
            # every column, since bytes in any of them become media
        ):
            yield row if isinstance(row, Problem) else _with_media(file, number, row)
    elif suffix in csv_rows.SUFFIXES:
        yield from csv_rows.rows(path, columns)
    else:
        for row in json_rows.rows(path):
            yield row if isinstance(row, Problem) else _holding(row, columns)


def _holding(row: Row, columns: Sequence[str]) -> Row | Problem:
    missing = [name for name in columns if name not in row]
    return Problem("ROW_MISSING_FIELD", f"no {', '.join(missing)}") if missing else row


def _with_media(path: Path, number: int, row: Row) -> Row:
    return {name: _media_of(path, number, name, value) for name, value in row.items()}


def _media_of(path: Path, number: int, column: str, value: object) -> object:
    if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
        address = embedded(path, number, 0, column)
        return MediaRef(kind="image", data=value["bytes"], address=address)
    return value


# Parts of an item --------------------------------------------------------------


def text_of(row: Row, column: str) -> str:
    """A question as published, without white space at its ends."""
    text = sound(spoken_text(row.get(column), column))
    if not text:
        raise BadRow("TURN_EMPTY", f"{column} is blank")
    return text


T = TypeVar("T")


def sound(value: T | Problem) -> T:
    """The value, if nothing is wrong with it."""
    if isinstance(value, Problem):
        raise BadRow(value.code, value.detail)
    return value


def texts_of(value: object, what: str) -> tuple[str, ...]:
    """Options as published: texts, none of them blank."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(text, str) for text in value):
        raise BadRow("ROW_WRONG_TYPE", f"{what} are not a list of texts")
    if not value or not all(text.strip() for text in value):
        raise BadRow("ROW_MISSING_FIELD", f"{what} are blank, or one of them is")
    return tuple(text.strip() for text in value)


def image_of(row: Row, column: str) -> MediaRef:
    """The image whose bytes stand in this column."""
    image = row.get(column)
    if not isinstance(image, MediaRef):
        raise BadRow("ROW_MISSING_FIELD", f"{column} holds no image")
    return image


def named_video(value: object, *, fps: int | None = None) -> MediaRef:
    """A video by its file's name, or (with `fps`) a folder of its frames."""
    name = sound(read_name(value))
    if not name:
        raise BadRow("ROW_MISSING_FIELD", "the video has no name")
    return MediaRef(kind="video", name=name, fps=fps)


def stem_video(stem: object) -> MediaRef:
    """A video known by its name without an ending, whichever ending it has."""
    if isinstance(stem, int) and not isinstance(stem, bool):
        stem = str(stem)
    return sound(video_file(stem))


# None and "" stand where a split is published without its answers
def letter_of(number: object, count: int) -> tuple[str, ...]:
    """The letter of an option's number from 0, given as a number or its digits; () for None."""
    if number in (None, ""):
        return ()
    digits = str(number).strip()
    if isinstance(number, bool) or not (digits.isascii() and digits.isdigit() and len(digits) < 3):
        raise BadRow("ROW_BAD_ANSWER", f"answer {str(number)[:40]!r} is no number of an option")
    if int(digits) >= count:
        raise BadRow("ROW_BAD_ANSWER", f"answer {digits}, {count} options")
    return (ascii_uppercase[int(digits)],)


def letter_given(value: object, count: int) -> tuple[str, ...]:
    """The letter of an answer that is published as a letter, `B`, `(B)` or `B. text`."""
    if value in (None, ""):
        return ()
    letter = _LETTER.match(value) if isinstance(value, str) else None
    if letter is None or letter[1] not in ascii_uppercase[:count]:
        raise BadRow("ROW_BAD_ANSWER", f"answer {str(value)[:40]!r}, {count} options")
    return (letter[1],)


def letter_of_text(value: object, options: Sequence[str]) -> tuple[str, ...]:
    """The letter of the one option that is the published answer's text."""
    if value is None:
        return ()
    same = [i for i, text in enumerate(options) if text == str(value).strip()]
    if len(same) != 1:
        raise BadRow("ROW_BAD_ANSWER", f"{str(value)[:40]!r} names {len(same)} options")
    return (ascii_uppercase[same[0]],)


def free_answers(value: object) -> tuple[str, ...]:
    """The right texts of a question without options, but for blank ones, which every reply would
    hold; () where a split is published without answers."""
    several = value if isinstance(value, (list, tuple)) else [value]
    texts = [str(text).strip() for text in several if text is not None]
    answers = tuple(text for text in texts if text)
    if texts and not answers:
        raise BadRow("ROW_BAD_ANSWER", "the answer is blank")
    return answers


def axes(**values: object) -> dict[str, tuple[str, ...]]:
    """Groups of an item: one value an axis, or a list of them; what is absent is left out."""
    groups = {}
    for name, value in values.items():
        several = value if isinstance(value, (list, tuple)) else [value]
        if texts := tuple(str(one_value) for one_value in several if one_value not in (None, "")):
            groups[name] = texts
    return groups


def split_options(text: str) -> tuple[str, tuple[str, ...]]:
    """(question, options) of a text that ends in lines `(A) ...` or `A. ...`, lettered from A.

    Without two such lines the options are empty and the text stays whole.
    """
    lines = text.strip().split("\n")
    # the first line from which on all lines are options
    for first in range(1, len(lines) - 1):
        options = bare_options(lines[first:])
        if options:
            return "\n".join(lines[:first]).strip(), options
    return text.strip(), ()


def bare_options(texts: Sequence[str]) -> tuple[str, ...]:
    """Options without the letters from A on that they bear; () where one does not bear its own."""
    bare = []
    for letter, text in zip(ascii_uppercase, texts, strict=False):
        marked = _OPTION.match(text.strip())
        # an option must bear its own letter: "A." before "B.", no gap
        if marked is None or marked[1] != letter:
            return ()
        bare.append(marked[2].strip())
    return tuple(bare) if all(bare) else ()
