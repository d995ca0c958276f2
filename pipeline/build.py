"""The main path: a recipe becomes a pool, a manifest and mixed WebDataset shards.

    recipe ─► pin ─► gather ─► admit ─► decode ─► compare ─► lengths ─► plan ─► pack ─► report

Every step is a set of pure functions run over Ray (pipeline.stages); each leaves a
receipt in the pool, so a build that is killed at any moment and run again repeats nothing that was
finished and ends with the same `manifest_id`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pyarrow as pa

from mixtures.plan.build_manifest import Plan, build_manifest
from mixtures.recipe.allowed_paths import check_here
from mixtures.recipe.load import load_recipe
from mixtures.recipe.types import Recipe
from mixtures.selection.leak_counts import Matched, by_benchmark
from pipeline.failed_build import Accounts, accounted, unplanned
from pipeline.fetch.local_files import resolve
from pipeline.jobs.collect import gather
from pipeline.jobs.job import Job, each
from pipeline.jobs.progress import steps
from pipeline.jobs.ray_executor import connect
from pipeline.jobs.run_stages import admit, check_nodes, decode, revisions, sample_tables
from pipeline.jobs.write_shards import Sizes, pack
from pipeline.media.decode import check_tools
from pipeline.sources.pin import Pinned, pin
from pipeline.stages import compare_clips, count_tokens, match_leaks, pair_texts, pending
from pipeline.stages.failure_limit import Fuse
from shards.errors import UserError
from shards.outcome import Books
from shards.pool import Pool, Receipt
from shards.receipts import MANY
from shards.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What a build published; `matches` counts those with evaluation data by benchmark.

    `refusals` has the columns of REFUSED.
    """

    manifest_id: str
    books: tuple[Books, ...]
    refusals: pa.Table
    matches: tuple[Matched, ...]
    sizes: Sizes


def build(
    recipe_path: str,
    out: str,
    pool_url: str,
    address: str | None = None,
    *,
    uncaged: bool = False,
    allowed: Sequence[str] = (),
) -> Built:
    """Run the recipe: everything a person can have got wrong is refused before any work.

    It may name files in its own folder, the current one, and the folders that are `allowed`.
    """
    recipe = load_recipe(Path(recipe_path), allowed)
    check_here(recipe.allowed_paths)
    check_tools(uncaged=uncaged)
    if recipe.leaks:
        match_leaks.index_of(recipe.leaks.index)
    sources, exams = pin_sources(recipe, recipe_path)
    Store(out).check_writable()
    Store(pool_url).check_writable()
    pool = Pool(pool_url, recipe.profile)
    bounds = {source.name: source.max_refused for source in recipe.sources}
    with connect(address) as workers, steps() as bars:
        job = Job(pool=pool, workers=workers, bars=bars, uncaged=uncaged)
        check_nodes(job, recipe.allowed_paths)
        watched = replace(job, fuse=Fuse(bounds))
        gathered = gather(sources, "decode", watched)
        watched.fuse.check(recipe_path)
        admitted = admit(sources, gathered, watched, "admit")
        with accounted(recipe, out, partial(unplanned, pool, admitted, out)):
            watched.fuse.check(recipe_path)
            plan = planned(recipe, exams, admitted, replace(job, fuse=Fuse(bounds)))
            plan.write(out)
        with accounted(recipe, out, lambda _: accounts_of(plan)):
            sizes = pack(f"{out}/manifest.json", f"{out}/shards", job)
    return Built(
        manifest_id=plan.manifest.manifest_id,
        books=tuple(plan.books),
        refusals=plan.refusals,
        matches=tuple(by_benchmark(plan.matches.to_pylist())),
        sizes=sizes,
    )


def accounts_of(plan: Plan) -> Accounts:
    """The accounts of a plan."""
    return Accounts(books=plan.books, refusals=plan.refusals, matches=plan.matches)


def planned(
    recipe: Recipe, exams: Sequence[Pinned], admitted: dict[str, Receipt], job: Job
) -> Plan:
    """Everything from admitted sources to the plan; the job's fuse watches the recipe's media."""
    pool, unwatched = job.pool, replace(job, fuse=Fuse({}))
    gathered = gather(exams, "held_out", unwatched)
    held_out = admit(exams, gathered, unwatched, "held out")
    benchmark = held_out_clips(pool, held_out)
    decode("decode", admitted, job)
    decode("held_out", held_out, unwatched)
    job.fuse.check(str(recipe.path))
    pool.ledger.compact(MANY)
    compare(admitted, held_out, benchmark, job)
    find_leaks(recipe, admitted, job)
    find_twins(recipe, admitted, job)
    count_lengths(recipe, admitted, job)
    with job.bars.step("plan"):
        read = {name: receipt.work_id for name, receipt in (admitted | held_out).items()}
        return build_manifest(recipe, pool, read)


def pin_sources(recipe: Recipe, where: str) -> tuple[list[Pinned], list[Pinned]]:
    """(sources, held-out data) with every address pinned: what is not there is said before work."""
    resolve(recipe.text.tokenizer, f"{where}: text: tokenizer")
    pinned = partial(pin, where=where, allowed=recipe.allowed_paths)
    return [pinned(one) for one in recipe.sources], [pinned(one) for one in recipe.held_out]


def compare(
    admitted: dict[str, Receipt],
    held_out: dict[str, Receipt],
    benchmark: dict[str, str],
    job: Job,
) -> None:
    """Fingerprints of the recipe's clips -> duplicate pairs and leak matches."""
    clips = tuple(pending.clip_ids(job.pool, list(admitted.values())))
    unit = compare_clips.CompareUnit(
        pool=job.pool.store.url,
        sources=revisions(admitted),
        held_out=revisions(held_out),
        clip_ids=clips,
        benchmark=benchmark,
    )
    with job.bars.step("compare") as step:
        if compare_clips.finished(unit):
            return
        parts = compare_clips.parts(unit)
        step.begin(2 * len(parts) + 1)
        asked = list(each(job, compare_clips.candidates, parts, step))
        told = [replace(part, found=compare_clips.tables(asked)) for part in parts]
        same = list(each(job, compare_clips.same, told, step))
        facts = replace(unit, found=compare_clips.tables(same))
        list(each(job, compare_clips.compare, [facts], step))


def held_out_clips(pool: Pool, held_out: dict[str, Receipt]) -> dict[str, str]:
    """Clip id -> name of its held-out set; UserError for a set without media."""
    found: dict[str, str] = {}
    for name, receipt in held_out.items():
        clips = pending.clip_ids(pool, [receipt])
        if not clips:
            raise UserError(
                f"held_out: {name}: none of its {receipt.counts['samples']} samples has media, and "
                "only media are compared; make a leak index of its questions (`python -m pipeline "
                "leaks build`) and name that one as `leaks`"
            )
        found |= dict.fromkeys(clips, name)
    return found


def find_leaks(recipe: Recipe, admitted: dict[str, Receipt], job: Job) -> None:
    """Matches of the recipe's clips and questions with its leak index, if it names one."""
    if recipe.leaks is None:
        return
    clips = pending.clip_ids(job.pool, list(admitted.values()))
    index = match_leaks.index_of(recipe.leaks.index)
    with job.bars.step("leaks") as step:
        units = match_leaks.units(job.pool, index, clips, sample_tables(admitted))
        step.begin(len(units))
        list(each(job, match_leaks.match, units, step))


def find_twins(recipe: Recipe, admitted: dict[str, Receipt], job: Job) -> None:
    """Pairs of nearly equal conversations, if the recipe keeps one of such."""
    if recipe.near_text is None:
        return
    url, tables = job.pool.store.url, sample_tables(admitted)
    with job.bars.step("texts") as step:
        step.begin(len(tables))
        units = [pair_texts.TextsUnit(pool=url, table=table) for table in tables]
        texts = list(each(job, pair_texts.sketch, units, step))
    with job.bars.step("twins") as step:
        parts = pair_texts.parted(url, texts, revisions(admitted))
        step.begin(len(parts))
        list(each(job, pair_texts.twins, parts, step))


def count_lengths(recipe: Recipe, admitted: dict[str, Receipt], job: Job) -> None:
    """Tokens per turn of every admitted sample, under the recipe's tokenizer and template."""
    tokenizer = resolve(recipe.text.tokenizer, "text.tokenizer").read_bytes()
    units = [
        count_tokens.TextUnit(
            pool=job.pool.store.url,
            table=table,
            tokenizer=tokenizer,
            template=recipe.text.template,
        )
        for table in sample_tables(admitted)
    ]
    with job.bars.step("lengths") as step:
        step.begin(len(units))
        list(each(job, count_tokens.count_lengths, units, step))
