"""A leak index: what benchmarks look like and ask, as hashes; nothing of them can be read back.

    INDEX/index.json                       the card: benchmarks, their books, the tables' digests
    INDEX/fingerprints/<digest>.parquet    shards.index.FINGERPRINTS of the benchmarks' media
    INDEX/media/<digest>.parquet           LEAK_MEDIA: which clip is of which benchmark
    INDEX/questions/<digest>.parquet       LEAK_QUESTIONS

`index_id` is H of the card without it, so two copies of one index are one index.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from shards.errors import DamagedData, MissingData, UserError
from shards.ids import canonical_json, sha256_hex, short_hash
from shards.index import read_table, write_table
from shards.store import Store

SCHEMA = "slowfast-mix/leak-index/2"
CARD = "index.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakIndex:
    """An index that is there; `fingerprints` is the version of those that it holds.

    `benchmarks` are the books of each: name, dataset, licence, revision, and counts.
    """

    url: str
    index_id: str
    fingerprints: str
    benchmarks: list[dict[str, Any]]
    tables: dict[str, str]

    def read(self, folder: str) -> pa.Table:
        """One table of the index; DamagedData unless its bytes are those of its name."""
        name = f"{folder}/{self.tables[folder]}.parquet"
        store = Store(self.url)
        data = store.get(name)
        if sha256_hex(data) != self.tables[folder]:
            raise DamagedData(f"{store.path(name)}: not the bytes that its name says; build again")
        return read_table(data, store.path(name))


def write_index(
    url: str,
    fingerprints: str,
    benchmarks: Sequence[Mapping[str, Any]],
    tables: Mapping[str, pa.Table],
) -> LeakIndex:
    """Put the tables under their content's names, the card last."""
    store, names = Store(url), {}
    for folder, table in tables.items():
        data = write_table(table)
        names[folder] = sha256_hex(data)
        store.put_once(f"{folder}/{names[folder]}.parquet", data)
    card = {
        "schema": SCHEMA,
        "fingerprints": fingerprints,
        "benchmarks": list(benchmarks),
        "tables": names,
    }
    store.put(CARD, canonical_json(card | {"index_id": short_hash(card)}))
    return open_index(url)


def open_index(url: str) -> LeakIndex:
    """The index in a folder; UserError names what is missing or astray."""
    store = Store(url)
    try:
        card = json.loads(store.get(CARD))
        schema, index_id = card.pop("schema"), card.pop("index_id")
        if schema != SCHEMA:
            raise UserError(
                f"{store.path(CARD)}: schema {schema!r}, this version reads {SCHEMA!r}; run "
                "`python -m pipeline leaks build` again"
            )
        if index_id != short_hash(card | {"schema": schema}):
            raise DamagedData(f"{store.path(CARD)}: not what its index_id says; build it again")
        return LeakIndex(url=url, index_id=index_id, **card)
    except MissingData as error:
        raise UserError(
            f"{store.path(CARD)}: not there; run `python -m pipeline leaks build` first"
        ) from error
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise DamagedData(f"{store.path(CARD)}: not a leak index ({error}); build again") from error
