"""What answers the names that the records of a source give: with its annotations, its revision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.sources.media_lookup import Found, MediaTable
from pipeline.sources.records import MediaRef
from pipeline.stages import list_media
from pipeline.untrusted import Problem
from shards.pool import Pool


def answers(unit: list_media.NamesUnit, table: MediaTable) -> dict[str, Found | Problem]:
    """Each name that records give, with what has it, or why nothing has.

    A folder of pictures has a / behind its name. Files that nobody names do not count, so they
    change no revision. Of records that name pieces of files every file counts.
    """
    pool = Pool(unit.pool)
    listed = list_media.names(unit)
    if listed.counts.get("pieces"):
        return table.everything()
    # the receipt of the names is the list: no record is parsed twice
    rows = pool.read(f"index/wanted/{listed.outputs['index/wanted'][0]}").to_pylist()
    return dict(_answered(rows, table))


def digests(named: Mapping[str, Found | Problem]) -> dict[str, str]:
    """Behind each name the sha256 of its bytes, or the code of why there are none."""
    return {
        name: place.code if isinstance(place, Problem) else place.digest
        for name, place in named.items()
    }


def places(
    named: Mapping[str, Found | Problem], origins: Mapping[str, str]
) -> dict[str, list[str | int]]:
    """Behind each name where its bytes lie, and what admission notes of that."""
    return {
        name: [portable(place.address, origins), place.near, place.junk, place.numbered]
        for name, place in named.items()
        if isinstance(place, Found)
    }


def portable(address: str, origins: Mapping[str, str]) -> str:
    """An address that another machine can open: of the published file, not of its copy here.

    `origins` says which address each copy has.
    """
    scheme, _, place = address.partition(":")
    # only these schemes have something behind the place
    path, mark, spot = place.rpartition("#") if scheme in ("parquet", "range") else (place, "", "")
    return f"{scheme}:{origins[path]}{mark}{spot}" if path in origins else address


def _answered(
    rows: list[Mapping[str, Any]], table: MediaTable
) -> Iterator[tuple[str, Found | Problem]]:
    for row in rows:
        ref = MediaRef(kind=row["kind"], name=row["name"], fps=row["fps"], url=row["url"])
        # / tells a folder of pictures from a file of the same name
        yield f"{row['name']}/" if row["fps"] else row["name"], table.find(ref)
