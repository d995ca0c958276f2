"""Kept or refused, with a reason code: nothing is dropped in silence, and the books balance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from shards.envelope import Envelope
from shards.errors import DamagedData, UserError, escaped
from shards.ids import sha256_hex
from shards.index import read_table, write_table
from shards.store import Store

STAGES = ("fetch", "admit", "decode", "plan")

DEATHS = 3
"""Of workers, on one unit of work, after which it is given up."""

CODES: Mapping[str, str] = {
    "ROW_NOT_JSON": "the record is not one JSON object",
    "ROW_NOT_UTF8": "the record is not UTF-8 text",
    "ROW_TOO_LONG": "the record is longer than the bound",
    "ROW_TOO_DEEP": "the record nests deeper than the bound",
    "ROW_EMPTY": "the record is blank",
    "ROW_NOT_FINITE": "the record holds NaN or an infinite number",
    "ROW_DUPLICATE_KEY": "the record names one key twice",
    "ROW_NOT_OBJECT": "the record is not an object",
    "ROW_MISSING_FIELD": "the record lacks a required field",
    "ROW_WRONG_TYPE": "a field of the record has the wrong type",
    "ROW_EMPTY_ID": "the record's id is blank",
    "ROW_BAD_ID": "the record's id holds control or direction characters",
    "ROW_ID_CONFLICT": "two records share an id and differ",
    "ROW_DUPLICATE": "the same record stands twice in one source",
    "ROW_PREFERENCE": "the record tells good answers from bad ones",
    "ROW_FIELD_UNREAD": "a field of the record is not read and changes its meaning, or none may be",
    "ROW_BAD_ANSWER": "a multiple-choice answer names no option",
    "TEXT_NUL": "the text holds a NUL character",
    "TEXT_SURROGATE": "the text holds half a surrogate pair",
    "TEXT_TOO_LONG": "a text is longer than the bound",
    "TEXT_SPECIAL_TOKEN": "the text spells a control token",
    "TURNS_EMPTY": "the conversation is empty",
    "TURNS_NO_ANSWER": "the conversation has no answer",
    "TURNS_TOO_MANY": "the conversation has too many turns",
    "TURNS_OUT_OF_ORDER": "the roles do not alternate",
    "TURN_WRONG_SHAPE": "a turn is not {from, value}",
    "TURN_EMPTY": "a turn says nothing",
    "TURN_WEIGHT": "a turn's weight in the loss is neither 0 nor 1, or is that of no answer",
    "SPAN_INVALID": "the time span is empty, negative or infinite",
    "SPAN_WRONG_TYPE": "the time span is not two numbers",
    "SPAN_OUTSIDE": "the time span lies outside the video",
    "MEDIA_PATH_REFUSED": "the media path is absolute, climbs, or is an address",
    "MEDIA_PLACEHOLDER_COUNT": "placeholders and media differ in number",
    "MEDIA_MISSING": "the media that the record names is not there",
    "MEDIA_LINK_ONLY": "the publisher only links to the video, and the media do not hold it",
    "MEDIA_AMBIGUOUS": "several media of the source answer to the name",
    "MEDIA_NOT_A_FILE": "the media is not a regular file",
    "MEDIA_EMPTY": "the media file is empty",
    "MEDIA_TOO_BIG": "the media file is larger than the bound",
    "MEDIA_LFS_POINTER": "the media file is a git-lfs pointer, not the media",
    "MEDIA_UNREADABLE": "no allowed format recognises the bytes",
    "MEDIA_UNDECODABLE": "the decoder failed on the bytes",
    "MEDIA_DAMAGED": "the decoder reported damage",
    "MEDIA_TRUNCATED": "the media ends before its index says",
    "MEDIA_SHORT": "fewer frames came out than the duration promises",
    "MEDIA_LONG": "more frames came out than the duration promises",
    "MEDIA_FORMAT_REFUSED": "the container format is not on the list",
    "MEDIA_CODEC_REFUSED": "the codec is not on the list",
    "MEDIA_COLOUR_REFUSED": "the colour space cannot be mapped",
    "MEDIA_NO_VIDEO": "the file holds no video stream",
    "MEDIA_NO_KEYFRAME": "the stream starts without a key frame",
    "MEDIA_SIZE_CHANGES": "the frame size changes within the stream",
    "MEDIA_BAD_DURATION": "the duration is missing, zero or beyond the bound",
    "MEDIA_BAD_FPS": "the frame rate is zero or beyond the bound",
    "MEDIA_BAD_ASPECT": "the aspect ratio is beyond the bound",
    "MEDIA_TOO_SMALL": "a side is smaller than the bound",
    "MEDIA_TOO_MANY_PIXELS": "the frame has more pixels than the bound",
    "MEDIA_TOO_MANY_SCANS": "a JPEG goes over its picture more often than the bound",
    "MEDIA_TOO_MANY_STREAMS": "the file has more streams than the bound",
    "MEDIA_TOO_SLOW": "decoding ran into its time limit",
    "MEDIA_TOO_MUCH_MEMORY": "decoding ran into its memory limit",
    "MEDIA_ANIMATED": "an image file holds several frames",
    "MEDIA_METADATA_BOMB": "the image's metadata unpacks beyond the bound",
    "MEDIA_KILLED_WORKER": "decoding killed its worker three times",
    "FETCH_ADDRESS_REFUSED": "the address is not a public https address",
    "FETCH_TOO_MANY_HOPS": "the address is redirected more often than the bound",
    "FETCH_NOT_MEDIA": "what came is a web page or something else that is no media",
    "FETCH_TOO_BIG": "more bytes came than the bound",
    "FETCH_TOO_SLOW": "the bytes came too slowly, or took longer than the bound",
    "FETCH_SHORT": "fewer bytes came than the server promised",
    "FETCH_CHANGED": "the bytes are not those that the publisher names",
    "FETCH_REFUSED": "the server refused the request",
    "FETCH_UNREACHABLE": "the server could not be reached",
    "ARCHIVE_MEMBER_REFUSED": "the archive's member is not a plain file with a plain name",
    "ARCHIVE_TOO_BIG": "the archive has more members, or unpacks to more, than the bound",
    "ARCHIVE_DAMAGED": "the archive that may hold the media cannot be read to its end",
    "LICENCE_REFUSED": "the licence is not on the recipe's list",
    "EXCLUDED": "the recipe's `exclude` file names it",
    "FILTER_REFUSED": "a filter of the recipe excludes it",
    "DUPLICATE_SAMPLE": "another sample of the recipe has the same media and the same turns",
    "DUPLICATE_NEAR": "another sample of the recipe has the same media and nearly the same turns",
    "CLIP_CAPPED": "as many samples as the recipe allows show its clip already",
    "LEAK_MEDIA": "the media match held-out media",
    "LEAK_TEXT": "the conversation asks a held-out question",
    "SAMPLE_TOO_LONG": "the sample does not fit into one pack",
}


AGAIN = {
    "MEDIA_TOO_SLOW": "on a machine that was busy",
    "MEDIA_TOO_MUCH_MEMORY": "on a machine with more memory",
    "MEDIA_KILLED_WORKER": "on a machine with more memory",
    "FETCH_TOO_SLOW": "the server may have been busy",
    "FETCH_SHORT": "the server may have been busy",
    "FETCH_REFUSED": "the server may have been mended",
    "FETCH_UNREACHABLE": "the server may have been mended",
}
"""Codes of media that may be had another time, with the reason (`build --retry`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A sample, or a whole record, that is not kept; `key` is empty before a key exists."""

    source: str
    record: str
    key: str
    stage: str
    code: str
    detail: str
    origin: str

    def __post_init__(self) -> None:
        if self.code not in CODES or self.stage not in STAGES:
            raise AssertionError(f"unknown refusal {self.stage}/{self.code}")
        # frozen: set once, here
        object.__setattr__(self, "detail", escaped(self.detail))  # it goes to pages and terminals


BOOKS = "books.json"
_ENVELOPE = Envelope(
    schema="slowfast-mix/books/2",
    if_damaged="remove it and build again",
    if_outdated="build again",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """The accounts of one source (data model, "Books"); counts of records or samples.

    `joined` of the chosen samples are in another one; `drawn` and `repeats` count what is left.
    `unread` counts, by name, the fields that nobody reads of the samples in `parsed`.
    `names` counts what the names of its media made necessary (pipeline.sources.name_notes).
    """

    source: str
    records: int
    records_refused: int
    samples: int
    samples_refused: int
    not_chosen: int
    chosen: int
    drawn: int
    repeats: int
    joined: int = 0
    unread: Mapping[str, int] = field(default_factory=dict)
    names: Mapping[str, int] = field(default_factory=dict)

    @property
    def parsed(self) -> int:
        return self.records - self.records_refused

    @property
    def admitted(self) -> int:
        return self.samples - self.samples_refused

    def check(self, refused_records: int, refused_samples: int, verdicts: int) -> None:
        """Raise UserError unless the accounts equal the refusals that were written down."""
        # double-entry: every count is held against what was written down
        pairs = (
            ("records refused", self.records_refused, refused_records),
            ("samples", self.samples, self.parsed),
            ("samples refused", self.samples_refused, refused_samples),
            ("not chosen", self.not_chosen, verdicts),
            ("chosen", self.chosen, self.admitted - self.not_chosen),
        )
        for what, counted, written in pairs:
            if counted != written:
                raise UserError(
                    f"the books of {self.source!r} do not balance: {what} {counted}, "
                    f"written down {written}; nothing was published"
                )
        # joined conversations are drawn within another's sample
        if not 0 <= self.drawn <= self.chosen - self.joined <= self.chosen:
            raise UserError(f"the books of {self.source!r} do not balance: drawn {self.drawn}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeCount:
    """How many rows of a table of refusals have a code, and the first of them as an example."""

    code: str
    count: int
    record: str
    detail: str

    def __str__(self) -> str:
        example = ": ".join(part for part in (self.record, self.detail) if part)
        return f"{self.count} {self.code} ({CODES[self.code]}; e.g. {example})"


def top_codes(refused: pa.Table, source: str, most: int = 3) -> list[CodeCount]:
    """The most frequent codes of a source in a table of REFUSED, most frequent first."""
    # the table is in the order of refusal: the first row is the example
    own = refused.filter(pc.equal(refused["source"], source))
    codes = own["code"].to_pylist()
    found = []
    for code, count in Counter(codes).most_common(most):
        (row,) = own.slice(codes.index(code), 1).to_pylist()
        found.append(CodeCount(code=code, count=count, record=row["record"], detail=row["detail"]))
    return found


def write_books(store: Store, books: Sequence[Books], tables: Mapping[str, pa.Table]) -> None:
    """The accounts, and the tables behind them by file name; books.json last, with their sha256."""
    # tables first: the books name their digests
    blobs = {name: write_table(table) for name, table in tables.items()}
    for name, data in blobs.items():
        store.put(name, data)
    digests = {name: sha256_hex(data) for name, data in blobs.items()}
    value = {"sources": [asdict(one) for one in books], "tables": digests}
    store.put(BOOKS, _ENVELOPE.seal(value))


def read_books(store: Store) -> tuple[tuple[Books, ...], dict[str, pa.Table]]:
    """What `write_books` wrote; DamagedData names what is not as it was written."""
    value = _ENVELOPE.unseal(store.get(BOOKS), store.path(BOOKS))
    tables = {}
    for name, digest in value["tables"].items():
        data = store.get(name)
        where = store.path(name)
        if sha256_hex(data) != digest:
            raise DamagedData(f"{where}: not the table that {BOOKS} names; build again")
        tables[name] = read_table(data, where)
    return tuple(Books(**one) for one in value["sources"]), tables


def worth_another_try(refusals: pa.Table) -> str:
    """Which codes among rows of REFUSED may pass another time, and how to try; or ""."""
    counts = Counter(code for code in refusals["code"].to_pylist() if code in AGAIN)
    if not counts:
        return ""
    told = ", ".join(f"{counts[code]} {code} ({AGAIN[code]})" for code in AGAIN if counts[code])
    return f"worth another try: {told}; build again with --retry {' '.join(sorted(counts))}"
