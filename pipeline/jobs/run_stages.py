"""Stages that builds and leak indexes share, run over workers: admission and decoding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mixtures.recipe.allowed_paths import check_here
from mixtures.recipe.types import Source
from pipeline.jobs.collect import Gathered
from pipeline.jobs.job import Job, each
from pipeline.jobs.job_package import media_told
from pipeline.jobs.workers import Died, Workers
from pipeline.media.decode import check_tools
from pipeline.sources.name_notes import names_told
from pipeline.sources.pin import Pinned
from pipeline.stages import decode_media, pending
from pipeline.stages.admit_records import ADMISSION_BYTES, SourceUnit
from pipeline.stages.admit_records import admit as stage_admit
from shards.index import NAMED, UNREAD
from shards.pool import Pool, Receipt


def check_nodes(job: Job, folders: Sequence[Path]) -> None:
    """Say how every other machine of the cluster decodes, and whether a package carries media.

    UserError if the sandbox of one is open, or if it lacks one of the folders that were allowed.
    """
    there = job.workers.each_node(partial(_check_node, folders, job.no_sandbox))
    for node, tools in sorted(there.items()):
        job.bars.say(f"{node}: decoding with {tools}")
    if told := media_told(job.workers.package):
        job.bars.say(told)


def _check_node(folders: Sequence[Path], no_sandbox: bool) -> str:
    check_here(folders)
    return check_tools(no_sandbox=no_sandbox)


def admit(
    sources: Sequence[Pinned], gathered: dict[str, Gathered], job: Job, title: str
) -> dict[str, Receipt]:
    """Published records -> samples, the media they name, and refusals: one receipt a source.

    A source is stopped if most of its records are refused: check the limit before going on.
    """
    units = [source_unit(source, gathered.get(source.source.name), job.pool) for source in sources]
    with job.bars.step(title) as step:
        step.begin(len(units))
        receipts = list(each(job, stage_admit, units, step, ADMISSION_BYTES))
    # in the order of finishing; by name, they are in the recipe's
    by_name = {receipt.parameters["source"]: receipt for receipt in receipts}
    for source in sources:
        name = source.source.name
        fields = job.pool.table([by_name[name]], "unread", UNREAD).to_pylist()
        if message := unread_told(fields):
            job.bars.say(f"{name}: fields that nobody reads: {message}")
        if message := names_told(
            source, job.pool.table([by_name[name]], "named", NAMED).to_pylist()
        ):
            job.bars.say(f"{name}: {message}")
        codes = refused_codes(job.pool, by_name[name])
        if message := job.failure_limit.weigh(name, codes, by_name[name].counts["records"]):
            job.bars.say(message)
    return {unit.name: by_name[unit.name] for unit in units}


def refused_codes(pool: Pool, admitted: Receipt) -> Counter[str]:
    """How many records of a source fetching and admission refused, by code."""
    codes: Counter[str] = Counter()
    # table by table: a source may be refused whole
    for _, table in pool.tables("refused", pool.files([admitted], "refused")):
        codes.update(
            {row["values"]: row["counts"] for row in table["code"].value_counts().to_pylist()}
        )
    return codes


def unread_told(rows: Sequence[Mapping[str, Any]]) -> str:
    """The fields that were left behind, of how many records, each with one value."""
    most = sorted(rows, key=lambda row: (-row["records"], row["field"]))
    return "; ".join(f"{row['field']} ({row['records']}, as {row['example']})" for row in most)


def source_unit(pinned: Pinned, gathered: Gathered | None, pool: Pool) -> SourceUnit:
    """What admission needs to know of a source, pinned and with what was gathered for it."""
    source = pinned.source
    return SourceUnit(
        pool=pool.store.url,
        name=source.name,
        dataset=source.dataset,
        format=source.format,
        annotations=pinned.annotations,
        media=source.media,
        licence=source.licence,
        loose=pinned.loose,
        ids_repeat=pinned.ids_repeat,
        columns=source.columns,
        unread_fields=source.unread_fields if isinstance(source, Source) else "keep",
        wanted=gathered.wanted if gathered else "",
        members=gathered.members if gathered else (),
        homes=pinned.homes,
    )


def decode(stage: str, admitted: dict[str, Receipt], job: Job) -> None:
    """Media that no receipt of the stage names yet -> clips, fingerprints, refusals."""
    pool = job.pool
    failure_limit = job.failure_limit
    # what receipts say first: reading them takes memory for a while, media take it to the end
    known = pending.Known(pool, pool.ledger.table(stage))
    wanted = pending.Wanted(pool, admitted)

    # sources share clips: a failure counts for each that names it
    def note(outcomes: dict[str, str]) -> None:
        """Count these outcomes for every source that names the clip."""
        for clip, code in outcomes.items():
            for source in wanted.users(clip):
                failure_limit.note(source, code)

    # in the order in which they are decoded, so that a stretch of failures stays one
    fresh, again = bytearray(), bytearray()
    for clips in wanted.clip_ids():
        finished = known.outcomes(clips)
        # what earlier runs decoded or refused is not decoded again, unless this one is to
        retried = {clip for clip, code in finished.items() if code in job.retry}
        note({clip: code for clip, code in finished.items() if clip not in retried})
        fresh.extend(clip not in finished for clip in clips)
        again.extend(clip in retried for clip in clips)
    units = (
        decode_media.MediaUnit(
            pool=pool.store.url,
            stage=stage,
            rows=unit,
            no_sandbox=job.no_sandbox,
            attempt=attempt,
        )
        for attempt, left in ((0, fresh), (known.attempts, again))
        for unit in wanted.units(np.frombuffer(left, np.bool_))
        if failure_limit.lets_pass({source for row in unit for source in wanted.users(row.clip_id)})
    )
    rest = sum(fresh) + sum(again)
    before = f"{len(wanted) - rest} were done before" if len(wanted) > rest else ""
    with job.bars.step(stage.replace("_", " ")) as step:
        step.begin(rest, before)
        # units whose worker died are cut into single media, and those decoded one by one
        died = []
        for result in job.workers.map(decode_media.decode, units):
            if isinstance(result, Died):
                died.append(result.unit)
            else:
                note(pending.outcomes(pool, result))
                step.advance(result.counts["media"])
        for unit in alone(died):
            decode_alone(unit, job.workers)
            step.advance()


def alone(units: Sequence[decode_media.MediaUnit]) -> list[decode_media.MediaUnit]:
    """Each medium of these units as a unit of its own, to find the one that kills its worker."""
    return [replace(unit, rows=(row,)) for unit in units for row in unit.rows]


def decode_alone(unit: decode_media.MediaUnit, workers: Workers) -> None:
    """Decode one medium; what kills its worker three times is refused for good."""
    for result in workers.map(decode_media.decode, [unit]):
        if isinstance(result, Died):
            decode_media.refuse_media(unit, "MEDIA_KILLED_WORKER", unit.rows[0].address)


def sample_tables(admitted: dict[str, Receipt]) -> list[str]:
    """The tables of samples of these admissions."""
    return [name for receipt in admitted.values() for name in receipt.outputs["index/samples"]]


def revisions(receipts: dict[str, Receipt]) -> dict[str, str]:
    """Source name -> content revision, as the receipts recorded it."""
    return {name: receipt.parameters["revision"] for name, receipt in receipts.items()}
