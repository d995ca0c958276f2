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

import pyarrow as pa

from mixtures.plan.build_manifest import Plan, build_manifest
from mixtures.recipe.types import Recipe
from mixtures.selection.leak_counts import Matched, by_benchmark
from pipeline.checks import Inputs, checked
from pipeline.failed_build import Accounts, accounted, unplanned
from pipeline.fetch import local_files
from pipeline.jobs.collect import gather
from pipeline.jobs.job import Job, each
from pipeline.jobs.progress import steps
from pipeline.jobs.run_stages import admit, check_nodes, decode, revisions, sample_tables
from pipeline.jobs.write_shards import Sizes, pack
from pipeline.lock import lock_of, write_lock
from pipeline.media.decode import check_tools
from pipeline.stages import compare_clips, count_tokens, match_leaks, pair_texts, pending
from pipeline.stages.failure_limit import FailureLimit
from shards.errors import UserError
from shards.id_arrays import hex_of
from shards.outcome import Books
from shards.pool import Pool, Receipt, writing
from shards.receipts import MANY


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What a build published; `matches` counts those with evaluation data by benchmark.

    `refusals` has the columns of REFUSED.
    """

    manifest_id: str
    books: tuple[Books, ...]
    refusals: pa.Table
    matches: tuple[Matched, ...]
    sizes: Sizes | None


def build(
    recipe_path: str,
    out: str,
    pool_url: str,
    address: str | None = None,
    *,
    no_sandbox: bool = False,
    allowed: Sequence[str] = (),
    with_shards: bool = True,
    retry: frozenset[str] = frozenset(),
    inputs: Inputs | None = None,
) -> Built:
    """Run the recipe: everything a person can have got wrong is refused before any work.

    It may name files in its own folder, the current one, and the folders that are `allowed`. Media
    and addresses that were refused with a code of `retry` are tried again. `inputs` are given by
    whoever has them `checked` already.
    """
    # a mistake costs a second, not the hours until its step is reached
    inputs = inputs or checked(recipe_path, out, pool_url, allowed, with_shards=with_shards)
    recipe, sources, exams = inputs.recipe, inputs.sources, inputs.held_out
    tools = check_tools(no_sandbox=no_sandbox)
    # not before the checks: importing Ray takes longer than they do
    from pipeline.jobs.ray_executor import connect

    pool = Pool(pool_url, recipe.profile)
    bounds = {source.name: source.max_refused for source in recipe.sources}
    with writing(pool.store), connect(address) as workers, steps() as bars:
        # what was removed and is made again here must not be read from before
        pool.ledger.forget_removed()
        bars.say(f"decoding with {tools}")
        job = Job(pool=pool, workers=workers, bars=bars, no_sandbox=no_sandbox, retry=retry)
        check_nodes(job, recipe.allowed_paths)
        # the limit watches the recipe's sources only: held-out data are not up to their author
        watched = replace(job, failure_limit=FailureLimit(bounds))
        gathered = gather(sources, "decode", watched)
        watched.failure_limit.check(recipe_path)
        admitted = admit(sources, gathered, watched, "admit")
        # from here on an error leaves books and a page: there are records to account for
        with accounted(recipe, out, partial(unplanned, pool, admitted, out)):
            watched.failure_limit.check(recipe_path)
            plan = planned(inputs, admitted, replace(job, failure_limit=FailureLimit(bounds)))
            plan.write(out)
            write_lock(out, lock_of(recipe, sources, exams, admitted, plan.manifest))
        sizes = None
        if with_shards:
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


def planned(inputs: Inputs, admitted: dict[str, Receipt], job: Job) -> Plan:
    """Everything from admitted sources to the plan; the job's limit watches the recipe's media."""
    pool = job.pool
    recipe, exams = inputs.recipe, inputs.held_out
    unwatched = replace(job, failure_limit=FailureLimit({}))
    # held-out data first: their clips take part in the comparison
    gathered = gather(exams, "held_out", unwatched)
    held_out = admit(exams, gathered, unwatched, "held out")
    benchmark = held_out_clips(pool, held_out)
    decode("decode", admitted, job)
    decode("held_out", held_out, unwatched)
    job.failure_limit.check(str(recipe.path))
    # loose receipts become one snapshot: planning lists them in one request
    pool.ledger.compact(MANY)
    compare(admitted, held_out, benchmark, job)
    find_leaks(recipe, admitted, job)
    find_text_pairs(recipe, admitted, job)
    count_lengths(inputs, admitted, job)
    with job.bars.step("plan"):
        # what this build read, by work id: a plan is not made from another run's admission
        read = {name: receipt.work_id for name, receipt in (admitted | held_out).items()}
        plan = build_manifest(recipe, pool, read)
    if plan.unmatched:
        job.bars.say(plan.unmatched)
    return plan


def compare(
    admitted: dict[str, Receipt],
    held_out: dict[str, Receipt],
    benchmark_of: dict[str, str],
    job: Job,
) -> None:
    """Fingerprints of the recipe's clips -> references, duplicate pairs and leak matches."""
    clip_names = hex_of(pending.raw_ids(job.pool, list(admitted.values())))
    unit = compare_unit(job.pool, clip_names, admitted, held_out, benchmark_of)
    with job.bars.step("compare") as step:
        if compare_clips.finished(unit):
            return
        unit = compare_clips.listed(unit, clip_names)
        parts = compare_clips.parts(unit)
        step.begin(3 * len(parts) + 1)
        # four rounds, each over the tables of those before: crowds, candidates, pairs, facts
        crowded = compare_clips.tables(list(each(job, compare_clips.crowds, parts, step)))
        asking = [replace(part, crowded=crowded) for part in parts]
        nearby = list(each(job, compare_clips.candidates, asking, step))
        judging = [replace(part, previous_tables=compare_clips.tables(nearby)) for part in parts]
        same = list(each(job, compare_clips.same, judging, step))
        final = replace(unit, previous_tables=compare_clips.tables(same), crowded=crowded)
        list(each(job, compare_clips.compare, [final], step))


def compare_unit(
    pool: Pool,
    clip_names: pa.Array,
    admitted: dict[str, Receipt],
    held_out: dict[str, Receipt],
    benchmark_of: dict[str, str],
) -> compare_clips.CompareUnit:
    """The comparison of the clips of these names, those of the admissions, ascending."""
    return compare_clips.CompareUnit(
        pool=pool.store.url,
        sources=revisions(admitted),
        held_out=revisions(held_out),
        clip_ids=(),
        benchmark=benchmark_of,
        count=len(clip_names),
        digest=compare_clips.digest_of(clip_names),
    )


def held_out_clips(pool: Pool, held_out: dict[str, Receipt]) -> dict[str, str]:
    """Clip id -> name of its held-out set; UserError for a set without media."""
    benchmark_of: dict[str, str] = {}
    for name, receipt in held_out.items():
        clips = pending.clip_ids(pool, [receipt])
        if not clips:
            raise UserError(
                f"held_out: {name}: none of its {receipt.counts['samples']} samples has media, and "
                "only media are compared; make a leak index of its questions (`python -m pipeline "
                "leaks build`) and name that one as `leaks`"
                # one clip in several held-out sets is named by the last: any of them refuses it
            )
        benchmark_of |= dict.fromkeys(clips, name)
    return benchmark_of


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


def find_text_pairs(recipe: Recipe, admitted: dict[str, Receipt], job: Job) -> None:
    """Near-duplicate conversations, if the recipe keeps one of such."""
    if recipe.near_text is None:
        return
    url = job.pool.store.url
    tables = sample_tables(admitted)
    with job.bars.step("texts") as step:
        step.begin(len(tables))
        units = [pair_texts.TextsUnit(pool=url, table=table) for table in tables]
        texts = list(each(job, pair_texts.sketch, units, step))
    with job.bars.step("text pairs") as step:
        parts = pair_texts.parted(url, texts, revisions(admitted))
        step.begin(len(parts))
        list(each(job, pair_texts.pair, parts, step))


def count_lengths(inputs: Inputs, admitted: dict[str, Receipt], job: Job) -> None:
    """Tokens per turn of every admitted sample, under the recipe's tokenizer and template."""
    text = inputs.recipe.text
    if local_files.is_remote(text.tokenizer):
        count_tokens.keep_tokenizer(job.pool, text.tokenizer, inputs.tokenizer)
    # as bytes in the unit: workers need no path to the tokenizer
    units = [
        count_tokens.TextUnit(
            pool=job.pool.store.url,
            table=table,
            tokenizer=inputs.tokenizer,
            template=text.template,
        )
        for table in sample_tables(admitted)
    ]
    with job.bars.step("lengths") as step:
        step.begin(len(units))
        list(each(job, count_tokens.count_lengths, units, step))
