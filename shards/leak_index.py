"""A leak index: what benchmarks look like and ask, as hashes; nothing of them can be read back.

    INDEX/index.json                       the card: benchmarks, their books, the tables' digests
    INDEX/fingerprints/<digest>.parquet    shards.index.FINGERPRINTS of the benchmarks' media
    INDEX/media/<digest>.parquet           LEAK_MEDIA: which clip is of which benchmark
    INDEX/questions/<digest>.parquet       LEAK_QUESTIONS

`index_id` is H of what the card says, so two copies of one index are one index.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from shards.envelope import Envelope
from shards.errors import DamagedData, MissingData, UserError
from shards.ids import sha256_hex, short_hash
from shards.index import read_table, write_table
from shards.store import Store

_AGAIN = "run `python -m pipeline leaks build` again"
_ENVELOPE = Envelope(schema="slowfast-mix/leak-index/3", if_damaged=_AGAIN, if_outdated=_AGAIN)
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
        # content addressing: the name is the digest
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
    store = Store(url)
    names = {}
    for folder, table in tables.items():
        data = write_table(table)
        names[folder] = sha256_hex(data)
        store.put_once(f"{folder}/{names[folder]}.parquet", data)
    # the card is written last: an index without one does not exist
    card = {"fingerprints": fingerprints, "benchmarks": list(benchmarks), "tables": names}
    store.put(CARD, _ENVELOPE.seal(card))
    return open_index(url)


def open_index(url: str) -> LeakIndex:
    """The index in a folder; UserError names what is missing or astray."""
    store = Store(url)
    try:
        data = store.get(CARD)
    except MissingData as error:
        raise UserError(
            f"{store.path(CARD)}: not there; run `python -m pipeline leaks build` first"
        ) from error
    card = _ENVELOPE.unseal(data, store.path(CARD))
    # the schema is part of the identity: another version is another index
    index_id = short_hash(card | {"schema": _ENVELOPE.schema})
    return LeakIndex(url=url, index_id=index_id, **card)
