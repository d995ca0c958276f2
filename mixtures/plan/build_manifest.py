"""A recipe and a pool become a manifest: decisions, quotas, order, packs, books.

Reads the pool, and puts into it only the columns it read (`mixtures.pool.columns`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mixtures.manifest.blocks import pack_numbers
from mixtures.manifest.contents import Choices
from mixtures.manifest.draw_order import DrawOrder
from mixtures.manifest.draws import Draws
from mixtures.manifest.epochs import Epochs
from mixtures.manifest.files import write_manifest
from mixtures.manifest.manifest import Manifest
from mixtures.manifest.npy_tables import NONE_SHOWN
from mixtures.plan.describe import SUMMED, SourcePlan, choices_of, describe
from mixtures.plan.quotas import resolve
from mixtures.pool.columns import Clips, Samples, passing, read_clips, read_samples, rows_at
from mixtures.pool.inputs import (
    Admitted,
    admitted_sources,
    comparison,
    leak_index,
    leaked_texts,
    named,
    read_tokenizer,
    refused_before,
    text_pairs,
    unread,
)
from mixtures.pool.question_stamps import stamps_by_question
from mixtures.pool.sample_costs import SampleCosts
from mixtures.pool.score_columns import (
    SelectedBy,
    frame_scores_of,
    is_score,
    passing_scores,
    score_digests,
)
from mixtures.recipe.filters import Filter
from mixtures.recipe.types import Recipe
from mixtures.recipe.validate import check_view
from mixtures.selection.canonical_clips import show_canonical
from mixtures.selection.clip_cap import refuse_beyond
from mixtures.selection.exclusions import Exclusions, read_exclusions, refuse_excluded
from mixtures.selection.filter_decisions import (
    FilterDecisions,
    refuse_broken,
    refuse_duplicates,
    refuse_filtered,
    refuse_leaked_texts,
    refuse_leaks,
    refuse_licences,
    refuse_long,
    refuse_near_duplicates,
)
from mixtures.selection.join_conversations import Joined, join_by_clip
from mixtures.selection.tables import match_table, refusal_table
from mixtures.sums import group_sums
from mixtures.tokens.text import TextCodec
from shards.errors import UserError
from shards.id_arrays import Ids
from shards.index import REFUSED
from shards.leak_index import LeakIndex
from shards.outcome import Books, top_codes, write_books
from shards.pool import Pool
from shards.store import Store

_AT_ONCE = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a recipe over a pool comes to.

    `refusals` has the columns of REFUSED, `matches` (with evaluation data) those of MATCHES;
    `unmatched` says which take-downs met nothing.
    """

    manifest: Manifest
    refusals: pa.Table
    matches: pa.Table
    books: list[Books]
    unmatched: str = ""

    def write(self, folder: str) -> None:
        """Every refusal, match and the books, then the plan's tables, `manifest.json` last."""
        store = Store(folder)
        tables = {"refused.parquet": self.refusals, "leaks.parquet": self.matches}
        write_books(store, self.books, tables)
        write_manifest(self.manifest, folder)


def build_manifest(recipe: Recipe, pool: Pool, admitted: Mapping[str, str] | None = None) -> Plan:
    """Resolve a recipe over a pool; `admitted` is `pins` of `admitted_sources`.

    UserError where the pool lacks what the recipe needs, where nothing of a source is left, or
    where the books do not balance.
    """
    _check_profile(recipe, pool)
    tokenizer = read_tokenizer(recipe, pool)
    codec = TextCodec(tokenizer, recipe.text.template, recipe.text.tokenizer)
    sources, held_out = admitted_sources(recipe, pool, admitted or {})
    clips = read_clips(pool)
    lengths = pool.receipts("lengths")
    # 1. read: clips and samples of the pool as columns
    samples = [read_samples(pool, s.name, s.receipts, lengths, codec, clips) for s in sources]
    index = leak_index(recipe)
    scored = frame_scores_of(pool, recipe)
    exclusions = read_exclusions(Path(recipe.exclude)) if recipe.exclude else None
    # 2. decide: who stays, at what cost
    cost = partial(_cost, SampleCosts(recipe, codec, clips, pool), recipe, codec, clips, scored)
    chosen = _choose(recipe, pool, cost, sources, held_out, clips, samples, index, exclusions)
    # 3. join: conversations over the same clips as one sample
    joined = _join(recipe, chosen.decisions, chosen.rows, clips.ids)
    unjoined: list[None] = [None] * len(sources)
    plans = [
        SourcePlan(source=source, admitted=admission, decisions=own, table=table, joined=of_join)
        for source, admission, own, table, of_join in zip(
            recipe.sources,
            sources,
            chosen.decisions,
            [each.rows for each in joined] or chosen.rows,
            joined or unjoined,
            strict=True,
        )
    ]
    # 4. order: schedule, packs, sums, and the manifest that says so
    tables = [plan.table for plan in plans]
    selected_by = None if scored is None else scored.choice(tables, str(recipe.path))
    choices = choices_of(recipe, index, exclusions, score_digests(pool, recipe), selected_by)
    manifest = _ordered(recipe, codec, choices, plans, tokenizer, chosen.copies)
    refused = refused_before(pool, sources)
    # 5. account: nothing is published unless the books balance
    visits = manifest.schedule.visits(manifest.length).tolist()
    books = [_books(pool, *each) for each in zip(plans, refused, visits, strict=True)]
    refused += [_refusals(pool, each.admitted, each.decisions) for each in plans]
    return Plan(
        manifest=manifest,
        refusals=pa.concat_tables(refused),
        matches=pa.concat_tables(chosen.matches),
        books=books,
        unmatched=chosen.unmatched,
    )


def _check_profile(recipe: Recipe, pool: Pool) -> None:
    check_view(recipe.frames, pool.profile, str(recipe.path))
    if recipe.profile != pool.profile:
        raise UserError(
            f"{recipe.path}: profile: the pool {pool.store.url} keeps {pool.profile.to_json()}, "
            f"the recipe wants {recipe.profile.to_json()}; give another --pool, or mend the recipe"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chosen:
    """Per source: who stays and why not, the rows of those that stay, what matches evaluation;
    and which clips are shown in place of others, and which take-downs met nothing."""

    decisions: list[FilterDecisions]
    rows: list[NDArray[np.void]]
    matches: list[pa.Table]
    copies: NDArray[np.void]
    unmatched: str


def _choose(
    recipe: Recipe,
    pool: Pool,
    cost: Callable[[Samples], NDArray[np.void]],
    sources: Sequence[Admitted],
    held_out: Mapping[str, str],
    clips: Clips,
    samples: Sequence[Samples],
    index: LeakIndex | None,
    exclusions: Exclusions | None,
) -> _Chosen:
    used = np.zeros(len(clips.ids), bool)
    for own_samples in samples:
        # comparisons matter among the clips of these sources only
        used[own_samples.clips] = True
    compared = comparison(recipe, pool, sources, held_out, clips, used, index)
    leaked = [leaked_texts(recipe, pool, source, index) for source in sources]
    decisions = [FilterDecisions(own_samples) for own_samples in samples]
    unmatched = _refuse_first(pool, sources, clips, decisions, exclusions)
    # the order of these decisions is the order of the codes: the first one that applies is told
    for source, source_decisions, admission, texts in zip(
        recipe.sources, decisions, sources, leaked, strict=True
    ):
        refuse_licences(source_decisions, recipe.allow_licences)
        for rule in source.filters:
            passes = _passing(recipe, pool, admission, source_decisions.samples, clips, rule)
            refuse_filtered(source_decisions, rule, passes)
        refuse_leaks(source_decisions, clips, compared)
        if recipe.leaks and recipe.leaks.text == "refuse":
            refuse_leaked_texts(source_decisions, texts)
    # which clips are shown decides what samples cost, so it comes before any counting
    copies = NONE_SHOWN
    if recipe.canonical_clips:
        row_readers = [partial(rows_at, pool, admission.receipts) for admission in sources]
        copies = show_canonical(decisions, clips, compared.copies, row_readers)
    # costs over the clips that are shown; what outgrows a pack over them cannot be drawn
    rows = [cost(source_decisions.samples) for source_decisions in decisions]
    for source_decisions, source_rows in zip(decisions, rows, strict=True):
        refuse_long(source_decisions, source_rows, recipe.pack)
    # what looks at other samples comes last: it must not keep one for another that goes
    if recipe.duplicates == "refuse":
        refuse_duplicates(decisions, compared)
    refuse_near_duplicates(decisions, compared, text_pairs(recipe, pool, sources))
    if recipe.max_samples_per_clip is not None:
        refuse_beyond(decisions, recipe.max_samples_per_clip, clips)
    left = [table[judged.stays] for table, judged in zip(rows, decisions, strict=True)]
    _check_left(recipe, pool, sources, decisions, left)
    return _Chosen(
        decisions=decisions,
        rows=left,
        matches=[
            match_table(judged, compared, texts)
            for judged, texts in zip(decisions, leaked, strict=True)
        ],
        copies=copies,
        unmatched=unmatched,
    )


def _refuse_first(
    pool: Pool,
    sources: Sequence[Admitted],
    clips: Clips,
    decisions: Sequence[FilterDecisions],
    exclusions: Exclusions | None,
) -> str:
    """Refuse broken media and take-downs, which no setting of a recipe may hide.

    Returns which of the take-downs met nothing, for people.
    """
    met = []
    for admission, source_decisions in zip(sources, decisions, strict=True):
        refuse_broken(source_decisions, clips)
        if exclusions is not None:
            met.append(
                refuse_excluded(source_decisions, pool, admission.receipts, clips, exclusions)
            )
    return "" if exclusions is None else exclusions.unmatched(met)


def _cost(
    costs: SampleCosts,
    recipe: Recipe,
    codec: TextCodec,
    clips: Clips,
    scored: SelectedBy | None,
    samples: Samples,
) -> NDArray[np.void]:
    """The rows of ROW of a source's samples."""
    if scored is None:
        return costs.rows(samples)
    return costs.rows(
        samples, stamps_by_question(samples, clips, scored.frame_scores, recipe, codec)
    )


def _passing(
    recipe: Recipe, pool: Pool, admission: Admitted, samples: Samples, clips: Clips, rule: Filter
) -> NDArray[np.bool_]:
    """Which samples pass a filter, over the index or over scores."""
    if is_score(rule):
        return passing_scores(pool, samples, clips, rule, str(recipe.path))
    return passing(pool, admission.receipts, samples, clips, rule)


class NothingLeft(UserError):
    """No sample of some sources is left; `books` and `refusals` (REFUSED) are those of all."""

    def __init__(self, told: Iterable[str], books: Sequence[Books], refusals: pa.Table) -> None:
        super().__init__(*told)
        self.books, self.refusals = books, refusals


def _check_left(
    recipe: Recipe,
    pool: Pool,
    sources: Sequence[Admitted],
    decisions: Sequence[FilterDecisions],
    left: Sequence[NDArray[np.void]],
) -> None:
    """Raise NothingLeft, which names all sources of which nothing is left, and why."""
    if all(map(len, left)):
        return
    plans = [
        SourcePlan(source=source, admitted=admission, decisions=own, table=table, joined=None)
        for source, admission, own, table in zip(
            recipe.sources, sources, decisions, left, strict=True
        )
    ]
    refused = refused_before(pool, sources)
    # books of all sources, also of those that have samples left: nothing is published here
    books = [_books(pool, *each, 0) for each in zip(plans, refused, strict=True)]
    refused += [_refusals(pool, each.admitted, each.decisions) for each in plans]
    refusals = pa.concat_tables(refused)
    messages = (
        f"{recipe.path}: nothing of the source {plan.source.name!r} is left "
        f"({', '.join(map(str, top_codes(refusals, plan.source.name))) or 'it has no record'}); "
        "remove it, or mend what refuses it"
        for plan in plans
        if not len(plan.table)
    )
    raise NothingLeft(messages, books, refusals)


def _join(
    recipe: Recipe,
    decisions: Sequence[FilterDecisions],
    tables: list[NDArray[np.void]],
    clip_ids: Ids,
) -> list[Joined]:
    """Per source its samples, joined; empty where the recipe does not say so."""
    rule = recipe.join_by_clip
    return [
        join_by_clip(own.samples, np.flatnonzero(own.stays), rows, rule, clip_ids)
        for own, rows in zip(decisions, tables, strict=True)
        if rule is not None
    ]


def _ordered(
    recipe: Recipe,
    codec: TextCodec,
    choices: Choices,
    plans: Sequence[SourcePlan],
    tokenizer: bytes,
    copies: NDArray[np.void],
) -> Manifest:
    """What is kept of all sources in its order: stages, packs and sums first, then the manifest."""
    names = [plan.source.name for plan in plans]
    tables = [plan.table for plan in plans]
    joined = [plan.joined for plan in plans if plan.joined is not None]
    joined_by = [each.joined_by for each in joined]
    ids = joined_by or [table["key"] for table in tables]
    # budgets and lengths in tokens are counted along the very order that is drawn later
    stages, source_at = resolve(recipe, tables, Epochs(recipe.seed, names, ids))
    uncounted = DrawOrder(
        seed=recipe.seed,
        names=names,
        tables=tables,
        source_at=source_at,
        loop=stages[-1][0],
        is_finite=recipe.ratio != "weight",
        pack=recipe.pack,
        joined_by=joined_by,
    )
    packs_per_window, drawn = _walk(uncounted)
    order = replace(uncounted, packs_per_window=packs_per_window)
    return Manifest.of(
        describe(recipe, codec, choices, plans, stages, order, drawn, copies),
        tables=tables,
        source_at=source_at,
        packs_per_window=packs_per_window,
        joined_by=joined_by,
        members=[each.members for each in joined],
        copies=copies,
        tokenizer=tokenizer,
    )


def _walk(order: DrawOrder) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Packs of each window inside the length (an endless order: whole windows), and what is drawn.

    The latter are sums, int64 [sources, 1 + SUMMED], samples first.
    """
    draws = Draws(order)
    rule = order.pack
    # whole windows at a time, so that none is cut
    step = max(_AT_ONCE // rule.window, 1) * rule.window
    packs: list[int] = []
    drawn = np.zeros((len(order.tables), 1 + len(SUMMED)), np.int64)
    for start in range(0, order.length, step):
        draw = draws.draw(start, min(start + step, order.length))
        records = draws.records(draw)
        # an endless order goes on in its last window, which is therefore not packed here
        whole = len(records) if order.is_finite else len(records) // rule.window * rule.window
        packs += [int(numbers.max()) + 1 for numbers in pack_numbers(records[:whole], rule)]
        # one pass over the length gives the packs and every sum that the manifest tells
        drawn[:, 0] += np.bincount(draw.source, minlength=len(drawn))
        for column, name in enumerate(SUMMED, 1):
            drawn[:, column] += group_sums(records[name], draw.source, len(drawn))
    return np.array(packs, np.uint32), drawn


def _books(pool: Pool, plan: SourcePlan, refused: pa.Table, visits: int) -> Books:
    """The accounts of a source, checked against what was written down; UserError if they differ.

    `refused` is what was refused before planning, `visits` how often the length draws the source.
    """
    admitted = plan.admitted
    decisions = plan.decisions
    samples = len(plan.table)
    chosen = int(decisions.stays.sum())
    books = Books(
        source=admitted.name,
        records=admitted.records,
        records_refused=admitted.records_refused,
        samples=admitted.samples,
        samples_refused=admitted.samples_refused + decisions.broken,
        not_chosen=len(decisions.stays) - decisions.broken - chosen,
        chosen=chosen,
        joined=chosen - samples,
        drawn=min(visits, samples),
        repeats=max(visits - samples, 0),
        unread=unread(pool, admitted),
        names=named(pool, admitted),
    )
    # Admission writes refused records and refused samples into one table: its sum is checked.
    books.check(
        len(refused) - admitted.samples_refused,
        admitted.samples_refused + decisions.broken,
        sum(decisions.counts().values()),
    )
    return books


def _refusals(pool: Pool, admitted: Admitted, decisions: FilterDecisions) -> pa.Table:
    if not decisions.refusals:
        return REFUSED.empty_table()
    indices = decisions.indices
    origins = rows_at(
        pool, admitted.receipts, decisions.samples, indices, "record dataset revision"
    )
    return refusal_table(decisions, origins)
