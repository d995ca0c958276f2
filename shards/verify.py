"""Check every byte of a folder of shards against its index and receipt; name what is damaged."""

from __future__ import annotations

import json
from collections.abc import Iterator

from shards.errors import DamagedData
from shards.ids import sha256_hex
from shards.index import read_table
from shards.reader import ShardReader
from shards.store import Store


def damage(url: str) -> Iterator[str]:
    """One line per fault: the shard, the byte, the sample it concerns. Nothing if all is well."""
    store = Store(url)
    receipt = json.loads(store.get("receipt.json"))
    index = store.get("index.parquet")
    if sha256_hex(index) != receipt["index"]:
        yield f"{store.path('index.parquet')}: not the index that the receipt names"
    present = {name for name in store.list("") if name.endswith(".tar")}
    for name in sorted(present - set(receipt["shards"])):
        yield f"{store.path(name)}: an extra shard that the receipt does not name"
    for name, digest in sorted(receipt["shards"].items()):
        if name not in present:
            yield f"{store.path(name)}: missing"
        elif sha256_hex(store.get(name)) != digest:
            yield f"{store.path(name)}: not the bytes that were written"
            yield from _damaged_samples(store, name)


def _damaged_samples(store: Store, name: str) -> Iterator[str]:
    rows = read_table(store.get("index.parquet"), store.path("index.parquet"))["shard"].to_pylist()
    reader = ShardReader(store)
    for row in (row for row, shard in enumerate(rows) if shard == name):
        try:
            reader.read_row(row)
        except DamagedData as error:
            yield f"{error} (sample {reader.rows['key'][row]})"
