"""`python -m pipeline leaks build`: copies of benchmarks -> a leak index, which holds only hashes.

    benchmarks.yaml ─► pin ─► gather ─► admit ─► decode (fingerprints) ─► index
                                    └─► questions (12-grams) ─────────────┘

The steps are those of a build's held-out data, run in a pool of their own beside the index
(`INDEX.work`), so that a killed run goes on where it was. Frames are never written anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from mixtures.recipe import fields
from mixtures.recipe.allowed_paths import allowed_paths, check_here
from mixtures.recipe.types import Archive, Benchmark, Benchmarks, HeldOut
from mixtures.recipe.validate import repeated
from pipeline.jobs.collect import gather
from pipeline.jobs.job import Job, each
from pipeline.jobs.progress import steps
from pipeline.jobs.ray_executor import connect
from pipeline.jobs.run_stages import admit, check_nodes, decode
from pipeline.media.decode import check_tools
from pipeline.sources.catalogue import ID, catalogue
from pipeline.sources.pin import Pinned, pin
from pipeline.stages import decode_media
from pipeline.stages.hash_questions import QuestionsUnit, questions
from shards.errors import UserError
from shards.index import FINGERPRINTS, LEAK_MEDIA, LEAK_QUESTIONS, SAMPLES, table_of
from shards.leak_index import LeakIndex, write_index
from shards.pool import Pool, Receipt
from shards.profile import Profile
from shards.store import Store

_HUB = f"hf://datasets/{ID}/"


def load_benchmarks(path: Path) -> tuple[HeldOut, ...]:
    """The benchmarks that a file names; UserError names the file, the key and the remedy."""
    listed = fields.load(Benchmarks, path).benchmarks
    if wrong := [f"{path}: {line}" for line in _mistakes(listed)]:
        raise UserError(*wrong)
    return tuple(_benchmark(one) for one in listed)


def _mistakes(listed: Sequence[Benchmark]) -> Iterator[str]:
    if not listed:
        yield "benchmarks: empty; name at least one"
    yield from repeated("benchmarks", listed)
    for i, one in enumerate(listed):
        if one.copy and one.dataset not in catalogue():
            yield (
                f"benchmarks[{i}] ({one.name}): copy: {one.dataset!r} is not in the catalogue; "
                "name its `format`, `annotations` and `media`"
            )


def _benchmark(one: Benchmark) -> HeldOut:
    """An entry as it is, or with the catalogue's hub addresses turned into those of its copy."""
    if not one.copy:
        return one
    entry = catalogue()[one.dataset]
    archives = () if one.media else entry.archives
    return replace(
        one,
        format=one.format or entry.format,
        annotations=one.annotations or tuple(_local(at, one.copy) for at in entry.annotations),
        archives=one.archives
        or tuple(Archive(at=_local(each.at, one.copy), under=each.under) for each in archives),
    )


def _local(address: str, copy: str) -> str:
    return address.replace(_HUB, f"{copy.rstrip('/')}/")


def build_index(
    path: str,
    out: str,
    address: str | None = None,
    *,
    uncaged: bool,
    allowed: Sequence[str] = (),
) -> LeakIndex:
    """Make or renew the index `out` of the benchmarks in the file `path`.

    Links among their media may lead to the folders that are `allowed`.
    """
    folders = allowed_paths(allowed)
    check_here(folders)
    check_tools(uncaged=uncaged)
    pinned = [pin(one, path, folders) for one in load_benchmarks(Path(path))]
    Store(out).check_writable()
    pool = _work_pool(f"{out.rstrip('/')}.work")
    with connect(address) as workers, steps() as bars:
        job = Job(pool=pool, workers=workers, bars=bars, uncaged=uncaged)
        check_nodes(job, folders)
        admitted = admit(pinned, gather(pinned, "held_out", job), job, "admit")
        decode("held_out", admitted, job)
        with bars.step("questions") as step:
            step.begin(len(pinned))
            asked = list(each(job, questions, [_unit(one, pool) for one in pinned], step))
    by_name = {receipt.parameters["benchmark"]: receipt for receipt in asked}
    return _write(out, pool, pinned, admitted, by_name)


def _work_pool(url: str) -> Pool:
    """What is kept between renewals; UserError says what to do with one of another version."""
    try:
        return Pool(url, Profile())
    except UserError as error:
        raise UserError(
            f"{error}; here that is to delete {url}, which only saves work, and to run this again"
        ) from error


def _unit(pinned: Pinned, pool: Pool) -> QuestionsUnit:
    return QuestionsUnit(
        pool=pool.store.url,
        benchmark=pinned.source.name,
        format=pinned.source.format,
        annotations=pinned.annotations,
        columns=pinned.source.columns,
    )


def _write(
    out: str,
    pool: Pool,
    pinned: Sequence[Pinned],
    admitted: dict[str, Receipt],
    asked: dict[str, Receipt],
) -> LeakIndex:
    """The index out of what its pool holds of these benchmarks."""
    shown = {name: _shown(pool, receipt) for name, receipt in sorted(admitted.items())}
    clips = pa.array(sorted({clip for one in shown.values() for clip in one}), pa.string())
    prints = pool.table(pool.receipts("held_out"), "index/fingerprints", FINGERPRINTS)
    prints = prints.filter(pc.is_in(prints["clip_id"], value_set=clips))
    prints = prints.sort_by("clip_id")
    looked_at = set(prints["clip_id"].to_pylist())
    media_rows = [
        {"clip_id": clip, "benchmark": name, "record": record}
        for name, one in shown.items()
        for clip, record in sorted(one.items())
        if clip in looked_at
    ]
    tables = {
        "fingerprints": prints,
        "media": table_of(LEAK_MEDIA, media_rows),
        "questions": pool.table([asked[name] for name in shown], "questions", LEAK_QUESTIONS),
    }
    sources = {one.source.name: one.source for one in pinned}
    books = [
        {
            "name": name,
            "dataset": sources[name].dataset,
            "revision": admitted[name].parameters["revision"],
            "records": admitted[name].counts["records"],
            "records_refused": admitted[name].counts["records_refused"],
            "without_media": admitted[name].counts["samples_refused"],
            "questions": len(pool.table([asked[name]], "questions", LEAK_QUESTIONS)),
            "media": len(one),
            "media_refused": len(one.keys() - looked_at),
        }
        for name, one in shown.items()
    ]
    return write_index(out, decode_media.DECODE_VERSION, books, tables)


def _shown(pool: Pool, admitted: Receipt) -> dict[str, str]:
    """Clips of a benchmark -> the first record that shows each."""
    found: dict[str, str] = {}
    for row in pool.table([admitted], "index/samples", SAMPLES).to_pylist():
        for clip in row["clip_ids"]:
            found[clip] = min(found.get(clip, row["record"]), row["record"])
    return found
