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
from pipeline.jobs.workers import Died
from pipeline.sources.pin import Pinned
from pipeline.stages import fetch_media, list_media
from pipeline.stages.admit_records import ADMISSION_BYTES
from pipeline.stages.failure_limit import FailureLimit
from pipeline.stages.read_archive import ArchiveUnit, Passed, stream
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


def gather(sources: Sequence[Pinned], stage: str, job: Job) -> dict[str, Gathered]:
    """What the archives and addresses of each source held; sources without any are left out.

    Of a source whose failure_limit blows no further archive is begun: check the failure_limit
    before going on.
    """
    # embedded media and folders need nothing gathered
    needing = [source for source in sources if source.archives or source.source.format == LINKED]
    if not needing:
        return {}
    listed = _wanted(needing, job)
    _check_snapshots(job.pool)
    with job.bars.step("archives" if stage == "decode" else "held out archives") as step:
        # the limits travel with the unit: a worker stops reading for a source that fails
        units = [
            replace(
                unit, no_sandbox=job.no_sandbox, bounds=_bounds(unit, listed, job.failure_limit)
            )
            for unit in archive_units(needing, listed, stage, job.pool)
        ]
        link_units = list(_link_units(listed.values(), job.pool, job.retry))
        step.begin(len(units) + len(link_units))
        streamed = _read_archives(units, job, step)
        list(each(job, fetch_media.link, link_units, step))
    # all receipts of the stage: addresses fetched for other sources count too
    linked = fetch_media.last_attempts(job.pool.receipts("link"))
    gathered = {}
    for source in needing:
        receipts = [
            r for unit, r in streamed.items() if (unit.parts, unit.under) in source.archives
        ]
        receipts += linked if source.source.format == LINKED else []
        gathered[source.source.name] = Gathered(
            wanted=listed[source.source.name].outputs["index/wanted"][0],
            members=tuple(sorted({r.outputs["index/members"][0] for r in receipts})),
        )
    return gathered


def _check_snapshots(pool: Pool) -> None:
    """UserError where a snapshot holds a receipt that is gone, and cannot be removed: archives are
    told by snapshots alone what is done (`Receipts.copied`)."""
    for name, why in pool.ledger.forget_removed().items():
        raise UserError(
            f"{pool.store.path(name)}: holds receipts that were removed, and stays ({why}); remove "
            "it, and build again"
        )


def _wanted(needing: Sequence[Pinned], job: Job) -> dict[str, Receipt]:
    """Source -> the receipt that lists its media; sources with the same annotations share one."""
    units = {
        source.source.name: list_media.NamesUnit(
            pool=job.pool.store.url,
            format=source.source.format,
            annotations=source.annotations,
            columns=source.source.columns,
        )
        for source in needing
    }
    # sources over one annotation file list its media once
    distinct = list(dict.fromkeys(units.values()))
    with job.bars.step("names") as step:
        step.begin(len(distinct))
        done = dict(each(job, _list_media, distinct, step, ADMISSION_BYTES))
    return {name: done[unit] for name, unit in units.items()}


def _list_media(unit: list_media.NamesUnit) -> tuple[list_media.NamesUnit, Receipt]:
    return unit, list_media.names(unit)


def archive_units(
    needing: Sequence[Pinned], listed: dict[str, Receipt], stage: str, pool: Pool
) -> list[ArchiveUnit]:
    """One unit per archive, whatever number of sources names it; large plain ones in ranges."""
    tables: dict[tuple[tuple[str, ...], str], list[str]] = defaultdict(list)
    for source in needing:
        for archive in source.archives:
            # an archive is read once, whichever sources want members of it
            tables[archive] += listed[source.source.name].outputs["index/wanted"]
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
        # a folder of pictures may lie across any two ranges
        spans = [None] if folders & set(names) else _spans(parts)
        units += [replace(whole, span=span) for span in spans]
    return units


def _has_folders(pool: Pool, name: str) -> bool:
    """Whether folders of pictures are wanted, which no range may cut in two."""
    return bool(pc.any(pc.is_valid(pool.read(f"index/wanted/{name}")["fps"])).as_py())


def _bounds(
    unit: ArchiveUnit, listed: Mapping[str, Receipt], failure_limit: FailureLimit
) -> tuple[tuple[str, str, Fraction], ...]:
    """(source, its table of what it wants, the share that may fail) of the unit's sources."""
    # by table, since a unit names the tables of what is wanted
    tables = {name: receipt.outputs["index/wanted"][0] for name, receipt in listed.items()}
    return tuple(
        (name, table, failure_limit.bounds[name])
        for name, table in sorted(tables.items())
        if table in unit.wanted and name in failure_limit.bounds
    )


def _spans(addresses: tuple[str, ...]) -> list[tuple[int, int] | None]:
    """Byte ranges of a large local tar or zip; anything else is one unit."""
    kind = kind_of(addresses[0].rpartition("/")[2])
    # gzip cannot be entered in the middle; a fetched archive is one file on one machine
    if kind == "tar.gz" or any(local_files.is_remote(part) for part in addresses):
        return [None]
    with Concatenated([local_files.local(part).path for part in addresses]) as file:
        spans = ranges(file, kind, RANGE_BYTES)
    return [*spans] if len(spans) > 1 else [None]


def _link_units(
    listed: Iterable[Receipt], pool: Pool, retry: frozenset[str] = frozenset()
) -> Iterable[fetch_media.LinkUnit]:
    """The addresses that no receipt names yet, and those that are to be tried again."""
    table = pool.table(list(listed), "index/wanted", WANTED)
    # rotten addresses are not tried again unasked: receipts of failures count as done
    fetched = {url for receipt in pool.receipts("link") for url in receipt.inputs}
    wanted = {url for url in table["url"].to_pylist() if url}
    yield from fetch_media.again(pool, wanted, retry)
    urls = sorted(wanted - fetched)
    for start in range(0, len(urls), URLS_PER_UNIT):
        yield fetch_media.LinkUnit(
            pool=pool.store.url, urls=tuple(urls[start : start + URLS_PER_UNIT])
        )


def _read_archives(
    units: Sequence[ArchiveUnit], job: Job, step: Step
) -> dict[ArchiveUnit, Receipt]:
    """Unit -> receipt; an archive whose worker keeps dying is read again, each medium apart.

    An archive that was left early, or not begun, for a stopped source has none. Each archive reads
    which media are in the pool when it begins, from snapshots alone: so receipts are compacted
    before, and as they come.
    """
    receipts: dict[ArchiveUnit, Receipt] = {}
    left = list(units)
    while left:
        job.pool.ledger.compact()
        parts = 0
        again = []
        # _due is lazy: sources that fail meanwhile stop further archives
        for result in job.workers.map(_read_archive, _due(left, job.failure_limit)):
            if isinstance(result, Died):
                if result.unit.alone:
                    raise killed(result.unit)
                again.append(replace(result.unit, alone=True))
                continue
            unit, passed = result
            if passed.receipt:
                receipts[unit] = passed.receipt
            # receipts come while archives run: compacted on the way, for later archives to see
            parts += passed.parts
            if parts >= MANY:
                job.pool.ledger.compact()
                parts = 0
            for source, codes in passed.codes.items():
                for code in codes:
                    job.failure_limit.note(source, code)
            step.advance()
        # those whose workers died, now with each medium in a process of its own
        left = again
    return receipts


def _read_archive(unit: ArchiveUnit) -> tuple[ArchiveUnit, Passed]:
    return unit, stream(unit)


def _due(units: Iterable[ArchiveUnit], failure_limit: FailureLimit) -> Iterator[ArchiveUnit]:
    """The archives without those of stopped sources; shared ones are told who is stopped."""
    for unit in units:
        sources = {source for source, _, _ in unit.bounds}
        if failure_limit.lets_pass(sources):
            yield replace(unit, stopped=tuple(sorted(sources & failure_limit.stopped.keys())))
