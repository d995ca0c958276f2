"""Before admission: pin what a recipe names, and read the archives and addresses it needs.

Pinning asks servers for commits and file lists and fetches nothing; all that a person can have got
wrong is said there. Gathering runs the stages of pipeline.stages.read_archive over the workers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain
from typing import Any

import pyarrow.compute as pc

from pipeline.archives.members import kind_of, ranges
from pipeline.archives.split_files import Concatenated
from pipeline.fetch import local_files
from pipeline.jobs.progress import Steps
from pipeline.jobs.ray_executor import Died, Workers
from pipeline.sources.pin import Pinned
from pipeline.stages import fetch_media, list_media, read_archive
from pipeline.stages.failure_limit import Fuse
from shards.errors import UserError
from shards.index import WANTED
from shards.pool import Pool, Receipt
from shards.receipts import MANY

RANGE_BYTES = 1 << 30  # of a plain tar or zip, for one worker
URLS_PER_UNIT = 256
LINKED = "image_urls"  # the format whose media are addresses


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """The pool's table of what a source wants, and those of what was found."""

    wanted: str
    members: tuple[str, ...]


def gather(
    pinned: Sequence[Pinned],
    stage: str,
    pool: Pool,
    workers: Workers,
    bars: Steps,
    uncaged: bool,
    fuse: Fuse,
) -> dict[str, Gathered]:
    """What the archives and addresses of each source held; sources without any are left out.

    Of a source whose fuse blows no further archive is begun: check the fuse before going on.
    """
    needing = [each for each in pinned if each.archives or each.source.format == LINKED]
    if not needing:
        return {}
    with bars.step("names") as step:
        wanted = _wanted(needing, pool, workers, step, fuse)
    with bars.step("archives" if stage == "decode" else "held out archives") as step:
        units = [
            replace(unit, uncaged=uncaged, bounds=_bounds(unit, wanted, fuse))
            for unit in _archive_units(needing, wanted, stage, pool)
        ]
        linked_units = list(_link_units(wanted.values(), pool))
        step.begin(len(units) + len(linked_units))
        streamed = _run(workers, units, step, fuse, pool)
        _run(workers, linked_units, step, fuse, pool)
    linked = pool.receipts("link")
    gathered = {}
    for each in needing:
        own = [r for unit, r in streamed.items() if (unit.parts, unit.under) in each.archives]
        own += linked if each.source.format == LINKED else []
        gathered[each.source.name] = Gathered(
            wanted=wanted[each.source.name].outputs["index/wanted"][0],
            members=tuple(sorted({r.outputs["index/members"][0] for r in own})),
        )
    return gathered


def _wanted(
    needing: Sequence[Pinned], pool: Pool, workers: Workers, step: Any, fuse: Fuse
) -> dict[str, Receipt]:
    units = {
        each.source.name: list_media.NamesUnit(
            pool=pool.store.url, format=each.source.format, annotations=each.annotations
        )
        for each in needing
    }
    distinct = list(dict.fromkeys(units.values()))
    step.begin(len(distinct))
    done = _run(workers, distinct, step, fuse, pool)
    return {name: done[unit] for name, unit in units.items()}


def _archive_units(
    needing: Sequence[Pinned], wanted: dict[str, Receipt], stage: str, pool: Pool
) -> list[read_archive.ArchiveUnit]:
    """One unit per archive, whatever number of sources names it; large plain ones in ranges."""
    tables: dict[tuple[tuple[str, ...], str], list[str]] = defaultdict(list)
    for each in needing:
        for archive in each.archives:
            tables[archive] += wanted[each.source.name].outputs["index/wanted"]
    folders = {name for name in {*chain(*tables.values())} if _has_folders(pool, name)}
    units = []
    for (parts, under), names in tables.items():
        whole = read_archive.ArchiveUnit(
            pool=pool.store.url,
            stage=stage,
            parts=parts,
            under=under,
            wanted=tuple(sorted(set(names))),
        )
        spans = [None] if folders & set(names) else _spans(parts)
        units += [replace(whole, span=span) for span in spans]
    return units


def _has_folders(pool: Pool, wanted: str) -> bool:
    """Whether folders of pictures are wanted, which no range may cut in two."""
    return bool(pc.any(pc.is_valid(pool.read(f"index/wanted/{wanted}")["fps"])).as_py())


def _bounds(
    unit: read_archive.ArchiveUnit, wanted: Mapping[str, Receipt], fuse: Fuse
) -> tuple[tuple[str, str, Fraction], ...]:
    """(source, its table of what it wants, the share that may fail) of the unit's sources."""
    tables = {name: receipt.outputs["index/wanted"][0] for name, receipt in wanted.items()}
    return tuple(
        (name, table, fuse.bounds[name])
        for name, table in sorted(tables.items())
        if table in unit.wanted and name in fuse.bounds
    )


def _spans(parts: tuple[str, ...]) -> list[tuple[int, int] | None]:
    """Byte ranges of a large local tar or zip; anything else is one unit."""
    kind = kind_of(parts[0].rpartition("/")[2])
    if kind == "tar.gz" or any(local_files.is_remote(part) for part in parts):
        return [None]
    with Concatenated([local_files.local(part).path for part in parts]) as file:
        found = ranges(file, kind, RANGE_BYTES)
    return [*found] if len(found) > 1 else [None]


def _link_units(wanted: Iterable[Receipt], pool: Pool) -> Iterable[fetch_media.LinkUnit]:
    """The addresses that no receipt names yet."""
    table = pool.table(list(wanted), "index/wanted", WANTED)
    done = {url for receipt in pool.receipts("link") for url in receipt.inputs}
    urls = sorted({url for url in table["url"].to_pylist() if url} - done)
    for start in range(0, len(urls), URLS_PER_UNIT):
        yield fetch_media.LinkUnit(
            pool=pool.store.url, urls=tuple(urls[start : start + URLS_PER_UNIT])
        )


def work(
    unit: list_media.NamesUnit | read_archive.ArchiveUnit | fetch_media.LinkUnit,
) -> tuple[Any, read_archive.Passed]:
    """(the unit, what its stage left), whichever stage it belongs to."""
    match unit:
        case list_media.NamesUnit():
            return unit, read_archive.Passed(receipt=list_media.names(unit))
        case read_archive.ArchiveUnit():
            return unit, read_archive.stream(unit)
    return unit, read_archive.Passed(receipt=fetch_media.link(unit))


def _run(
    workers: Workers, units: Sequence[Any], step: Any, fuse: Fuse, pool: Pool
) -> dict[Any, Receipt]:
    """unit -> receipt; an archive whose worker keeps dying is read again, each medium apart.

    An archive that was left early, or not begun, for a fuse that blew has none. Each archive reads
    what is in the pool when it begins, so receipts are compacted as they come.
    """
    found: dict[Any, Receipt] = {}
    left, parts = list(units), 0
    while left:
        again = []
        for result in workers.map(work, _due(left, fuse)):
            if not isinstance(result, Died):
                unit, passed = result
                if passed.receipt:
                    found[unit] = passed.receipt
                parts += passed.parts
                if parts >= MANY:
                    pool.ledger.compact()
                    parts = 0
                for source, codes in passed.codes.items():
                    for code in codes:
                        fuse.note(source, code)
            elif isinstance(result.unit, read_archive.ArchiveUnit) and not result.unit.alone:
                again.append(replace(result.unit, alone=True))
                continue
            else:
                raise UserError(f"{result.unit}: its worker died three times; is memory short?")
            step.advance()
        left = again
    return found


def _due(units: Iterable[Any], fuse: Fuse) -> Iterator[Any]:
    """The units without the archives of stopped sources; shared ones are told who is stopped."""
    for each in units:
        if not isinstance(each, read_archive.ArchiveUnit):
            yield each
            continue
        sources = {source for source, _, _ in each.bounds}
        if fuse.lets_pass(sources):
            yield replace(each, stopped=tuple(sorted(sources & fuse.blown.keys())))
