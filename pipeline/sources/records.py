"""What every format's record must satisfy, and the strict reading of one published row.

Rows come from strangers: everything is bounded, and a bad row is a value (`RowRefusal` with a
code of `shards.outcome.CODES`), never an exception.
"""

from __future__ import annotations

import functools
import hashlib
import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.sources.fields import CHANGES_MEANING, MEDIA_FIELDS, Reads, Row, is_empty, unread
from pipeline.sources.numbered import NBYTES, NumberedIds, NumberedTexts
from pipeline.untrusted import DIRECTION_MARKS, MAX_PATH, Problem, path_problems, text_problems
from shards.ids import sha256_hex, short_hash
from shards.sample import Turn, digest_turns

MAX_ID = 512
MAX_TEXT = 200_000
MAX_TURNS = 200

# VideoInstruct-100K left this label of its makers in the questions; LLaVA-NeXT strips it as well.
NOISE = "QA_GT_caption_based_noisy"
# Every spelling <|word|>, and the markers of media, turns and places of the known families.
SPECIAL = re.compile(
    r"<\|[A-Za-z0-9_]{1,40}\|>"
    r"|<(?:image|video|audio|im_start|im_end|im_patch|vid_start|vid_end|bbox|ref-object)>"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaRef:
    """One image or video of a record, in one of these forms.

    `name`    a relative path in the source's media; `also` holds other names it may have. With
              `fps`, a folder of pictures, so many a second, in order of their numbers; with
              `sizes`, pieces of the file that follow each other from byte `start` on, each one a
              picture
    `data`    the bytes themselves; `address` says where `pipeline.stages.open_media` finds them
              again
    `url`     where the bytes are to be had

    `span` is (start, end) in microseconds, or None for the whole. `link_only` marks a video that
    its publisher only cites on a video site: it is used where the media hold it, never scraped.
    """

    kind: str
    name: str = ""
    also: tuple[str, ...] = ()
    fps: int | None = None
    start: int = 0
    sizes: tuple[int, ...] = ()
    data: bytes | None = None
    address: str = ""
    url: str = ""
    span: tuple[int, int] | None = None
    link_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One published record: its id, its conversation, the media it talks about.

    `licence` is the record's own, where its publisher names one; else it is its source's. `unread`
    holds the fields that its format leaves behind, each with one value (pipeline.sources.fields).
    """

    record: str
    turns: tuple[Turn, ...]
    media: tuple[MediaRef, ...] = ()
    licence: str = ""
    unread: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowRefusal:
    """A published record that cannot be used, by reason; `record` names it as far as it can be."""

    record: str
    code: str
    detail: str


# The parts of a row ------------------------------------------------------------


def field_problem(row: Row, names: Sequence[str]) -> Problem | None:
    """The first of these fields that the row lacks."""
    missing = [name for name in names if name not in row]
    return Problem("ROW_MISSING_FIELD", f"no {', '.join(missing)}") if missing else None


def read_id(value: Any) -> str | Problem:
    """A published id as text: whole numbers are allowed, Unicode is put into form NFC."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return Problem("ROW_WRONG_TYPE", f"id is a {type(value).__name__}")
    # one spelling of an id: publishers mix Unicode forms between files
    return unicodedata.normalize("NFC", str(value))


def read_name(value: Any) -> str | Problem:
    """A media path as published, without "." and empty parts; `check` judges it."""
    if not isinstance(value, str):
        return Problem("ROW_WRONG_TYPE", f"a media path is a {type(value).__name__}")
    # PurePosixPath folds "a//b" and "./a", and leaves ".." for `check` to refuse
    return str(PurePosixPath(value)) if value else value


def spoken_text(value: Any, what: str) -> str | Problem:
    """A question or an answer without white space at its ends and its makers' label."""
    if not isinstance(value, str):
        return Problem("ROW_WRONG_TYPE", f"{what} is a {type(value).__name__}")
    return value.replace(NOISE, "").strip()


def embedded(path: Path, row_number: int, index: int, column: str = "") -> str:
    """The address of the bytes in row `row_number` of a Parquet file, the `index`-th of a list.

    `column` names theirs where it is not one that every publisher uses.
    """
    return f"parquet:{path.resolve()}#{row_number:09d}/{index}" + (f"/{column}" if column else "")


def read_span(value: Any) -> tuple[int, int] | Problem | None:
    """A span [start, end] in seconds as microseconds; None stays None, as do two of them."""
    if value is None or value == [None, None]:
        return None
    if not isinstance(value, list) or len(value) != 2:
        return Problem("SPAN_WRONG_TYPE", "the span is not [start, end]")
    if any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in value):
        return Problem("SPAN_WRONG_TYPE", "start and end must be numbers of seconds")
    # NaN compares unequal to itself
    if any(v != v or abs(v) > 1e9 for v in value):
        return Problem("SPAN_INVALID", "the span is not finite")
    # by way of a fraction: the float's own value, rounded once
    start, end = (round(Fraction(v) * 1_000_000) for v in value)
    return start, end


# The rules ---------------------------------------------------------------------


def check(record: Record) -> Record | RowRefusal:
    """The record, or the first rule it breaks."""
    for problem in _problems(record):
        return refusal(record.record, problem)
    return record


def refusal(name: str, problem: Problem) -> RowRefusal:
    """The refusal of the record called `name`, whatever characters that name holds."""
    # an id that could harm a terminal is spelled out
    label = name if next(_id_problems(name), None) is None else ascii(name[:64])
    return RowRefusal(record=label, code=problem.code, detail=problem.detail)


def _problems(record: Record) -> Iterator[Problem]:
    yield from _id_problems(record.record)
    yield from _turn_problems(record.turns)
    for number, turn in enumerate(record.turns):
        yield from text_problems(turn.text, f"turn {number}", MAX_TEXT)
        # a special token in a text would become one in training
        if token := SPECIAL.search(turn.text):
            yield Problem("TEXT_SPECIAL_TOKEN", f"turn {number} spells {token[0]}")
    for ref in record.media:
        yield from _media_problems(ref)
    # each medium stands exactly once, in order
    places = [clip for turn in record.turns for clip, _ in turn.media]
    if places != list(range(len(record.media))):
        yield Problem("MEDIA_PLACEHOLDER_COUNT", f"places {places}, {len(record.media)} media")


def _id_problems(name: str) -> Iterator[Problem]:
    if not name.strip():
        yield Problem("ROW_EMPTY_ID", "the id is blank")
    yield from text_problems(name, "the id", MAX_ID)
    if any(c in DIRECTION_MARKS or unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in name):
        yield Problem("ROW_BAD_ID", "the id holds control or direction characters")


def _turn_problems(turns: Sequence[Turn]) -> Iterator[Problem]:
    if not turns:
        yield Problem("TURNS_EMPTY", "no turn")
    if len(turns) > MAX_TURNS:
        yield Problem("TURNS_TOO_MANY", f"{len(turns)} turns")
    for number, turn in enumerate(turns):
        if not turn.text.strip():
            yield Problem("TURN_EMPTY", f"turn {number} says nothing")
    roles = [turn.role for turn in turns]
    if roles[:1] == ["system"]:
        roles = roles[1:]
    # one optional system turn, then user and assistant in turn
    if roles != [("user", "assistant")[i % 2] for i in range(len(roles))]:
        yield Problem("TURNS_OUT_OF_ORDER", " ".join(roles)[:100])
    if roles[-1:] != ["assistant"]:
        yield Problem("TURNS_NO_ANSWER", "the last turn is no answer")
    if not any(turn.loss for turn in turns):
        yield Problem("TURNS_NO_ANSWER", "no answer has a loss")


def _media_problems(ref: MediaRef) -> Iterator[Problem]:
    if ref.url:
        yield from text_problems(ref.url, "the media address", MAX_PATH)
    elif ref.data is None:
        for name in (ref.name, *ref.also):
            yield from path_problems(name)
    elif not ref.data:
        yield Problem("MEDIA_EMPTY", "the embedded media holds no bytes")
    if ref.span is None:
        return
    start, end = ref.span
    if ref.kind == "image" or not 0 <= start < end:
        yield Problem("SPAN_INVALID", f"{start}..{end} microseconds of a {ref.kind}")


Columns = tuple[tuple[str, tuple[str, ...]], ...]
"""(what it means, the names of its columns) of each column that a recipe names."""

RecordOf = Callable[[str, Row], Record | RowRefusal]
"""Makes a record of a row's name and its fields."""


def kept(
    name: str,
    row: Row,
    reads: Reads,
    record_of: RecordOf,
    meaning: Collection[str] = CHANGES_MEANING,
) -> Record | RowRefusal:
    """The record of a row called `name`, with the fields that its format leaves behind."""
    # fields that change the meaning refuse the row before it is read
    left_behind = unread(row, reads, meaning)
    if isinstance(left_behind, Problem):
        return refusal(name, left_behind)
    item = record_of(name, row)
    if isinstance(item, Record):
        return replace(item, unread=left_behind)
    # a placeholder without a medium: most likely the medium is in a field that nobody reads
    if item.code == "TEXT_SPECIAL_TOKEN" and left_behind and not _names_media(row, reads):
        reason = f"{item.detail}, and names no medium in a field that is read; not read: "
        return replace(
            item, code="ROW_MISSING_FIELD", detail=(reason + ", ".join(left_behind))[:300]
        )
    return item


def _names_media(row: Row, reads: Reads) -> bool:
    """Whether a field of a row that is read says where a medium is."""
    return any(name in reads and not is_empty(row.get(name)) for name in MEDIA_FIELDS)


# Across rows -------------------------------------------------------------------


def _place(ref: MediaRef) -> str | list[str | int]:
    """What tells one medium from another before its bytes are known."""
    if ref.data is not None:
        return sha256_hex(ref.data)
    return [ref.name, ref.start, *ref.sizes] if ref.sizes else ref.url or ref.name


@functools.lru_cache(maxsize=1)
def said(turns: tuple[Turn, ...]) -> str:
    """`shards.sample.digest_turns` of a record that is asked about twice in a row."""
    return digest_turns(turns)


def content_id(record: Record) -> str:
    """H of what a record says: its turns and its media, not its id."""
    media = [[ref.kind, _place(ref), list(ref.span or ())] for ref in record.media]
    return short_hash([said(record.turns), media])


def once_each(
    published: Iterable[Record | RowRefusal], *, ids_repeat: bool = False
) -> Iterator[Record | RowRefusal]:
    """The same stream, one item per item; later records that repeat an id or a content refused.

    Where a publisher lets ids repeat, a later record of an id becomes `<id>#2`, `<id>#3`, ...
    """
    kept_records = _Kept()
    seen: Counter[str] = Counter()
    for item in published:
        if isinstance(item, RowRefusal):
            yield item
            continue
        content = bytes.fromhex(content_id(item))
        # the first record of a content stays, whatever its id
        first = kept_records.name_of(content)
        differs = kept_records.differs(item.record, content)
        # different records under one id: numbered where the publisher lets ids repeat
        if ids_repeat:
            seen[item.record] += 1
            if differs and first is None:
                item = replace(item, record=f"{item.record}#{seen[item.record]}")
        if differs and not ids_repeat:
            reason = "an earlier record differs; `ids_repeat: true` numbers them"
            yield refusal(item.record, Problem("ROW_ID_CONFLICT", reason))
        elif first is not None:
            yield refusal(item.record, Problem("ROW_DUPLICATE", f"says what {first} says"))
        else:
            kept_records.add(item.record, content)
            yield item


class _Kept:
    """The records that stay, by their ids and their contents."""

    def __init__(self) -> None:
        self._contents, self._names = NumberedIds(), NumberedTexts()
        # ids by their hash, each with the number of its content
        self._ids, self._content_of = NumberedIds(), array("I")

    def name_of(self, content: bytes) -> str | None:
        """The id of the record that has this content."""
        number = self._contents.find(content)
        return None if number < 0 else self._names[number]

    def differs(self, name: str, content: bytes) -> bool:
        """Whether a record of this id stays that has another content."""
        number = self._ids.find(_hashed(name))
        return number >= 0 and self._content_of[number] != self._contents.find(content)

    def add(self, name: str, content: bytes) -> None:
        """A record that stays; of records of one id the last counts."""
        self._names.append(name)
        number = self._ids.add(_hashed(name))
        self._content_of.extend([0] * (number + 1 - len(self._content_of)))
        self._content_of[number] = self._contents.add(content)


def _hashed(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:NBYTES]
