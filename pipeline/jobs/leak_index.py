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
from pipeline.jobs.run_stages import admit, check_nodes, decode
from pipeline.media.decode import check_tools
from pipeline.sources.catalogue import ID, catalogue
from pipeline.sources.pin import Pinned, pin
from pipeline.stages import decode_media
from pipeline.stages.hash_questions import QuestionsUnit, questions
from shards.errors import Mistakes, UserError
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
    return tuple(_benchmark(benchmark) for benchmark in listed)


def _mistakes(benchmarks: Sequence[Benchmark]) -> Iterator[str]:
    if not benchmarks:
        yield "benchmarks: empty; name at least one"
    yield from repeated("benchmarks", benchmarks)
    for i, benchmark in enumerate(benchmarks):
        if benchmark.copy and benchmark.dataset not in catalogue():
            yield (
                f"benchmarks[{i}] ({benchmark.name}): copy: {benchmark.dataset!r} is not in the "
                "catalogue; name its `format`, `annotations` and `media`"
            )


def _benchmark(benchmark: Benchmark) -> HeldOut:
    """An entry as it is, or with the catalogue's hub addresses turned into those of its copy."""
    if not benchmark.copy:
        return benchmark
    # the catalogue knows the hub's layout; a copy has the same layout elsewhere
    entry = catalogue()[benchmark.dataset]
    archives = () if benchmark.media else entry.archives
    return replace(
        benchmark,
        format=benchmark.format or entry.format,
        annotations=benchmark.annotations
        or tuple(_local(at, benchmark.copy) for at in entry.annotations),
        archives=benchmark.archives
        or tuple(
            Archive(at=_local(archive.at, benchmark.copy), under=archive.under)
            for archive in archives
        ),
    )


def _local(address: str, copy: str) -> str:
    return address.replace(_HUB, f"{copy.rstrip('/')}/")


def build_index(
    path: str,
    out: str,
    address: str | None = None,
    *,
    no_sandbox: bool,
    allowed: Sequence[str] = (),
) -> LeakIndex:
    """Make or renew the index `out` of the benchmarks in the file `path`.

    Links among their media may lead to the folders that are `allowed`.
    """
    folders = allowed_paths(allowed)
    check_here(folders)
    mistakes = Mistakes()
    sources = []
    for source in load_benchmarks(Path(path)):
        with mistakes.noted():
            sources.append(pin(source, path, folders))
    with mistakes.noted():
        Store(out).check_writable()
    mistakes.tell()
    check_tools(no_sandbox=no_sandbox)
    # not before the checks: importing Ray takes longer than they do
    from pipeline.jobs.ray_executor import connect

    pool = _work_pool(f"{out.rstrip('/')}.work")
    with connect(address) as workers, steps() as bars:
        job = Job(pool=pool, workers=workers, bars=bars, no_sandbox=no_sandbox)
        check_nodes(job, folders)
        # the same steps as a build's: only the stage differs, so that frames are not kept
        admitted = admit(sources, gather(sources, "held_out", job), job, "admit")
        decode("held_out", admitted, job)
        with bars.step("questions") as step:
            step.begin(len(sources))
            receipts = list(each(job, questions, [_unit(source, pool) for source in sources], step))
    by_name = {receipt.parameters["benchmark"]: receipt for receipt in receipts}
    return _write(out, pool, sources, admitted, by_name)


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
    question_receipts: dict[str, Receipt],
) -> LeakIndex:
    """The index out of what its pool holds of these benchmarks."""
    shown = {name: _shown(pool, receipt) for name, receipt in sorted(admitted.items())}
    clips = pa.array(
        sorted({clip for clips_of in shown.values() for clip in clips_of}), pa.string()
    )
    # held-out receipts of earlier renewals may hold clips of benchmarks that were taken out
    fingerprints = pool.table(pool.receipts("held_out"), "index/fingerprints", FINGERPRINTS)
    fingerprints = fingerprints.filter(pc.is_in(fingerprints["clip_id"], value_set=clips))
    # sorted: the table's digest, and so the index's id, must not depend on the order of decoding
    fingerprints = fingerprints.sort_by("clip_id")
    decoded = set(fingerprints["clip_id"].to_pylist())
    # clips that could not be decoded have no fingerprint: they are counted below
    media_rows = [
        {"clip_id": clip, "benchmark": name, "record": record}
        for name, clips_of in shown.items()
        for clip, record in sorted(clips_of.items())
        if clip in decoded
    ]
    tables = {
        "fingerprints": fingerprints,
        "media": table_of(LEAK_MEDIA, media_rows),
        "questions": pool.table(
            [question_receipts[name] for name in shown], "questions", LEAK_QUESTIONS
        ),
    }
    sources = {clips_of.source.name: clips_of.source for clips_of in pinned}
    books = [
        {
            "name": name,
            "dataset": sources[name].dataset,
            "revision": admitted[name].parameters["revision"],
            "records": admitted[name].counts["records"],
            "records_refused": admitted[name].counts["records_refused"],
            "without_media": admitted[name].counts["samples_refused"],
            "questions": len(pool.table([question_receipts[name]], "questions", LEAK_QUESTIONS)),
            "media": len(clips_of),
            "media_refused": len(clips_of.keys() - decoded),
        }
        for name, clips_of in shown.items()
    ]
    return write_index(out, decode_media.DECODE_VERSION, books, tables)


def _shown(pool: Pool, admitted: Receipt) -> dict[str, str]:
    """Clips of a benchmark -> the first record that shows each."""
    first_record: dict[str, str] = {}
    for row in pool.table([admitted], "index/samples", SAMPLES).to_pylist():
        for clip in row["clip_ids"]:
            # of several records the least: a function of content
            first_record[clip] = min(first_record.get(clip, row["record"]), row["record"])
    return first_record
