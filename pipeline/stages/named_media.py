"""What answers the names that the records of a source give: with its annotations, its revision."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, pairwise
from operator import itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.sources.media_lookup import Found, MediaTable, Members
from pipeline.sources.records import MediaRef
from pipeline.stages import list_media
from pipeline.untrusted import Problem
from shards.ids import MappingHash
from shards.pool import Pool

_AT_ONCE = 1 << 12


def answered(
    unit: list_media.NamesUnit, table: MediaTable, origins: Mapping[str, str]
) -> tuple[str, str]:
    """H over each name that records give and the sha256 of its bytes, or the code of why there are
    none; and H over where they lie, and what admission notes of that.

    Files that nobody names do not count, so they change no revision. Of files that records name
    pieces of, whole files count.
    """
    pool = Pool(unit.pool)
    # the receipt of the names is the list: no record is parsed twice
    outputs = list_media.names(unit).outputs
    wanted, pieces = (
        pool.read(f"{folder}/{outputs[folder][0]}") for folder in ("index/wanted", "index/pieces")
    )
    # pieces are never of a file in an archive
    unpacked = replace(table, members=Members(broken=table.members.broken))
    files = ((f"{name}#pieces", found) for name, found in answers(pieces, unpacked))
    named = heapq.merge(answers(wanted, table), files, key=itemgetter(0))
    return hashes(named, unit.annotations, origins)


def hashes(
    named: Iterable[tuple[str, Found | Problem]],
    annotations: Sequence[str],
    origins: Mapping[str, str],
) -> tuple[str, str]:
    """The two of `answered`, of names in ascending order."""
    digests, places = MappingHash(), MappingHash(list(annotations))
    for name, medium in named:
        if isinstance(medium, Problem):
            digests.add(name, medium.code)
        else:
            digests.add(name, medium.digest)
            where = portable(medium.address, origins)
            places.add(name, [where, medium.near, medium.junk, medium.numbered])
    return digests.short(), places.short()


def answers(wanted: pa.Table, table: MediaTable) -> Iterator[tuple[str, Found | Problem]]:
    """Each name of rows of WANTED, in ascending order, with what has it, or why nothing has.

    A folder of pictures has a / behind its name.
    """
    # / tells a folder of pictures from a file of the same name
    name = wanted["name"].combine_chunks()
    folder = pc.binary_join_element_wise(name, "", "/")
    wanted = wanted.append_column("asked", pc.if_else(pc.is_valid(wanted["fps"]), folder, name))
    # a film may be wanted in several ways: the last of equal names is asked for
    rows = _rows(wanted.sort_by("asked"))
    for row, following in pairwise(chain(rows, [{"asked": None}])):
        if row["asked"] != following["asked"]:
            ref = MediaRef(kind=row["kind"], name=row["name"], fps=row["fps"], url=row["url"])
            yield row["asked"], table.find(ref)


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows of a table, a few of them as objects at a time."""
    for batch in table.to_batches(_AT_ONCE):
        yield from batch.to_pylist()


def portable(address: str, origins: Mapping[str, str]) -> str:
    """An address that another machine can open: of the published file, not of its copy here.

    `origins` says which address each copy has.
    """
    scheme, _, place = address.partition(":")
    # only these schemes have something behind the place
    path, mark, spot = place.rpartition("#") if scheme in ("parquet", "range") else (place, "", "")
    return f"{scheme}:{origins[path]}{mark}{spot}" if path in origins else address
