"""Receipts: what is done. Readers list them and nothing else.

    receipts/<work_id>.json           one finished piece of work; the first one wins
    snapshots/1/<digest>.parquet      copies of many receipts, so that readers ask once for them

A snapshot holds copies: its receipts stay where they are, and a snapshot that is removed costs time
only. It is named by its content and written in one step, so that no crash and no second compaction
can lose or double anything. A receipt that lies in no snapshot is loose, and read by itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import pyarrow as pa

from shards.envelope import Envelope
from shards.errors import DamagedData, MissingData
from shards.ids import sha256_hex, work_id
from shards.index import RECEIPTS, read_named, table_of, write_table
from shards.store import Store, remove_all

SNAPSHOTS = "snapshots/1"
"""Where they lie; the number is the version of their columns."""
MANY = 1000
"""Loose receipts from which on a build makes a snapshot of them."""
MOST_SNAPSHOTS = 16
"""From so many on the next snapshot takes their place."""
_JSON = ("parameters", "outputs", "counts")
_REMEDY = "remove it and snapshots/, and build again"
_ENVELOPE = Envelope(
    schema="slowfast-mix/receipt/2", if_damaged=_REMEDY, if_outdated="build another pool"
)


@dataclass(frozen=True, slots=True)
class Work:
    """A piece of work: a pure function of its stage, that stage's version, parameters and inputs.

    `parameters` are canonical JSON (integers and strings); `inputs` digests, in an order of their
    own. All four name its receipt.
    """

    stage: str
    version: str
    parameters: Mapping[str, Any]
    inputs: Sequence[str]

    @property
    def work_id(self) -> str:
        """The name of its receipt (docs/data_model.md, "Identities")."""
        return work_id(self.stage, self.version, self.parameters, self.inputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A finished piece of work, and what came out of it.

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
        # those that lie in no snapshot, as far as they were read: rows of RECEIPTS
        self._loose = RECEIPTS.empty_table()

    def read(self, work_id: str) -> Receipt | None:
        """The receipt of this work id, or None if the work is not done."""
        try:
            # a receipt is small: one request, no listing
            return self._parsed(receipt_name(work_id), self._store.get(receipt_name(work_id)))
        except MissingData:
            return None

    def put(
        self,
        work: Work,
        outputs: Mapping[str, Sequence[str]],
        counts: Mapping[str, int],
        tools: str,
    ) -> Receipt:
        """Write down that this work is done; the receipt that is there, if another one was first.

        Its name is the work id, which it does not repeat: `read` finds it again from what it says.
        """
        name = receipt_name(work.work_id)
        said = {"outputs": outputs, "counts": counts, "tools": tools}
        # conditional put: of two workers that did the same work the first is kept
        self._store.put_once(name, _ENVELOPE.seal(asdict(work) | said))
        return self._parsed(name, self._store.get(name))

    def of(self, stage: str) -> list[Receipt]:
        """All receipts of a stage, in the order of their work ids."""
        return receipts_in(self.table(stage))

    def table(self, stage: str | None = None) -> pa.Table:
        """The same, or those of all stages, as rows of RECEIPTS: for where they are many."""
        there, snapshots = self._look()
        # snapshots are copies: a receipt that is gone from receipts/ does not count
        return _once(there, [*snapshots.values(), self._loose], stage)

    def copied(self, stage: str) -> pa.Table:
        """Those of a stage that lie in snapshots, without a look at `receipts/`: a few requests.

        For units of a job that has put all receipts into snapshots before it began them.
        """
        tables = [table for _, table in self._read_snapshots()]
        held = {name for table in tables for name in table["work_id"].to_pylist()}
        return _once(held, tables, stage)

    def written(self) -> pa.Table:
        """Every receipt as it lies there itself, whatever snapshots say; rows of RECEIPTS."""
        names = [name for name in self._store.list("receipts") if name.endswith(".json")]
        return pa.concat_tables([RECEIPTS.empty_table(), *self._read_loose(names)])

    def _read_loose(self, names: Sequence[str]) -> Iterator[pa.Table]:
        """Receipts by the names of their files, as columns, some at a time: as objects the inputs
        of a large pool outgrow memory."""
        files = [f"receipts/{name}" for name in names]
        found = map(self._parsed, files, self._store.get_all(files))
        while rows := list(islice(found, MANY)):
            yield _rows(rows)

    def forget_removed(self) -> dict[str, str]:
        """Remove snapshots that hold a receipt which is gone: done again, it may say another thing.

        Returns those that stay, and why.
        """
        # snapshots first: what is put into one meanwhile lies there by the time of the listing
        held = {name: set(table["work_id"].to_pylist()) for name, table in self._read_snapshots()}
        there = {name.removesuffix(".json") for name in self._store.list("receipts")}
        return remove_all(self._store, [name for name, ids in held.items() if ids - there])

    def compact(self, many: int = 1) -> int:
        """Copy the loose receipts into a snapshot, if there are so `many`; how many were copied."""
        there, snapshots = self._look()
        copied = len(self._loose)
        if copied < many:
            return 0
        # many snapshots become one, so that listing stays cheap
        old = snapshots if len(snapshots) >= MOST_SNAPSHOTS else {}
        data = write_table(_once(there, [*old.values(), self._loose]))
        # written before the old ones go: a crash leaves copies, never a gap
        self._store.put_once(f"{SNAPSHOTS}/{sha256_hex(data)}.parquet", data)
        for name in old:
            self._store.remove(name)
        return copied

    def _look(self) -> tuple[set[str], dict[str, pa.Table]]:
        """(the work ids that are there, the snapshots); the loose ones are read if they are new."""
        files = (name for name in self._store.list("receipts") if name.endswith(".json"))
        there = {name.removesuffix(".json") for name in files}
        snapshots = dict(self._read_snapshots())
        # only what no snapshot holds is fetched
        held = {name for table in snapshots.values() for name in table["work_id"].to_pylist()}
        loose = there - held
        known = self._loose["work_id"].to_pylist()
        fresh = [f"{name}.json" for name in sorted(loose.difference(known))]
        still = self._loose.filter(pa.array([name in loose for name in known], pa.bool_()))
        self._loose = pa.concat_tables([still, *self._read_loose(fresh)])
        return there, snapshots

    def _read_snapshots(self) -> Iterator[tuple[str, pa.Table]]:
        for each in self._store.list(SNAPSHOTS):
            name = f"{SNAPSHOTS}/{each}"
            with suppress(MissingData):  # another one took its place since it was listed
                yield name, read_named(self._store.get(name), self._store.path(name))

    def _parsed(self, name: str, data: bytes) -> Receipt:
        where = self._store.path(name)
        value = _ENVELOPE.unseal(data, where)
        said = {one: value.pop(one) for one in ("outputs", "counts", "tools")}
        work = Work(**value)
        # content addressing the other way round: the name follows from what the file says
        if name != receipt_name(work.work_id):
            raise DamagedData(f"{where}: the receipt of other work, {work.work_id}; {_REMEDY}")
        of_work = asdict(work) | {"inputs": tuple(work.inputs)}
        return Receipt(work_id=work.work_id, **of_work, **said)


def receipts_in(table: pa.Table) -> list[Receipt]:
    """The receipts in rows of RECEIPTS."""
    return [_receipt(row) for row in table.to_pylist()]


def attempt_of(parameters: Mapping[str, Any]) -> int:
    """Which try of its work a receipt is of: 0, and more where a build tried again."""
    return int(parameters.get("attempt", 0))


def last_attempts_first(receipts: Sequence[Receipt]) -> list[Receipt]:
    """The same, those of later attempts before those of earlier ones: of two, the first counts."""
    return sorted(receipts, key=lambda one: -attempt_of(one.parameters))


def latest(receipts: Sequence[Receipt]) -> list[Receipt]:
    """Those of the latest version: what two versions of the code found together, neither would."""
    # "2", "1/6": numbers compared as numbers
    numbers = [tuple(map(int, re.findall(r"\d+", one.version))) for one in receipts]
    return [one for one, number in zip(receipts, numbers, strict=True) if number == max(numbers)]


def receipt_name(work_id: str) -> str:
    """Where the receipt of a work id lies in its pool."""
    return f"receipts/{work_id}.json"


def _rows(receipts: Iterable[Receipt]) -> pa.Table:
    values = ({name: getattr(one, name) for name in RECEIPTS.names} for one in receipts)
    return table_of(RECEIPTS, (row | {n: json.dumps(row[n]) for n in _JSON} for row in values))


def _once(there: set[str], tables: Sequence[pa.Table], stage: str | None = None) -> pa.Table:
    """The rows of a stage, or all, that are still there: each once, in order of the work ids."""
    table = pa.concat_tables([RECEIPTS.empty_table(), *tables])
    pairs = zip(table["work_id"].to_pylist(), table["stage"].to_pylist(), strict=True)
    # of equal receipts the last copy, all are the same
    rows = {
        name: row
        for row, (name, its_stage) in enumerate(pairs)
        if name in there and stage in (None, its_stage)
    }
    return table.take(pa.array([rows[name] for name in sorted(rows)], pa.int64())).combine_chunks()


def _receipt(row: dict[str, Any]) -> Receipt:
    values = row | {name: json.loads(row[name]) for name in _JSON}
    return Receipt(**(values | {"inputs": tuple(row["inputs"])}))
