"""Receipts: what is done. Readers list them and nothing else.

    receipts/<work_id>.json           one finished piece of work; the first one wins
    snapshots/1/<digest>.parquet      copies of many receipts, so that readers ask once for them

A snapshot holds copies: its receipts stay where they are, and a snapshot that is removed costs time
only. It is named by its content and written in one step, so that no crash and no second compaction
can lose or double anything. A receipt that lies in no snapshot is loose, and read by itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from shards.errors import DamagedData, MissingData
from shards.ids import sha256_hex
from shards.index import RECEIPTS, read_named, table_of, write_table
from shards.store import Store

SNAPSHOTS = "snapshots/1"
"""Where they lie; the number is the version of their columns."""
MANY = 1000
"""Loose receipts from which on a build makes a snapshot of them."""
MOST_SNAPSHOTS = 16
"""From so many on the next snapshot takes their place."""
_JSON = ("parameters", "outputs", "counts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A finished piece of work: a pure function of (stage, version, parameters, inputs).

    `outputs` maps a folder of the pool to the names of the files this work put there; `tools` names
    the programs that did it (an ffmpeg build), and is not part of the work id.
    """

    work_id: str
    stage: str
    version: str
    parameters: dict[str, Any]
    inputs: tuple[str, ...]
    outputs: dict[str, list[str]]
    counts: dict[str, int]
    tools: str


class Receipts:
    """The receipts of a pool, wherever they lie."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._snapshots: dict[str, pa.Table] = {}
        self._loose: dict[str, Receipt] = {}

    def read(self, work_id: str) -> Receipt | None:
        """The receipt of this work id, or None if the work is not done."""
        try:
            return self._parsed(_file(work_id), self._store.get(_file(work_id)))
        except MissingData:
            return None

    def of(self, stage: str) -> list[Receipt]:
        """All receipts of a stage, in the order of their work ids."""
        return [_receipt(row) for row in self.table(stage).to_pylist()]

    def table(self, stage: str) -> pa.Table:
        """The same as rows of RECEIPTS, for where they are too many to be objects."""
        folded = self._update()
        loose = _rows(one for one in self._loose.values() if one.stage == stage)
        folded = folded.filter(pc.equal(folded["stage"], stage))
        return pa.concat_tables([folded, loose]).sort_by("work_id").combine_chunks()

    def compact(self, many: int = 1) -> int:
        """Copy the loose receipts into a snapshot, if there are so `many`; how many were copied."""
        folded = self._update()
        copied = len(self._loose)
        if copied < many:
            return 0
        old = self._snapshots.keys() if len(self._snapshots) >= MOST_SNAPSHOTS else ()
        rows = [_rows(self._loose.values()), *([folded] if old else ())]
        order = [("stage", "ascending"), ("work_id", "ascending")]
        data = write_table(pa.concat_tables(rows).sort_by(order).combine_chunks())
        name = f"{SNAPSHOTS}/{sha256_hex(data)}.parquet"
        self._store.put_once(name, data)
        for each in old:
            self._store.remove(each)
        return copied

    def _update(self) -> pa.Table:
        """Look again at what is there; the rows of all snapshots, each receipt once."""
        files = (name for name in self._store.list("receipts") if name.endswith(".json"))
        there = {name.removesuffix(".json") for name in files}
        names = [f"{SNAPSHOTS}/{name}" for name in self._store.list(SNAPSHOTS)]
        self._snapshots = dict(self._read_snapshots(names))
        folded = pa.concat_tables([RECEIPTS.empty_table(), *self._snapshots.values()])
        first: dict[str, int] = {}
        for row, work_id in enumerate(folded["work_id"].to_pylist()):
            if work_id in there:
                first.setdefault(work_id, row)
        loose = sorted(there - first.keys())
        fresh = [_file(name) for name in loose if name not in self._loose]
        found = map(self._parsed, fresh, self._store.get_all(fresh))
        known = self._loose | {one.work_id: one for one in found}
        self._loose = {name: known[name] for name in loose}
        return folded.take(pa.array(first.values(), pa.int64()))

    def _read_snapshots(self, names: Iterable[str]) -> Iterable[tuple[str, pa.Table]]:
        for name in names:
            with suppress(MissingData):  # another one took its place since it was listed
                known = self._snapshots.get(name)
                yield name, known or read_named(self._store.get(name), self._store.path(name))

    def _parsed(self, name: str, data: bytes) -> Receipt:
        try:
            value = json.loads(data)
            return Receipt(**(value | {"inputs": tuple(value["inputs"])}))
        except (TypeError, KeyError, json.JSONDecodeError) as error:
            where = self._store.path(name)
            raise DamagedData(f"{where}: not a receipt ({error}); delete it and rerun") from error


def _file(work_id: str) -> str:
    return f"receipts/{work_id}.json"


def _rows(receipts: Iterable[Receipt]) -> pa.Table:
    values = ({name: getattr(one, name) for name in RECEIPTS.names} for one in receipts)
    return table_of(RECEIPTS, (row | {n: json.dumps(row[n]) for n in _JSON} for row in values))


def _receipt(row: dict[str, Any]) -> Receipt:
    values = row | {name: json.loads(row[name]) for name in _JSON}
    return Receipt(**(values | {"inputs": tuple(row["inputs"])}))
