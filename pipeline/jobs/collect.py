"""Before admission: list the media that records name, read archives and addresses for them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain

import pyarrow.compute as pc

from pipeline.archives.members import kind_of, ranges
from pipeline.archives.split_files import Concatenated
from pipeline.fetch import local_files
from pipeline.jobs.job import Job, each, killed
from pipeline.jobs.progress import Step
from pipeline.jobs.ray_executor import Died
from pipeline.sources.pin import Pinned
from pipeline.stages import fetch_media, list_media
from pipeline.stages.failure_limit import Fuse
from pipeline.stages.read_archive import ArchiveUnit, Passed, stream
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


def gather(pinned: Sequence[Pinned], stage: str, job: Job) -> dict[str, Gathered]:
    """What the archives and addresses of each source held; sources without any are left out.

    Of a source whose fuse blows no further archive is begun: check the fuse before going on.
    """
    needing = [one for one in pinned if one.archives or one.source.format == LINKED]
    if not needing:
        return {}
    wanted = _wanted(needing, job)
    with job.bars.step("archives" if stage == "decode" else "held out archives") as step:
        units = [
            replace(unit, uncaged=job.uncaged, bounds=_bounds(unit, wanted, job.fuse))
            for unit in _archive_units(needing, wanted, stage, job.pool)
        ]
        link_units = list(_link_units(wanted.values(), job.pool))
        step.begin(len(units) + len(link_units))
        streamed = _read_archives(units, job, step)
        list(each(job, fetch_media.link, link_units, step))
    linked = job.pool.receipts("link")
    gathered = {}
    for one in needing:
        own = [r for unit, r in streamed.items() if (unit.parts, unit.under) in one.archives]
        own += linked if one.source.format == LINKED else []
        gathered[one.source.name] = Gathered(
            wanted=wanted[one.source.name].outputs["index/wanted"][0],
            members=tuple(sorted({r.outputs["index/members"][0] for r in own})),
        )
    return gathered


def _wanted(needing: Sequence[Pinned], job: Job) -> dict[str, Receipt]:
    """Source -> the receipt that lists its media; sources with the same annotations share one."""
    units = {
        one.source.name: list_media.NamesUnit(
            pool=job.pool.store.url,
            format=one.source.format,
            annotations=one.annotations,
            columns=one.source.columns,
        )
        for one in needing
    }
    distinct = list(dict.fromkeys(units.values()))
    with job.bars.step("names") as step:
        step.begin(len(distinct))
        done = dict(each(job, _list_media, distinct, step))
    return {name: done[unit] for name, unit in units.items()}


def _list_media(unit: list_media.NamesUnit) -> tuple[list_media.NamesUnit, Receipt]:
    return unit, list_media.names(unit)


def _archive_units(
    needing: Sequence[Pinned], wanted: dict[str, Receipt], stage: str, pool: Pool
) -> list[ArchiveUnit]:
    """One unit per archive, whatever number of sources names it; large plain ones in ranges."""
    tables: dict[tuple[tuple[str, ...], str], list[str]] = defaultdict(list)
    for one in needing:
        for archive in one.archives:
            tables[archive] += wanted[one.source.name].outputs["index/wanted"]
    folders = {name for name in {*chain(*tables.values())} if _has_folders(pool, name)}
    units = []
    for (parts, under), names in tables.items():
        whole = ArchiveUnit(
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
    unit: ArchiveUnit, wanted: Mapping[str, Receipt], fuse: Fuse
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


def _read_archives(
    units: Sequence[ArchiveUnit], job: Job, step: Step
) -> dict[ArchiveUnit, Receipt]:
    """Unit -> receipt; an archive whose worker keeps dying is read again, each medium apart.

    An archive that was left early, or not begun, for a fuse that blew has none. Each archive reads
    what is in the pool when it begins, so receipts are compacted as they come.
    """
    receipts: dict[ArchiveUnit, Receipt] = {}
    left = list(units)
    parts = 0
    while left:
        again = []
        for result in job.workers.map(_read_archive, _due(left, job.fuse)):
            if isinstance(result, Died):
                if result.unit.alone:
                    raise killed(result.unit)
                again.append(replace(result.unit, alone=True))
                continue
            unit, passed = result
            if passed.receipt:
                receipts[unit] = passed.receipt
            parts += passed.parts
            if parts >= MANY:
                job.pool.ledger.compact()
                parts = 0
            for source, codes in passed.codes.items():
                for code in codes:
                    job.fuse.note(source, code)
            step.advance()
        left = again
    return receipts


def _read_archive(unit: ArchiveUnit) -> tuple[ArchiveUnit, Passed]:
    return unit, stream(unit)


def _due(units: Iterable[ArchiveUnit], fuse: Fuse) -> Iterator[ArchiveUnit]:
    """The archives without those of stopped sources; shared ones are told who is stopped."""
    for unit in units:
        sources = {source for source, _, _ in unit.bounds}
        if fuse.lets_pass(sources):
            yield replace(unit, stopped=tuple(sorted(sources & fuse.blown.keys())))
