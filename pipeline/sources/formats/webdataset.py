"""WebDataset tars: adjacent members of one name before its first dot are one sample.

`.json` holds an object, `.txt` and other text members one field each, called by what follows the
first dot; pictures and videos are the sample's media, in the order of their numbers. What is asked
and said is `conversations` or `messages` of the object, or what the recipe's `columns` name;
without either, `txt` or `caption` describes the medium. Media stay where they lie in the tar.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from pipeline.archives.member import ArchiveProblem, Member
from pipeline.archives.members import kind_of, members
from pipeline.archives.split_files import Concatenated
from pipeline.names import number_order
from pipeline.sources import json_rows
from pipeline.sources.fields import CHANGES_MEANING, MEDIA_FIELDS, Reads, Row
from pipeline.sources.formats import llava_json, table
from pipeline.sources.records import Columns, MediaRef, Record, RowRefusal, kept, refusal
from pipeline.untrusted import Problem
from shards.errors import UserError

MAX_MEMBER = 1 << 30  # bytes of one medium, which is in memory while it is hashed
_KINDS = dict.fromkeys("jpg jpeg png webp gif avif".split(), "image") | dict.fromkeys(
    "mp4 webm mkv mov avi m4v mpg mpeg".split(), "video"
)
_TEXTS = frozenset("txt text caption cls question answer id url".split())
_SOUNDS = frozenset("wav mp3 flac m4a ogg opus aac".split())
_UNREAD_MEDIA = frozenset(
    "heic heif tif tiff bmp jp2 j2k jxl svg flv ts mts m2ts wmv asf 3gp ogv vob rm rmvb f4v".split()
)
_CAPTIONS = ("txt", "caption", "text")
NOT_READ = "(a member, not read)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One member of a sample: what follows the first dot of its name, and its bytes, or why not."""

    field: str
    data: bytes
    start: int
    problem: Problem | None = None

    @property
    def ending(self) -> str:
        """The kind of the member: what follows the last dot."""
        return self.field.rpartition(".")[2]


def read(annotations: Path, columns: Columns = ()) -> Iterator[Record | RowRefusal]:
    """Records of one plain tar, each named by its members' name before the dot."""
    if kind_of(annotations.name) != "tar":
        raise UserError(f"{annotations}: media are read out of a plain .tar alone; unpack it first")
    seen: set[str] = set()
    with Concatenated([annotations]) as file:
        try:
            # webdataset itself groups adjacent members only: a name that comes again is another
            # sample there
            for name, parts in groupby(_parts(file), key=lambda pair: pair[0]):
                parts_of_sample = [part for _, part in parts]
                if name in seen:
                    reason = "members of this name do not lie together"
                    yield refusal(name, Problem("ROW_ID_CONFLICT", reason))
                    continue
                seen.add(name)
                yield _sample(name, parts_of_sample, annotations, columns)
        except ArchiveProblem as problem:
            raise UserError(f"{annotations}: {problem.detail}; fetch it again") from problem


def _parts(file: Concatenated) -> Iterator[tuple[str, Part]]:
    """(name of its sample, member) of a tar, each in memory by itself."""
    for member in members(file, "tar"):
        folder, mark, base = member.name.rpartition("/")
        # where a member's bytes begin: media are read again from there
        stem, _, field = base.partition(".")
        start = file.tell()
        data, problem = _bytes(member, field.lower())
        name = folder + mark + stem if stem and field else member.name
        yield name, Part(field=field.lower(), data=data, start=start, problem=problem)


def _bytes(member: Member, field: str) -> tuple[bytes, Problem | None]:
    """The bytes of a member that is read, and why it cannot be."""
    ending = field.rpartition(".")[2]
    if member.refusal:
        return b"", Problem("ARCHIVE_MEMBER_REFUSED", member.refusal)
    # members that nobody reads cost no memory
    if ending not in _KINDS and ending not in _TEXTS and ending != "json":
        return b"", None
    most = MAX_MEMBER if ending in _KINDS else json_rows.MAX_ROW_BYTES
    if member.nbytes > most:
        code = "MEDIA_TOO_BIG" if ending in _KINDS else "ROW_TOO_LONG"
        return b"", Problem(code, f"{field} has {member.nbytes} bytes, at most {most}")
    pieces = []
    while piece := member.read(1 << 20):
        pieces.append(piece)
    return b"".join(pieces), None


def _sample(name: str, parts: Sequence[Part], path: Path, columns: Columns) -> Record | RowRefusal:
    broken = [part.problem for part in parts if part.problem]
    if broken:
        return refusal(name, broken[0])
    row = _row(parts)
    if isinstance(row, Problem):
        return refusal(name, row)
    # in the order of their numbers, so that media have one order whatever the tar's
    media = tuple(
        MediaRef(
            kind=_KINDS[part.ending],
            data=part.data,
            address=f"range:{path.resolve()}#{part.start}:{len(part.data)}",
        )
        for part in sorted(parts, key=lambda part: number_order(part.field))
        if part.ending in _KINDS
    )
    return _record(name, row, media, dict(columns))


def _row(parts: Sequence[Part]) -> Row | Problem:
    """The fields of a sample: those of its object, and its members of text by their endings."""
    row: Row = {}
    for part in parts:
        value: Any = NOT_READ
        if part.ending in _KINDS:
            continue
        # without its medium a sample would say something else
        if part.ending in _UNREAD_MEDIA:
            reason = f"{part.field}: {part.ending.upper()} is not read; convert it to JPEG or MP4"
            return Problem("MEDIA_FORMAT_REFUSED", reason)
        if part.ending == "json":
            fields = json_rows.parse_row(part.data)
            if isinstance(fields, Problem):
                return fields
            row |= fields
            continue
        if part.ending in _TEXTS:
            try:
                value = part.data.decode("utf-8-sig").strip()
            except UnicodeDecodeError as error:
                return Problem("ROW_NOT_UTF8", f"{part.field}: byte {error.start} is not UTF-8")
        row["audio" if part.ending in _SOUNDS else part.field] = value
    return row


def _record(
    name: str, row: Row, media: tuple[MediaRef, ...], columns: Mapping[str, tuple[str, ...]]
) -> Record | RowRefusal:
    """The record of a row; its media are its members or, without any, those that it names."""
    named = llava_json.named_media(row)
    # names of the tar's own media are common in its object; more of them are media left behind
    if media and isinstance(named, tuple) and len(named) > len(media):
        reason = f"its object names {len(named)} media, beside it are {len(media)}"
        return refusal(name, Problem("ROW_FIELD_UNREAD", reason))
    caption = [field for field in _CAPTIONS if field in row][:1]
    if not columns and any(talk in row for talk in llava_json.TALKS):
        if not media:
            return kept(name, row, llava_json.READS, llava_json.record)
        # media are the tar's: fields that name media are then not read
        reads: Reads = {
            f: turn_fields for f, turn_fields in llava_json.READS.items() if f not in MEDIA_FIELDS
        }
        return kept(name, row, reads, partial(llava_json.record, read_media=partial(_own, media)))
    if not columns and not caption:
        reason = "neither conversations nor messages nor a caption; name `columns`"
        return refusal(name, Problem("ROW_MISSING_FIELD", reason))

    def media_of(cells: table.Cells) -> llava_json.Media:
        """The members of the tar, whatever the cells say."""
        return llava_json.spanned([*media], table.span_of(cells))

    meaning = CHANGES_MEANING if media else CHANGES_MEANING | MEDIA_FIELDS
    return table.read_row(name, row, columns or {"answer": (*caption,)}, media_of, meaning)


def _own(media: tuple[MediaRef, ...], row: Row) -> llava_json.Media:
    return llava_json.spanned([*media], llava_json.row_span(row))
