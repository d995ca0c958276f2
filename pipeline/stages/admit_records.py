"""Published records -> samples, the media they name, and refusals: one receipt a source."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.details import sentence
from pipeline.fetch import links, local_files
from pipeline.fetch.digest_cache import Digests
from pipeline.sources import file_names, records
from pipeline.sources.media_lookup import Found, MediaTable, folder_table, joined
from pipeline.sources.name_notes import NameNotes
from pipeline.sources.records import Columns, MediaRef, Record, RowRefusal, once_each, refusal
from pipeline.stages import named_media
from pipeline.stages.list_media import NamesUnit
from pipeline.untrusted import Problem
from shards.ids import clip_id, sample_key, short_hash
from shards.index import FETCHED, MEDIA, NAMED, REFUSED, SAMPLES, UNREAD, table_of
from shards.outcome import Refused
from shards.pool import Pool, Receipt
from shards.receipts import Work
from shards.sample import digest_turns, turns_to_json

ADMIT_VERSION = "2"
MAX_UNREAD = 200  # names of fields that are told apart; hostile rows have no end of them
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
    hashed.save()
    origins = _origins(unit, files)
    answers = _answers(unit, table)
    # what the records name decides the revision, not what else lies in the folder
    inputs = [*(file.digest for file in files), short_hash(named_media.digests(answers))]
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
        "places": short_hash([list(unit.annotations), named_media.places(answers, origins)]),
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


def _answers(unit: SourceUnit, table: MediaTable) -> dict[str, Found | Problem]:
    """What answers the names of the records; embedded media are part of the annotations."""
    if not (unit.media or unit.loose or unit.members):
        return {}
    named = NamesUnit(
        pool=unit.pool, format=unit.format, annotations=unit.annotations, columns=unit.columns
    )
    return named_media.answers(named, table)


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
        self.profile_id = pool.profile.profile_id
        self.samples: dict[str, dict[str, Any]] = {}
        self.media: dict[tuple[str, str], dict[str, Any]] = {}
        self.pieces: dict[str, Found | Problem] = {}
        self.notes = NameNotes(table)
        self.refused: list[Refused] = []
        self.unread: dict[str, dict[str, Any]] = {}
        self.counts: Counter[str] = Counter()

    def run(self, files: Sequence[local_files.Local], work: Work) -> Receipt:
        """Admit the records of these files, and commit their tables under this work."""
        # a lazy stream: annotations may be larger than memory, the tables of samples may not
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
                self._note_unread(item)
                self._admit(item)
        # tables in the order of their keys: their bytes, and so their names, are the same in every
        # run
        tables = {
            "named": table_of(NAMED, self.notes.rows()),
            "index/samples": table_of(SAMPLES, (self.samples[key] for key in sorted(self.samples))),
            "index/media": table_of(MEDIA, (self.media[at] for at in sorted(self.media))),
            "refused": table_of(REFUSED, (asdict(refusal) for refusal in self.refused)),
            "unread": table_of(UNREAD, (self.unread[name] for name in sorted(self.unread))),
        }
        fetched = [file for file in files if local_files.is_remote(file.address)]
        if fetched:
            rows = ({n: getattr(file, n) for n in FETCHED.names} for file in fetched)
            tables["fetched"] = table_of(FETCHED, rows)
        names = ("records", "records_refused", "samples", "samples_refused")
        counts = {name: self.counts[name] for name in names}
        return self.pool.commit(work, tables, counts=counts)

    def _note_unread(self, record: Record) -> None:
        for field, value in record.unread.items():
            name = _printable(field, _NAME)
            # all names beyond the bound are counted as one
            if name not in self.unread and len(self.unread) >= MAX_UNREAD:
                name = "..."
            if name not in self.unread:
                example = _printable(value, _EXAMPLE)
                self.unread[name] = {"field": name, "records": 0, "example": example}
            self.unread[name]["records"] += 1

    def _admit(self, record: Record) -> None:
        clip_ids = []
        # one missing medium refuses the record: a sample with fewer images is another sample
        for ref in record.media:
            place = self._find(ref)
            if isinstance(place, Problem):
                self.counts["samples_refused"] += 1
                self._refuse(record.record, "", place.code, place.detail, stage="fetch")
                return
            self.notes.note(ref.name, place)
            # a clip is content, kind, span and profile: equal media of other sources are the same
            # clip
            name = clip_id(place.digest, ref.kind, ref.span, self.profile_id, ref.fps)
            clip_ids.append(name)
            self.media[name, place.address] = {
                "clip_id": name,
                "media_digest": place.digest,
                "kind": ref.kind,
                "address": named_media.portable(place.address, self.origins),
                "span": None if ref.span is None else list(ref.span),
            }
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
        digest = digest_turns(record.turns)
        key = sample_key(digest, clip_ids)
        # equal turns over equal clips: the first record stays, whatever its id
        if key in self.samples:
            self.counts["samples_refused"] += 1
            other = self.samples[key]["record"]
            self._refuse(record.record, key, "ROW_DUPLICATE", f"the same sample as {other!r}")
            return
        self.samples[key] = {
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

    def _refuse(self, record: str, key: str, code: str, detail: str, stage: str = "admit") -> None:
        self.refused.append(
            Refused(
                source=self.unit.name,
                record=record,
                key=key,
                stage=stage,
                code=code,
                detail=sentence(detail),
                origin=f"{self.unit.dataset}@{self.revision}",
            )
        )
