"""What answers the names that the records of a source give: with its annotations, its revision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.sources.media_lookup import MediaTable
from pipeline.sources.records import MediaRef
from pipeline.stages import list_media
from pipeline.untrusted import Problem
from shards.pool import Pool


def answers(unit: list_media.NamesUnit, table: MediaTable) -> dict[str, str]:
    """Each name that records give, with the sha256 of what has it, or the code of why nothing has.

    Files that nobody names do not count, so they change no revision. Of records that name pieces of
    files every file counts.
    """
    pool, listed = Pool(unit.pool), list_media.names(unit)
    if listed.counts.get("pieces"):
        return table.digests()
    rows = pool.read(f"index/wanted/{listed.outputs['index/wanted'][0]}").to_pylist()
    return dict(sorted(_answered(rows, table)))


def _answered(rows: list[Mapping[str, Any]], table: MediaTable) -> Iterator[tuple[str, str]]:
    for row in rows:
        ref = MediaRef(kind=row["kind"], name=row["name"], fps=row["fps"], url=row["url"])
        place = table.find(ref)
        yield row["name"], place.code if isinstance(place, Problem) else place.digest
