"""Before admission: pin what a recipe names, and read the archives and addresses it needs.

Pinning asks servers for commits and file lists and fetches nothing; all that a person can have got
wrong is said there. Gathering runs the stages of pipeline.stream over the workers.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from mixtures.recipe import Archive, HeldOut, Source
from pipeline import fetch, hub, links, stream
from pipeline.archives import kind_of, ranges, whole_name
from pipeline.cluster import Died, Workers
from pipeline.concatenated import Concatenated
from pipeline.fuse import Fuse
from pipeline.progress import Steps
from pipeline.sources import FORMATS
from pipeline.sources.catalogue import ID, catalogue, completed
from shards.errors import UserError
from shards.index import WANTED
from shards.pool import Pool, Receipt
from shards.receipts import MANY

RANGE_BYTES = 1 << 30  # of a plain tar or zip, for one worker
URLS_PER_UNIT = 256
LINKED = "image_urls"  # the format whose media are addresses
_FIXED = re.compile(r"^[^*?\[]*/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinned:
    """A source whose addresses are files.

    `archives` are (parts, under), `loose` files that lie by themselves, as (name, address).
    """

    source: Source | HeldOut
    annotations: tuple[str, ...]
    archives: tuple[tuple[tuple[str, ...], str], ...]
    loose: tuple[tuple[str, str], ...]
    ids_repeat: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """The pool's table of what a source wants, and those of what was found."""

    wanted: str
    members: tuple[str, ...]


def pin(source: Source | HeldOut, where: str) -> Pinned:
    """The source with every address pinned; UserError names recipe, source and key."""
    full = completed(source, where)
    if full.format not in FORMATS:
        raise UserError(
            f"{where}: format of {full.name!r} is {full.format!r}; "
            f"this version reads {', '.join(sorted(FORMATS))}"
        )
    if full.media:
        fetch.resolve(full.media, f"{where}: media of {full.name}")
    entry = catalogue().get(full.dataset)
    ids = entry.ids if entry else ("",)
    for number, name in enumerate(ids):
        try:
            found = _pinned(_with_id(full, name), where)
            return replace(found, ids_repeat=bool(entry and entry.ids_repeat))
        except hub.HubMissingError:
            if number + 1 == len(ids):
                raise
    raise AssertionError("a dataset without ids")


def _with_id(source: Source | HeldOut, name: str) -> Source | HeldOut:
    return replace(
        source,
        annotations=tuple(address.replace(ID, name) for address in source.annotations),
        archives=tuple(
            Archive(at=archive.at.replace(ID, name), under=archive.under)
            for archive in source.archives
        ),
    )


def _pinned(source: Source | HeldOut, where: str) -> Pinned:
    key = f"{where}: annotations of {source.name}"
    annotations = [file for each in source.annotations for file in fetch.pin(each, key)]
    for file in annotations:
        if not fetch.is_remote(file) and Path(file).is_dir():
            raise UserError(f"{file}: a folder, named by {key}; name the files in it: {file}/*")
    archives: dict[tuple[str, str], list[str]] = defaultdict(list)
    loose = []
    for archive in source.archives:
        for address in fetch.pin(archive.at, f"{where}: archives of {source.name}"):
            if _is_archive(address):
                archives[whole_name(address), archive.under].append(address)
            else:
                loose.append((_loose_name(archive, address), address))
    return Pinned(
        source=source,
        annotations=tuple(annotations),
        archives=tuple((tuple(parts), under) for (_, under), parts in archives.items()),
        loose=tuple(loose),
    )


def _is_archive(address: str) -> bool:
    """Whether the file is streamed; UserError for one that nobody can read as it is."""
    name = address.rpartition("/")[2]
    if re.search(r"\.(tar|tgz|zip|z\d\d)\b", name.lower()):
        kind_of(name)
        return True
    return False


def _loose_name(archive: Archive, address: str) -> str:
    """The name of a loose file: its path from the fixed folder of the pattern on."""
    pattern, path = (
        hub.parse(each).path if each.startswith("hf://") else each for each in (archive.at, address)
    )
    fixed = _FIXED.match(pattern)
    inside = path.removeprefix(fixed[0]) if fixed else path
    inside = inside if inside != path else path.rpartition("/")[2]
    return f"{archive.under}/{inside}" if archive.under else inside


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
        each.source.name: stream.NamesUnit(
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
) -> list[stream.ArchiveUnit]:
    """One unit per archive, whatever number of sources names it; large plain ones in ranges."""
    tables: dict[tuple[tuple[str, ...], str], list[str]] = defaultdict(list)
    for each in needing:
        for archive in each.archives:
            tables[archive] += wanted[each.source.name].outputs["index/wanted"]
    folders = {name for name in {*chain(*tables.values())} if _has_folders(pool, name)}
    units = []
    for (parts, under), names in tables.items():
        whole = stream.ArchiveUnit(
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
    unit: stream.ArchiveUnit, wanted: Mapping[str, Receipt], fuse: Fuse
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
    if kind == "tar.gz" or any(fetch.is_remote(part) for part in parts):
        return [None]
    with Concatenated([fetch.local(part).path for part in parts]) as file:
        found = ranges(file, kind, RANGE_BYTES)
    return [*found] if len(found) > 1 else [None]


def _link_units(wanted: Iterable[Receipt], pool: Pool) -> Iterable[links.LinkUnit]:
    """The addresses that no receipt names yet."""
    table = pool.table(list(wanted), "index/wanted", WANTED)
    done = {url for receipt in pool.receipts("link") for url in receipt.inputs}
    urls = sorted({url for url in table["url"].to_pylist() if url} - done)
    for start in range(0, len(urls), URLS_PER_UNIT):
        yield links.LinkUnit(pool=pool.store.url, urls=tuple(urls[start : start + URLS_PER_UNIT]))


def work(
    unit: stream.NamesUnit | stream.ArchiveUnit | links.LinkUnit,
) -> tuple[Any, stream.Passed]:
    """(the unit, what its stage left), whichever stage it belongs to."""
    match unit:
        case stream.NamesUnit():
            return unit, stream.Passed(receipt=stream.names(unit))
        case stream.ArchiveUnit():
            return unit, stream.stream(unit)
    return unit, stream.Passed(receipt=links.link(unit))


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
            elif isinstance(result.unit, stream.ArchiveUnit) and not result.unit.alone:
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
        if not isinstance(each, stream.ArchiveUnit):
            yield each
            continue
        sources = {source for source, _, _ in each.bounds}
        if fuse.lets_pass(sources):
            yield replace(each, stopped=tuple(sorted(sources & fuse.blown.keys())))
