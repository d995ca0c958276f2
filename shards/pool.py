"""The pool: receipts say what is done, and name tables and parts by the digest of their bytes.

Whoever writes to it, removes from it, or trains from it, holds a lease meanwhile, a file that is
written again while the work goes on. A reader's holds the id of its manifest, the others nothing:

    leases/<writing, clearing or reading>-<host>-<pid>-<random>
"""

from __future__ import annotations

import logging
import os
import platform
import re
import secrets
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Self

import pyarrow as pa

from shards.errors import DamagedData, UserError
from shards.ids import sha256_hex
from shards.index import read_named, write_table
from shards.profile import PROFILE, Profile
from shards.receipts import Receipt as Receipt
from shards.receipts import Receipts, Work
from shards.store import Store

LEASES = "leases"
LASTS = 300
"""Seconds after which a lease that was not renewed is nobody's any more."""
RENEWED = 30
"""Seconds between renewals."""
_WRITING, _CLEARING, _READING = "writing", "clearing", "reading"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Provenance:
    """What a source was admitted as: the same bytes may be so under several licences."""

    revision: str
    dataset: str
    licence: str

    @classmethod
    def of(cls, admitted: Receipt) -> Self:
        """What this receipt of admission says."""
        said = admitted.parameters
        return cls(**{name: said[name] for name in ("revision", "dataset", "licence")})


class Pool:
    """Receipts and tables under one root; see data_model, "Pool"."""

    def __init__(self, url: str, profile: Profile | None = None) -> None:
        """Open a pool; given a profile, make it if it is new, and refuse another profile."""
        self.store = Store(url)
        self.ledger = Receipts(self.store)
        if profile is not None:
            # two builds that begin at once agree on the first profile
            self.store.put_once("profile.json", PROFILE.seal(profile.to_json()))
        if not self.store.exists("profile.json"):
            raise UserError(f"{url}: not a pool (no profile.json); name one that a build wrote")
        where = self.store.path("profile.json")
        # read back, whoever wrote it: what is there decides
        value = PROFILE.unseal(self.store.get("profile.json"), where)
        self.profile = Profile.from_json(value, where)
        if profile is not None and profile != self.profile:
            raise UserError(
                f"{where}: this pool keeps {self.profile.to_json()}, the recipe wants "
                f"{profile.to_json()}; give another --pool"
            )

    def done(self, work: Work) -> Receipt | None:
        """The receipt of this work, or None if it is not done."""
        return self.ledger.read(work.work_id)

    def receipts(self, stage: str) -> list[Receipt]:
        """All receipts of a stage, in the order of their work ids."""
        return self.ledger.of(stage)

    def admitted(self, sources: Mapping[str, Provenance] | None) -> list[Receipt]:
        """Receipts of admission: of these sources as they were admitted, by name, or (None) of all.

        Media that moved are admitted again as the same: of each provenance the first.
        """
        # receipts in the order of their work ids: the same first one on every machine
        first_admissions: dict[tuple[str, Provenance], Receipt] = {}
        for receipt in self.receipts("admit"):
            source, provenance = receipt.parameters["source"], Provenance.of(receipt)
            if sources is None or sources.get(source) == provenance:
                first_admissions.setdefault((source, provenance), receipt)
        return list(first_admissions.values())

    def commit(
        self,
        work: Work,
        tables: Mapping[str, pa.Table | Iterable[pa.Table]],
        parts: Mapping[str, bytes] | None = None,
        counts: Mapping[str, int] | None = None,
        tools: str = "",
    ) -> Receipt:
        """Store tables and parts under their content's name, the receipt last; first one wins.

        `tables` and `parts` (tars) are by folder of the pool, of a table too large to be held one
        piece after another; `tools` names the programs at work.
        """
        outputs = {
            folder: [self._put(folder, data, "tar")] for folder, data in (parts or {}).items()
        }
        for folder, table in tables.items():
            pieces = [table] if isinstance(table, pa.Table) else table
            outputs[folder] = [self._put(folder, write_table(each), "parquet") for each in pieces]
        return self.ledger.put(work, outputs, counts or {}, tools)

    def files(self, receipts: Sequence[Receipt], folder: str) -> list[str]:
        """The names of the files that these receipts put into `folder`, each once, in their order.

        DamagedData for a receipt that says nothing of the folder: its stage always fills it.
        """
        # a receipt without its folder would drop its rows in silence
        for receipt in receipts:
            if folder not in receipt.outputs:
                raise DamagedData(
                    f"{self.store.path(f'receipts/{receipt.work_id}.json')}: names no file of "
                    f"{folder}/; remove it and snapshots/, and build again"
                )
        return [*dict.fromkeys(name for one in receipts for name in one.outputs[folder])]

    def table(self, receipts: Sequence[Receipt], folder: str, schema: pa.Schema) -> pa.Table:
        """The rows that these receipts put into `folder`, in the receipts' order."""
        # tables stream through: one is in memory besides the result
        tables = (table for _, table in self.tables(folder, self.files(receipts, folder)))
        return pa.concat_tables([schema.empty_table(), *tables])

    def tables(
        self, folder: str, names: Sequence[str], columns: Sequence[str] | None = None
    ) -> Iterator[tuple[str, pa.Table]]:
        """(name, table) of these files of a folder; as `read`, but many are asked for at once.

        Of their columns all, or `columns`.
        """
        files = [f"{folder}/{name}" for name in names]
        for name, file, data in zip(names, files, self.store.get_all(files), strict=True):
            yield name, read_named(data, self.store.path(file), columns)

    def read(self, name: str) -> pa.Table:
        """One Parquet table of the pool; DamagedData unless its bytes are those of its name."""
        return read_named(self.store.get(name), self.store.path(name))

    def _put(self, folder: str, data: bytes, suffix: str) -> str:
        name = f"{sha256_hex(data)}.{suffix}"
        self.store.put_once(f"{folder}/{name}", data)
        return name


# who is at work ----------------------------------------------------------------------


@contextmanager
def writing(store: Store) -> Iterator[None]:
    """Nothing is removed from the pool in this store meanwhile; UserError if that is under way."""
    with _leased(store, _WRITING, (_CLEARING,)):
        yield


@contextmanager
def clearing(store: Store) -> Iterator[dict[str, str]]:
    """Alone with the pool in this store, but for those that train from it: lease -> manifest_id.
    UserError if somebody writes to it."""
    with _leased(store, _CLEARING, (_WRITING, _CLEARING)) as own:
        # whoever begins to read after this look sees that the pool is being cleared
        readers = {}
        for name, _ in _renewed(store, own, (_READING,)):
            with suppress(FileNotFoundError):  # its run has ended
                readers[name] = store.get(name).decode()
        yield readers


@contextmanager
def reading(store: Store, manifest_id: str) -> Iterator[None]:
    """What this manifest needs is not removed from the pool in this store meanwhile; UserError if
    that is under way."""
    with _leased(store, _READING, (_CLEARING,), manifest_id.encode()):
        yield


@contextmanager
def _leased(store: Store, kind: str, rivals: Sequence[str], said: bytes = b"") -> Iterator[str]:
    host = re.sub(r"[^A-Za-z0-9.]", "_", platform.node())
    name = f"{LEASES}/{kind}-{host}-{os.getpid()}-{secrets.token_hex(4)}"
    # first the own one, then a look at others: of two that begin at once none is overlooked
    store.put(name, said)
    done = threading.Event()
    renewal = threading.Thread(target=_renew, args=(store, name, said, done), daemon=True)
    try:
        _check_alone(store, name, rivals)
        renewal.start()
        yield name
    finally:
        done.set()
        # no renewal may write the lease again once it is removed
        if renewal.ident is not None:
            renewal.join()
        store.remove(name)


def _check_alone(store: Store, own: str, rivals: Sequence[str]) -> None:
    """Raise UserError for a rival's lease that was renewed lately."""
    for name, age in _renewed(store, own, rivals):
        busy = "is being written to" if f"/{_WRITING}" in name else "is being cleared"
        raise UserError(
            f"{store.url}: {busy} (its lease {name} was renewed {max(0, age):.0f} s ago); wait "
            "until that has ended, or remove the lease if its process is gone"
        )


def _renewed(store: Store, mine: str, kinds: Sequence[str]) -> Iterator[tuple[str, float]]:
    """The leases of these kinds that are somebody else's, and their ages, by the store's clock."""
    now = store.modified(mine)
    for lease in store.list(LEASES):
        name = f"{LEASES}/{lease}"
        try:
            age = now - store.modified(name)
        except FileNotFoundError:  # its owner is through
            continue
        if name != mine and lease.startswith(tuple(kinds)) and age <= LASTS:
            yield name, age


def _renew(store: Store, name: str, said: bytes, done: threading.Event) -> None:
    while not done.wait(RENEWED):
        try:
            store.put(name, said)
        except (OSError, UserError) as error:
            _log.warning("%s: the lease was not renewed: %s", store.path(name), error)
