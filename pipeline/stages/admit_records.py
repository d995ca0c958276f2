"""Published records -> samples, the media they name, and refusals: one receipt a source."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.details import sentence
from pipeline.fetch import links, local_files
from pipeline.fetch.digest_cache import Digests
from pipeline.sources import file_names, records
from pipeline.sources.media_lookup import Found, MediaTable, folder_table, joined
from pipeline.sources.name_notes import NameNotes
from pipeline.sources.numbered import NumberedIds, NumberedTexts
from pipeline.sources.records import (
    Columns,
    MediaRef,
    Record,
    RowRefusal,
    once_each,
    refusal,
    said,
)
from pipeline.sources.spilled import SpilledRows
from pipeline.stages import named_media
from pipeline.stages.list_media import NamesUnit
from pipeline.untrusted import Problem
from shards.ids import clip_id, sample_key, short_hash
from shards.index import FETCHED, MEDIA, NAMED, REFUSED, SAMPLES, UNREAD, table_of
from shards.outcome import Refused
from shards.pool import Pool, Receipt
from shards.receipts import Work
from shards.sample import turns_to_json

ADMIT_VERSION = "2"
ADMISSION_BYTES = 600 << 20
"""What reading the records of a source may take, whatever their number (`benchmarks admission`)."""
MAX_UNREAD = 200  # names of fields that are told apart; hostile rows have no end of them
LATELY = 1 << 12
"""Clips whose ids are kept, since records near each other show the same ones."""
_NAME = 64  # characters that are kept of a name
_EXAMPLE = 80  # and of a value


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceUnit:
    """One source of a recipe, as published: annotations and, apart from them, media.

    `annotations` are pinned addresses (pipeline.fetch.local_files), `media` is a folder or "",
    `loose` are (name, pinned address) of files beside it, `homes` the recipe's folders, in which
    links may end; `wanted` and `members` are the pool's tables of what its records want of archives
    and addresses, and of what these held. `columns` says what the columns of a table mean; with
    `unread_fields` "refuse" every field must be read.
    """

    pool: str
    name: str
    dataset: str
    format: str
    annotations: tuple[str, ...]
    media: str
    licence: str
    loose: tuple[tuple[str, str], ...] = ()
    wanted: str = ""
    ids_repeat: bool = False
    members: tuple[str, ...] = ()
    columns: Columns = ()
    unread_fields: str = "keep"
    homes: tuple[str, ...] = ()

    def rules(self) -> dict[str, Any]:
        """How the same files are read otherwise than as they are: part of their revision."""
        stated = {
            "columns": [[name, list(columns)] for name, columns in self.columns],
            "ids_repeat": int(self.ids_repeat),
            "unread_fields": "" if self.unread_fields == "keep" else self.unread_fields,
        }
        return {name: value for name, value in stated.items() if value}


def admit(unit: SourceUnit) -> Receipt:
    """Every published record becomes one sample or one refusal."""
    pool = Pool(unit.pool)
    hashed = Digests([unit.annotations, unit.media, unit.loose])
    # digests of local files are cached by size and time: admission is run on every build
    files = [_hashed(local_files.local(address), hashed) for address in unit.annotations]
    table = _media_of(unit, pool, hashed)
    origins = _origins(unit, files)
    digests, places = _answered(unit, table, origins)
    hashed.save()
    # what the records name decides the revision, not what else lies in the folder
    inputs = [*(file.digest for file in files), digests]
    rules = unit.rules()
    if names := file_names(unit.format, [file.path for file in files]):
        rules["files"] = names
    parameters = {
        "source": unit.name,
        "dataset": unit.dataset,
        "format": unit.format,
        "licence": unit.licence,
        "profile": pool.profile.profile_id,
        "revision": short_hash([*inputs, rules] if rules else inputs),
        "rules": rules,
        # of no revision: media that moved are admitted anew, for their addresses
        "places": places,
        # places are parameters, not inputs: a moved folder is admitted again at the same revision
    }
    work = Work("admit", ADMIT_VERSION, parameters, inputs)
    if done := pool.done(work):
        return done
    return _Admission(unit, pool, table, origins, str(parameters["revision"])).run(files, work)


def wholly_read(item: Record | RowRefusal) -> Record | RowRefusal:
    """The item, refused if its format leaves a field of it behind."""
    if isinstance(item, RowRefusal) or not item.unread:
        return item
    names = ", ".join(_printable(name, _NAME) for name in sorted(item.unread))
    return refusal(item.record, Problem("ROW_FIELD_UNREAD", f"holds {names}"[:300]))


def _printable(value: Any, most: int) -> str:
    """The beginning of a value, in signs that any terminal and any table takes."""
    # control characters of hostile rows must not reach a terminal
    text = value[: most + 1] if isinstance(value, str) else repr(value)
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _answered(unit: SourceUnit, table: MediaTable, origins: Mapping[str, str]) -> tuple[str, str]:
    """H of what answers the names of the records, and of where that lies; embedded media are part
    of the annotations."""
    if not (unit.media or unit.loose or unit.members):
        return named_media.hashes((), unit.annotations, origins)
    named = NamesUnit(
        pool=unit.pool, format=unit.format, annotations=unit.annotations, columns=unit.columns
    )
    return named_media.answered(named, table, origins)


def _hashed(local: local_files.Local, hashed: Digests) -> local_files.Local:
    return local if local.digest else replace(local, digest=hashed.of(local.path))


def _media_of(unit: SourceUnit, pool: Pool, hashed: Digests) -> MediaTable:
    """The folder's files, and what the archives and addresses of the source held."""
    root = local_files.resolve(unit.media, "media") if unit.media else None
    table = folder_table(root, hashed.of, unit.homes)
    loose = {name: _hashed(local_files.local(address), hashed) for name, address in unit.loose}
    table = replace(
        table,
        loose={name: (file.digest, _real(file, unit.homes)) for name, file in loose.items()},
    )
    if not unit.members:
        return table
    # other sources share the archive's table: only the names that this one wants
    wanted = set(pool.read(f"index/wanted/{unit.wanted}")["name"].to_pylist()) | {""}
    rows = (row for name in unit.members for row in pool.read(f"index/members/{name}").to_pylist())
    return replace(table, members=joined(row for row in rows if row["name"] in wanted))


def _origins(unit: SourceUnit, files: Sequence[local_files.Local]) -> dict[str, str]:
    """Where this machine has the files of a source -> their pinned addresses."""
    loose = (local_files.local(address) for _, address in unit.loose)
    origins = {str(file.path.resolve()): file.address for file in files}
    return origins | {str(file.path): file.address for file in loose}


def _real(local: local_files.Local, homes: Sequence[str]) -> Path:
    """Where a loose file lies; a link that leads elsewhere stays one, which no door opens."""
    # the target is opened later, by its resolved path: what a link means is decided once
    return links.target(local.path, links.homes(local.path.parent.resolve(), homes)) or local.path


class _Unread:
    """The fields that a format leaves behind: of how many samples, and one value of each."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, Any]] = {}

    def note(self, record: Record) -> None:
        """One more record, with what is left behind of it."""
        for field, value in record.unread.items():
            name = _printable(field, _NAME)
            # all names beyond the bound are counted as one
            if name not in self._rows and len(self._rows) >= MAX_UNREAD:
                name = "..."
            if name not in self._rows:
                example = _printable(value, _EXAMPLE)
                self._rows[name] = {"field": name, "records": 0, "example": example}
            self._rows[name]["records"] += 1

    def table(self) -> pa.Table:
        """Rows of shards.index.UNREAD."""
        return table_of(UNREAD, (self._rows[name] for name in sorted(self._rows)))


class _Clips:
    """The clips that records show, written down: rows of MEDIA, which may come more than once."""

    def __init__(
        self, media_rows: SpilledRows, profile_id: str, origins: Mapping[str, str]
    ) -> None:
        self.media_rows = media_rows
        self.profile_id = profile_id
        self.origins = origins
        # many records may show one medium, most of them near each other
        self.lately: dict[tuple[object, ...], str] = {}

    def noted(self, ref: MediaRef, located: Found) -> str:
        """The id of a clip, whose row is written down unless it was a short while ago."""
        shown = located.digest, located.address, ref.kind, ref.span, ref.fps
        if name := self.lately.get(shown):
            return name
        if len(self.lately) >= LATELY:
            self.lately.clear()
        # a clip is content, kind, span and profile: equal media of other sources are the same clip
        name = clip_id(located.digest, ref.kind, ref.span, self.profile_id, ref.fps)
        self.lately[shown] = name
        self.media_rows.append(
            {
                "clip_id": name,
                "media_digest": located.digest,
                "kind": ref.kind,
                "address": named_media.portable(located.address, self.origins),
                "span": None if ref.span is None else list(ref.span),
            }
        )
        return name


class _Admission:
    """The tables of one source while its records are read."""

    def __init__(
        self,
        unit: SourceUnit,
        pool: Pool,
        table: MediaTable,
        origins: Mapping[str, str],
        revision: str,
    ) -> None:
        self.unit = unit
        self.pool = pool
        self.names = table
        self.revision = revision
        self.origins = origins
        # the keys of samples, and the ids of their records
        self.keys, self.first = NumberedIds(), NumberedTexts()
        self.pieces: dict[str, Found | Problem] = {}
        self.notes = NameNotes(table)
        self.unread = _Unread()
        self.counts: Counter[str] = Counter()

    def run(self, files: Sequence[local_files.Local], work: Work) -> Receipt:
        """Admit the records of these files, and commit their tables under this work."""
        # rows lie on disk until they are committed: neither records nor tables fit into memory
        with (
            SpilledRows(SAMPLES, ["key"]) as self.samples,
            SpilledRows(MEDIA, ["clip_id", "address"]) as self.media,
            SpilledRows(REFUSED) as self.refused,
        ):
            self.clips = _Clips(self.media, self.pool.profile.profile_id, self.origins)
            self._read(files)
            return self._commit(files, work)

    def _read(self, files: Sequence[local_files.Local]) -> None:
        items = records(self.unit.format, [file.path for file in files], self.unit.columns)
        if self.unit.unread_fields == "refuse":
            items = map(wholly_read, items)
        for item in once_each(items, ids_repeat=self.unit.ids_repeat):
            self.counts["records"] += 1
            if isinstance(item, RowRefusal):
                self.counts["records_refused"] += 1
                self._refuse(item.record, "", item.code, item.detail)
            else:
                self.counts["samples"] += 1
                self.unread.note(item)
                self._admit(item)

    def _commit(self, files: Sequence[local_files.Local], work: Work) -> Receipt:
        # tables in the order of their keys: their bytes, and so their names, are the same in every
        # run
        tables: dict[str, pa.Table | Iterable[pa.Table]] = {
            "named": table_of(NAMED, self.notes.rows()),
            "index/samples": self.samples.tables(),
            "index/media": self.media.tables(),
            "refused": self.refused.tables(),
            "unread": self.unread.table(),
        }
        fetched = [file for file in files if local_files.is_remote(file.address)]
        if fetched:
            rows = ({n: getattr(file, n) for n in FETCHED.names} for file in fetched)
            tables["fetched"] = table_of(FETCHED, rows)
        names = ("records", "records_refused", "samples", "samples_refused")
        counts = {name: self.counts[name] for name in names}
        return self.pool.commit(work, tables, counts=counts)

    def _admit(self, record: Record) -> None:
        clip_ids = []
        # one missing medium refuses the record: a sample with fewer images is another sample
        for ref in record.media:
            located = self._find(ref)
            if isinstance(located, Problem):
                self.counts["samples_refused"] += 1
                self._refuse(record.record, "", located.code, located.detail, stage="fetch")
                return
            self.notes.note(ref.name, located)
            clip_ids.append(self.clips.noted(ref, located))
        self._keep(record, clip_ids)

    def _find(self, ref: MediaRef) -> Found | Problem:
        """Where the medium is; pieces of a file are hashed once, however many records name them."""
        if not ref.sizes:
            return self.names.find(ref)
        name = short_hash([ref.name, ref.fps, ref.start, *ref.sizes])
        if name not in self.pieces:
            self.pieces[name] = self.names.find(ref)
        return self.pieces[name]

    def _keep(self, record: Record, clip_ids: list[str]) -> None:
        digest = said(record.turns)
        key = sample_key(digest, clip_ids)
        # equal turns over equal clips: the first record stays, whatever its id
        number = self.keys.add(bytes.fromhex(key))
        if number < len(self.first):
            self.counts["samples_refused"] += 1
            told = f"the same sample as {self.first[number]!r}"
            self._refuse(record.record, key, "ROW_DUPLICATE", told)
            return
        self.first.append(record.record)
        self.samples.append(
            {
                "source": self.unit.name,
                "revision": self.revision,
                "key": key,
                "record": record.record,
                "turns": json.dumps(turns_to_json(record.turns), ensure_ascii=False),
                "turns_digest": digest,
                "clip_ids": clip_ids,
                "dataset": self.unit.dataset,
                "licence": record.licence or self.unit.licence,
                "num_turns": len(record.turns),
                "num_chars": sum(len(turn.text) for turn in record.turns),
            }
        )

    def _refuse(self, record: str, key: str, code: str, detail: str, stage: str = "admit") -> None:
        refusal = Refused(
            source=self.unit.name,
            record=record,
            key=key,
            stage=stage,
            code=code,
            detail=sentence(detail),
            origin=f"{self.unit.dataset}@{self.revision}",
        )
        self.refused.append({name: getattr(refusal, name) for name in REFUSED.names})
