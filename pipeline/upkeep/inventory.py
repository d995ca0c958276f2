"""What lies in a pool: its sources at their revisions, its folders and bytes, who needs what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mixtures.manifest.manifest import Manifest
from pipeline.upkeep.garbage import files_of
from pipeline.upkeep.needs import Ledger, clips_of, needs_of
from shards.id_arrays import Ids, find, ids_of
from shards.index import CLIPS
from shards.pool import Pool, Provenance
from shards.receipts import Receipt

_PLACED = ["clip_id", "extent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """A source at one revision, under one licence: what was admitted, its clips and their bytes.

    `used_by` are the files of those manifests, among the given ones, that draw from it. Clips that
    sources share count for each.
    """

    source: str
    revision: str
    dataset: str
    licence: str
    samples: int
    refused: int
    clips: int
    nbytes: int
    used_by: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What one manifest needs of the pool; `alone` are bytes that no other of the given needs."""

    manifest: str
    manifest_id: str
    sources: tuple[str, ...]
    receipts: int
    nbytes: int
    alone: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of scores: its scorer, what it scores, and of how many tables."""

    scorer: str
    digest: str
    per: str
    tables: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A folder of the pool: its files, and those that no receipt names."""

    folder: str
    files: int
    nbytes: int
    unnamed_files: int
    unnamed_bytes: int


def holdings(pool: Pool, manifests: Mapping[str, Manifest]) -> list[Holding]:
    """Every source of the pool at every revision and under every licence, by name."""
    extents = _Extents(pool)
    found: dict[tuple[str, Provenance], Receipt] = {}
    for one in pool.receipts("admit"):
        found.setdefault((one.parameters["source"], Provenance.of(one)), one)
    return [_holding(pool, found[name], extents, manifests) for name in sorted(found)]


def uses(pool: Pool, manifests: Mapping[str, Manifest]) -> list[Use]:
    """What each of these manifests needs of the pool; UserError for one of another pool."""
    ledger = Ledger(pool.ledger.table())
    sizes = pool.store.sizes()
    ids = {where: needs_of(pool, ledger, one, where).work_ids for where, one in manifests.items()}
    files = {where: set(_files(ledger, own)) for where, own in ids.items()}
    often = Counter(name for own in files.values() for name in own)
    return [
        Use(
            manifest=where,
            manifest_id=one.manifest_id,
            sources=tuple(one.revisions),
            receipts=len(ids[where]),
            nbytes=sum(sizes.get(name, 0) for name in files[where]),
            alone=sum(sizes.get(name, 0) for name in files[where] if often[name] == 1),
        )
        for where, one in manifests.items()
    ]


def folders(pool: Pool) -> list[Folder]:
    """The pool's folders, the largest first; `.` holds its profile and whatever else lies there."""
    named = {"profile.json", *files_of(pool.ledger.table())}
    files: Counter[str] = Counter()
    nbytes: Counter[str] = Counter()
    unnamed: Counter[str] = Counter()
    without: Counter[str] = Counter()
    for name, size in pool.store.sizes().items():
        folder = name.rpartition("/")[0] or "."
        files[folder] += 1
        nbytes[folder] += size
        # receipts and snapshots are named by nobody: they name
        if name not in named and not name.startswith(("receipts/", "snapshots/")):
            unnamed[folder] += 1
            without[folder] += size
    return [
        Folder(
            folder=folder,
            files=files[folder],
            nbytes=total,
            unnamed_files=unnamed[folder],
            unnamed_bytes=without[folder],
        )
        for folder, total in sorted(nbytes.items(), key=lambda each: (-each[1], each[0]))
    ]


def columns(pool: Pool) -> list[Column]:
    """The columns of scores in a pool, by name."""
    tables = Counter(
        (one.parameters["scorer"], one.parameters["digest"], one.parameters["per"])
        for one in pool.receipts("score")
    )
    return [
        Column(scorer=scorer, digest=digest, per=per, tables=count)
        for (scorer, digest, per), count in sorted(tables.items())
    ]


class _Extents:
    """The bytes of every decoded clip of a pool."""

    def __init__(self, pool: Pool) -> None:
        names = pool.files(pool.receipts("decode"), "index/clips")
        empty = CLIPS.empty_table().select(_PLACED)
        found = (table for _, table in pool.tables("index/clips", names, _PLACED))
        table = pa.concat_tables([empty, *found]).sort_by("clip_id")
        self._ids = ids_of(table["clip_id"])
        self._extents = table["extent"].to_numpy()

    def of(self, clips: Ids) -> int:
        """The bytes of these clips, as far as they are decoded."""
        at = find(self._ids, clips)
        return int(self._extents[at[at >= 0]].sum())


def _holding(
    pool: Pool, admitted: Receipt, extents: _Extents, manifests: Mapping[str, Manifest]
) -> Holding:
    source, provenance = admitted.parameters["source"], Provenance.of(admitted)
    clips = clips_of(pool, [admitted])
    counts = admitted.counts
    return Holding(
        source=source,
        revision=provenance.revision,
        dataset=provenance.dataset,
        licence=provenance.licence,
        samples=counts["samples"] - counts["samples_refused"],
        refused=counts["records_refused"] + counts["samples_refused"],
        clips=len(clips),
        nbytes=extents.of(clips),
        used_by=tuple(
            where for where, one in manifests.items() if one.provenance.get(source) == provenance
        ),
    )


def _files(ledger: Ledger, work_ids: frozenset[str]) -> list[str]:
    rows = ledger.rows
    own = pc.is_in(rows["work_id"], value_set=pa.array(sorted(work_ids), pa.string()))
    return list(files_of(rows.filter(own)))
