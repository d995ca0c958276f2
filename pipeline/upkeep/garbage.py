"""Removing from a pool what no kept manifest needs: receipts, then snapshots, then files.

A receipt that is gone means that its work is not done, so whatever a kill leaves behind is a pool:
files without a receipt do not exist for readers, and go the next time. What is removed is decided
from the receipts themselves, while nobody writes (shards.pool.clearing).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from mixtures.manifest.files import load_manifest, manifest_file
from mixtures.manifest.manifest import Manifest
from pipeline.upkeep.needs import Ledger, Needs, needs_of, remembered
from shards.errors import UserError
from shards.id_arrays import find, ids_of
from shards.pool import LEASES, Pool, clearing
from shards.receipts import MANY, receipt_name
from shards.store import TEMPORARY, remove_all

_OURS = re.compile(r".+/[0-9a-f]{64}\.(parquet|tar)")
"""Names of files that a pool makes, by their content; others are not touched."""
_CUT = re.compile(rf"(.*/)?\.[^/]+\.\d+\.[0-9a-f]{{8}}{re.escape(TEMPORARY)}")
"""Names of writes that did not end (shards.store)."""
_APART = (LEASES, "receipts", "snapshots")


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """What goes, and its bytes: receipts by work id, files by name.

    `shared` are the bytes of clips that no kept manifest shows, in parts with clips that one does;
    `unknown` counts receipts of stages that this version does not know, which stay.
    """

    receipts: tuple[str, ...]
    files: Mapping[str, int]
    stays: int
    shared: int
    unknown: int

    @property
    def nbytes(self) -> int:
        """The bytes of all that goes."""
        return sum(self.files.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleared:
    """What went, and what could not be removed: name -> why."""

    garbage: Garbage
    failed: Mapping[str, str] = field(default_factory=dict)


def manifests_in(paths: Sequence[str]) -> dict[str, Manifest]:
    """The manifests that are named by these files or folders, by their files."""
    return {where: load_manifest(where) for where in map(manifest_file, paths)}


def garbage(pool: Pool, manifests: Mapping[str, Manifest]) -> Garbage:
    """What of the pool none of these manifests needs."""
    ledger = Ledger(pool.ledger.written())
    needs = [needs_of(pool, ledger, one, where) for where, one in manifests.items()]
    kept = {name for each in needs for name in each.work_ids}
    kept |= remembered(ledger, kept) | ledger.unknown
    ids = ledger.rows["work_id"].to_pylist()
    sizes = pool.store.sizes()
    gone = tuple(name for name in ids if name not in kept)
    files = _unnamed(ledger, kept, sizes)
    files |= {receipt_name(name): sizes[receipt_name(name)] for name in gone}
    return Garbage(
        receipts=gone,
        files=files,
        stays=sum(sizes.values()) - sum(files.values()),
        shared=_shared(pool, ledger, kept, needs),
        unknown=len(ledger.unknown),
    )


def clear(pool: Pool, manifests: Mapping[str, Manifest]) -> Cleared:
    """Remove it; UserError while somebody writes to the pool, or trains from it over a manifest
    that is not among these."""
    with clearing(pool.store) as readers:
        check_kept(pool, readers, {one.manifest_id for one in manifests.values()})
        to_remove = garbage(pool, manifests)
        # receipts first: without one its files do not exist for readers
        failed = remove_all(pool.store, [receipt_name(name) for name in to_remove.receipts])
        failed |= pool.ledger.forget_removed()
        # read again: a receipt that could not be removed keeps its files
        left = Ledger(pool.ledger.written())
        named = set(_named(left, left.rows["work_id"].to_pylist()))
        files = [name for name in to_remove.files if name not in named]
        failed |= remove_all(pool.store, [name for name in files if not _is_receipt(name)])
        pool.ledger.compact(MANY)
    return Cleared(garbage=to_remove, failed=failed)


def check_kept(pool: Pool, readers: Mapping[str, str], kept: AbstractSet[str]) -> None:
    """Raise UserError with a line for each run whose manifest is not kept."""
    lost = {lease: one for lease, one in readers.items() if one not in kept}
    if lost:
        raise UserError(
            *(
                f"{pool.store.url}: a run trains over manifest {one} (its lease is {lease}); name "
                "that manifest by --keep, or wait until the run has ended"
                for lease, one in lost.items()
            )
        )


def _unnamed(ledger: Ledger, kept: set[str], sizes: Mapping[str, int]) -> dict[str, int]:
    """Files that no kept receipt names, and what killed writers left, with their bytes."""
    named = set(_named(ledger, kept))
    return {
        name: nbytes
        for name, nbytes in sizes.items()
        if _is_cut(name) or (is_pool_file(name) and name not in named)
    }


def is_pool_file(name: str) -> bool:
    """Whether a name is that of a table or a part of a pool."""
    return bool(_OURS.fullmatch(name)) and not name.startswith(tuple(f"{one}/" for one in _APART))


def _is_cut(name: str) -> bool:
    # a lease is written again while this runs
    return bool(_CUT.fullmatch(name)) and not name.startswith(f"{LEASES}/")


def _is_receipt(name: str) -> bool:
    return name.startswith("receipts/") and not _is_cut(name)


def _named(ledger: Ledger, kept: Iterable[str]) -> Iterable[str]:
    """The files that these receipts name."""
    rows = ledger.rows.filter(pc.is_in(ledger.rows["work_id"], pa.array(sorted(kept), pa.string())))
    return files_of(rows)


def files_of(rows: pa.Table) -> Iterable[str]:
    """The files that rows of RECEIPTS name, as the pool has them."""
    for outputs in rows["outputs"].to_pylist():
        for folder, names in json.loads(outputs).items():
            yield from (f"{folder}/{name}" for name in names)


def _shared(pool: Pool, ledger: Ledger, kept: set[str], needs: Sequence[Needs]) -> int:
    """Bytes of clips that nobody needs in parts that stay."""
    receipts = [one for one in ledger.of("decode") if one.work_id in kept]
    names = pool.files(receipts, "index/clips")
    total = 0
    for _, clips in pool.tables("index/clips", names, ["clip_id", "extent"]):
        total += sum(unneeded(clips, needs))
    return total


def unneeded(clip_table: pa.Table, needs: Sequence[Needs]) -> list[int]:
    """The extents of those clips of an index that none of the manifests shows."""
    ids = ids_of(clip_table["clip_id"])
    shown = sum((find(one.clips, ids) >= 0) for one in needs)
    extents: list[int] = clip_table.filter(pa.array(shown == 0))["extent"].to_pylist()
    return extents
