"""Check every byte of a folder of shards against its index and receipt; name what is damaged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from shards.envelope import Envelope
from shards.errors import DamagedData, MissingData
from shards.extents import ByteRange, Extents, pair
from shards.ids import sha256_hex
from shards.index import read_table
from shards.sample import sample_from_json
from shards.store import Store

INDEX = "index.parquet"
RECEIPT = Envelope(
    schema="slowfast-mix/shards/3",
    if_damaged="restore it, or pack again",
    if_outdated="pack these shards again",
)
"""Of receipt.json: manifest_id, samples, and the sha256 of `index` and of each of the `shards`."""


def read_receipt(store: Store) -> dict[str, Any]:
    """The receipt of a folder of shards; UserError unless this version wrote it so."""
    return RECEIPT.unseal(store.get("receipt.json"), store.path("receipt.json"))


def read_index(store: Store, digest: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The index of a folder of shards; DamagedData unless it is the one that its receipt names."""
    where = store.path(INDEX)
    data = store.get(INDEX)
    if sha256_hex(data) != digest:
        raise DamagedData(
            f"{where}: not the index that receipt.json names; restore it, or pack again"
        )
    return read_table(data, where, columns)


def damage(url: str) -> Iterator[str]:
    """One line per fault: the shard, the byte, the sample it concerns. Nothing if all is well.

    UserError for shards of another version, which are whole and yet read by nobody.
    """
    store = Store(url)
    # a receipt that cannot be read leaves nothing to check against
    try:
        receipt = read_receipt(store)
    except DamagedData as error:
        yield str(error)
        return
    rows, faults = _index(store, receipt["index"])
    yield from faults
    present = {name for name in store.list("") if name.endswith(".tar")}
    named: dict[str, str] = receipt["shards"]
    # by digest: bytes under a wrong name are told as swapped
    owner = {digest: name for name, digest in named.items()}
    for name in sorted(present - set(named)):
        yield f"{store.path(name)}: an extra shard that receipt.json does not name; remove it"
    for name in sorted(named):
        if name not in present:
            yield f"{store.path(name)}: missing; restore it, or pack again"
        else:
            yield from _shard(store, name, named[name], owner, rows.get(name, []))


Row = tuple[ByteRange, str, int]
"""Where a sample lies, its key and its position."""


def _index(store: Store, digest: str) -> tuple[dict[str, list[Row]], list[str]]:
    """Rows by shard, and the faults of the index itself."""
    rows: dict[str, list[Row]] = {}
    try:
        table = read_index(store, digest)
    except MissingData:
        return rows, [f"{store.path(INDEX)}: missing; restore it, or pack again"]
    except DamagedData as error:
        return rows, [str(error)]
    for row in table.to_pylist():
        # by shard, in the order of the index
        byte_range = ByteRange(row["shard"], row["offset"], row["extent"], row["crc32"])
        rows.setdefault(byte_range.file, []).append((byte_range, row["key"], row["position"]))
    return rows, []


def _shard(
    store: Store, name: str, digest: str, owner: dict[str, str], rows: Sequence[Row]
) -> Iterator[str]:
    data = store.get(name)
    found_digest = sha256_hex(data)
    where = store.path(name)
    if found_digest in owner and owner[found_digest] != name:
        yield f"{where}: holds the bytes of {owner[found_digest]}; the shards were swapped"
        return
    if found_digest != digest:
        yield f"{where}: {len(data)} bytes, not those that were written; restore it"
    extents = Extents(store)
    damaged = False
    for byte_range, key, position in rows:
        extent = memoryview(data)[byte_range.offset : byte_range.offset + byte_range.extent]
        try:
            extents.check(byte_range, extent)
            # one sample a shard is parsed: checksums say that bytes are right, this that they are
            # samples
            if byte_range == rows[0][0]:
                sample_from_json(bytes(pair(extent, where)[0]), where)
        except DamagedData as error:
            damaged = True
            yield f"{error} (sample {key} at position {position})"
    # every sample is whole: what differs are the two zero blocks at the end
    if rows and not damaged and found_digest != digest:
        end = max(byte_range.offset + byte_range.extent for byte_range, _, _ in rows)
        yield f"{where} from byte {end} on: the end of the archive differs; every sample is whole"
