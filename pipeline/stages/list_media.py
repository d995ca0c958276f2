"""The media that the records of one source name and that lie in archives or on the web."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.fetch import local_files
from pipeline.sources import records
from pipeline.sources.records import Columns, Record
from shards.ids import sha256_file
from shards.index import WANTED, table_of
from shards.pool import Pool, Receipt
from shards.receipts import Work

NAMES_VERSION = "2"


@dataclass(frozen=True, slots=True, kw_only=True)
class NamesUnit:
    """The annotations of one source, as pinned addresses."""

    pool: str
    format: str
    annotations: tuple[str, ...]
    columns: Columns = ()


def names(unit: NamesUnit) -> Receipt:
    """The distinct media that the records of a source name, in order of their names.

    The receipt counts `pieces`: media that are pieces of files, which are not listed.
    """
    pool = Pool(unit.pool)
    files = [local_files.local(address) for address in unit.annotations]
    inputs = [file.digest or sha256_file(file.path) for file in files]
    columns = [[name, list(named)] for name, named in unit.columns]
    work = Work("names", NAMES_VERSION, {"format": unit.format, "columns": columns}, inputs)
    if done := pool.done(work):
        return done
    wanted = {}
    pieces = 0
    for item in records(unit.format, [file.path for file in files], unit.columns):
        for ref in item.media if isinstance(item, Record) else ():
            pieces += bool(ref.sizes)
            if ref.data is None and not ref.sizes:
                # an address stands for itself; a path may be published under several names
                for name in (ref.url,) if ref.url else (ref.name, *ref.also):
                    span = None if ref.span is None else list(ref.span)
                    row = {"name": name, "kind": ref.kind, "fps": ref.fps, "span": span}
                    # distinct by all that makes another clip: name, kind, rate, span
                    wanted[name, ref.kind, ref.fps or 0, ref.span or ()] = row | {"url": ref.url}
    rows = [wanted[key] for key in sorted(wanted)]
    tables = {"index/wanted": table_of(WANTED, rows)}
    return pool.commit(work, tables, counts={"pieces": pieces})
