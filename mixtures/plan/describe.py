"""A recipe, what is kept over a pool, and its order, as the contents of a manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from mixtures.manifest.contents import (
    Algorithm,
    Amounts,
    BatchRule,
    CanonicalRule,
    Choices,
    Condition,
    Contents,
    FrameScoresChoice,
    JoiningRule,
    KeptSet,
    LayoutRule,
    LeakChoice,
    PackingRule,
    ScheduleRule,
    SourceContents,
    StageShares,
    TextRule,
    Tool,
    Totals,
)
from mixtures.manifest.draw_order import DrawOrder
from mixtures.manifest.files import order_digest
from mixtures.manifest.npy_tables import content_id, npy_bytes
from mixtures.order.schedule import Stage
from mixtures.pool.inputs import Admitted
from mixtures.recipe.filters import Filter
from mixtures.recipe.types import Recipe, Source
from mixtures.selection.exclusions import Exclusions
from mixtures.selection.filter_decisions import FilterDecisions
from mixtures.selection.join_conversations import Joined
from mixtures.tokens.text import TextCodec
from mixtures.versions import (
    BATCH_ALGO,
    CANONICAL_ALGO,
    JOIN_ALGO,
    LAYOUT_VERSION,
    MANIFEST_VERSION,
    PACK_ALGO,
    PATCHES_PER_TOKEN,
    PERMUTATION_ALGO,
    RANK_SHARDING_ALGO,
    ROUNDS,
    SCHEDULE_ALGO,
    TEXT_VERSION,
)
from shards import tool_version
from shards.ids import sha256_hex
from shards.leak_index import LeakIndex

SUMMED = ("tokens", "patches", "frames", "clips", "millis", "nbytes")
"""The columns of ROW that are summed up over drawn samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePlan:
    """What a plan found of one source: its admission, who stays, and the rows of ROW kept."""

    source: Source
    admitted: Admitted
    decisions: FilterDecisions
    table: NDArray[np.void]
    joined: Joined | None


def describe(
    recipe: Recipe,
    codec: TextCodec,
    choices: Choices,
    plans: Sequence[SourcePlan],
    stages: Sequence[Stage],
    order: DrawOrder,
    drawn: NDArray[np.int64],
    copies: NDArray[np.void],
) -> Contents:
    """The contents of the manifest, under their id.

    `drawn` [sources, 1 + SUMMED] are the sums over what the length draws, samples first.
    """
    # sums over all sources
    total = dict(zip(("samples", *SUMMED), drawn.sum(0).tolist(), strict=True))
    join = recipe.join_by_clip
    return Contents(
        manifest_version=MANIFEST_VERSION,
        # named last: the id is the digest of all the rest
        manifest_id="",
        tool=Tool(name="slowfast-mix", version=tool_version()),
        recipe=choices,
        seed=recipe.seed,
        length=order.length,
        schedule=_schedule(stages, order),
        permutation=Algorithm(algo=PERMUTATION_ALGO),
        batch=BatchRule(
            algo=BATCH_ALGO,
            rounds=ROUNDS,
            deal=RANK_SHARDING_ALGO,
            patches_per_token=PATCHES_PER_TOKEN,
        ),
        pack=PackingRule(algo=PACK_ALGO, **asdict(recipe.pack)),
        frames=recipe.frames,
        layout=LayoutRule(version=LAYOUT_VERSION, **asdict(recipe.layout)),
        text=_text(codec),
        profile=recipe.profile,
        # per source and in all, over one and the same draw
        sources=tuple(map(_source, plans, drawn.tolist())),
        packs=int(order.packs_per_window.sum(dtype=np.int64)),
        packs_per_window=_digest(order.packs_per_window),
        totals=Totals(seconds=total["millis"] // 1000, **total),
        order_digest=order_digest(order),
        join=None if join is None else JoiningRule(algo=JOIN_ALGO, **asdict(join)),
        canonical=_canonical(copies) if recipe.canonical_clips else None,
    ).named()


def _digest(table: NDArray[np.void] | NDArray[np.integer]) -> str:
    """What names a table beside the manifest."""
    return sha256_hex(npy_bytes(table))


def _schedule(stages: Sequence[Stage], order: DrawOrder) -> ScheduleRule:
    return ScheduleRule(
        algo=SCHEDULE_ALGO,
        table=_digest(order.source_at),
        stages=tuple(StageShares(start=start, shares=shares) for start, shares in stages),
    )


def _text(codec: TextCodec) -> TextRule:
    return TextRule(
        version=TEXT_VERSION, tokenizer_sha256=codec.tokenizer_sha256, template=codec.template
    )


def _canonical(copies: NDArray[np.void]) -> CanonicalRule:
    return CanonicalRule(algo=CANONICAL_ALGO, clips=len(copies), table=_digest(copies))


def choices_of(
    recipe: Recipe,
    index: LeakIndex | None,
    exclusions: Exclusions | None,
    scores: dict[str, str],
    frame_scores: FrameScoresChoice | None,
) -> Choices:
    """What a manifest remembers of a recipe, and of the files that it names.

    `scores` maps the columns of scores that its filters name to the digests of their scorers;
    `frame_scores` is the column by which frames are selected.
    """
    sources = recipe.sources
    leaks = None
    if recipe.leaks is not None and index is not None:
        # the id of the index, not its folder: where it lies decides nothing
        leaks = LeakChoice(index=index.index_id, text=recipe.leaks.text)
    return Choices(
        name=recipe.name,
        ratio=recipe.ratio,
        unit=recipe.unit,
        length=recipe.length,
        max_repeats={
            source.name: source.max_repeats for source in sources if source.max_repeats is not None
        },
        # in the order of the recipe, which is also that of `sources`
        allow_short=tuple(source.name for source in sources if source.allow_short),
        # filters as written, so that `diff` can tell which one changed
        filters={
            s.name: {f.column: _condition(f) for f in s.filters} for s in sources if s.filters
        },
        held_out=tuple(held_out.name for held_out in recipe.held_out),
        allow_licences=recipe.allow_licences,
        max_shard_bytes=recipe.max_shard_bytes,
        duplicates=recipe.duplicates,
        near_text=None if recipe.near_text is None else str(recipe.near_text),
        canonical_clips=recipe.canonical_clips,
        max_samples_per_clip=recipe.max_samples_per_clip,
        leaks=leaks,
        exclude=None if exclusions is None else exclusions.digest(),
        scores=scores or None,
        frame_scores=frame_scores,
    )


def _condition(rule: Filter) -> Condition:
    return Condition(min=rule.least, max=rule.most, one_of=rule.allowed)


def _source(plan: SourcePlan, drawn: list[int]) -> SourceContents:
    source = plan.source
    admitted = plan.admitted
    table = plan.table
    # validated: every source gives exactly one
    (ratio,) = source.ratios
    return SourceContents(
        name=source.name,
        dataset=source.dataset,
        licence=source.licence,
        revision=admitted.revision,
        asked={ratio: _asked(source)},
        kept=_kept(plan),
        content_id=content_id(table),
        # the accounts of one source: admitted = kept + not chosen, before any joining
        admitted=admitted.samples - admitted.samples_refused,
        not_chosen=plan.decisions.counts(),
        drawn=Amounts(**dict(zip(("samples", *SUMMED), drawn, strict=True))),
    )


def _asked(source: Source) -> str:
    """What a source asks for: its weight or repeats as a fraction, or its budget."""
    # `repeat: 1/2` and `0.5` are one fraction, and so one id
    given = source.weight or source.repeat
    return str(source.budget) if given is None else f"{given.numerator}/{given.denominator}"


def _kept(plan: SourcePlan) -> KeptSet:
    joined = plan.joined
    table = plan.table
    return KeptSet(
        samples=len(table),
        # the column is 32 bits wide, its sum is not
        tokens=int(table["tokens"].sum(dtype=np.int64)),
        table=_digest(table),
        conversations=None if joined is None else int(plan.decisions.stays.sum()),
        members=None if joined is None else _digest(joined.members),
        joined_by=None if joined is None else _digest(joined.joined_by),
    )
