"""Ratios and what is kept become stages and a table of sources; what cannot be had is an error.

Integers and fractions only. `unit: tokens` divides each weight by the exact mean of the source's
tokens, so that positions keep the ratio of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil
from operator import mul

import numpy as np
from numpy.typing import NDArray

from mixtures.manifest.draws import places_by
from mixtures.manifest.epochs import Epochs
from mixtures.order.schedule import (
    MAX_LENGTH,
    Schedule,
    Sources,
    Stage,
    shares_of,
    table_of,
)
from mixtures.recipe.types import Recipe, Source
from shards.errors import UserError

Tables = Sequence[NDArray[np.void]]
_AT_ONCE = 1 << 18


def resolve(recipe: Recipe, tables: Tables, epochs: Epochs) -> tuple[list[Stage], Sources]:
    """The stages of a recipe, and the source at every position of its length.

    `tables` are the kept samples of each source, rows of ROW, and `epochs` their orders.
    """
    if recipe.ratio != "weight":
        return _finite(recipe, tables, epochs)
    stages = [
        (start, shares_of(_of_samples(recipe, weights, tables)))
        for start, weights in recipe.weights()
    ]
    # the table for all that is asked, then cut where a source may run short
    source_at = _asked(recipe, stages, tables, epochs)
    length = _bounded(recipe, Schedule(source_at, len(tables)), tables)
    for start, _ in stages:
        if start >= length:
            raise UserError(
                f"{recipe.path}: stages: start: {start} is not before the end of the mixture at "
                f"{length}; lower it, raise `length`, or remove the stage"
            )
    return stages, source_at[:length]


def _finite(recipe: Recipe, tables: Tables, epochs: Epochs) -> tuple[list[Stage], Sources]:
    # a finite order has its quotas for shares, so that it meets them exactly
    quotas = tuple(_quota(recipe, i, tables[i], epochs) for i in range(len(tables)))
    _check_length(recipe, sum(quotas), f"the {recipe.ratio}s make", "lower them, or use weights")
    return [(0, quotas)], table_of([(0, quotas)], sum(quotas))


def _check_length(recipe: Recipe, positions: int, what: str, remedy: str) -> None:
    if positions > MAX_LENGTH:
        raise UserError(
            f"{recipe.path}: {what} {positions} positions, more than {MAX_LENGTH}; {remedy}"
        )


def _of_samples(recipe: Recipe, weights: list[Fraction], tables: Tables) -> list[Fraction]:
    """Weights of samples from weights in the recipe's unit."""
    if recipe.unit == "samples":
        return weights
    return [weight / mean_tokens(table) for weight, table in zip(weights, tables, strict=True)]


def mean_tokens(table: NDArray[np.void]) -> Fraction:
    """Tokens per kept sample, exactly."""
    return Fraction(int(table["tokens"].sum(dtype=np.int64)), len(table))


def _quota(recipe: Recipe, i: int, table: NDArray[np.void], epochs: Epochs) -> int:
    """Samples of one source in a finite order."""
    source = recipe.sources[i]
    if source.repeat is not None:
        quota = int(len(table) * source.repeat)
        request = f"repeat {source.repeat}"
    else:
        request = f"budget {source.budget} {recipe.unit}"
        quota = source.budget or 0
        if recipe.unit == "tokens":
            quota = _samples_within(epochs, i, table, quota)
    if quota == 0:
        raise UserError(f"{recipe.path}: {source.name}: {request}: not one sample; raise it")
    most = _most(source, table)
    if most is None or quota <= most:
        return quota
    if source.allow_short:
        return most
    raise _too_often(recipe, source, len(table), quota)


def _samples_within(epochs: Epochs, source: int, table: NDArray[np.void], budget: int) -> int:
    """How many samples, in the order that the source is drawn in, stay within `budget` tokens."""
    rows = len(table)
    # whole epochs first, then the longest prefix of the next one, in its own order
    whole, left = divmod(budget, int(table["tokens"].sum(dtype=np.int64)))
    row, _ = epochs.drawn(source, np.arange(whole * rows, (whole + 1) * rows))
    tokens = np.cumsum(table["tokens"][row], dtype=np.int64)
    return whole * rows + int(np.searchsorted(tokens, left, side="right"))


def _most(source: Source, table: NDArray[np.void]) -> int | None:
    """The visits that a source allows; a budget that may fall short shows no sample twice."""
    if source.max_repeats is not None:
        return source.max_repeats * len(table)
    return len(table) if source.allow_short else None


def _asked(recipe: Recipe, stages: list[Stage], tables: Tables, epochs: Epochs) -> Sources:
    """The source at every position of the recipe's `length`, whatever may run short."""
    if recipe.length is None:
        kept = [len(table) for table in tables]
        # no source repeats before the length ends: cut at the earliest second epoch of any
        source_at = _table(recipe, stages, enough(stages, kept))
        schedule = Schedule(source_at, len(kept))
        ends = (schedule.position_of(i, count) for i, count in enumerate(kept))
        return source_at[: min(end for end in ends if end is not None)]
    if recipe.unit == "samples":
        return _table(recipe, stages, recipe.length)
    # about how many positions hold so many tokens, and a bit more; grown until they do
    means = [mean_tokens(table) for table in tables]
    sizes = [Fraction(sum(map(mul, shares, means)), sum(shares)) for _, shares in stages]
    positions = ceil(recipe.length / max(sizes) * Fraction(51, 50))
    while True:
        source_at = _table(recipe, stages, positions)
        found = _positions_holding(recipe.length, source_at, tables, epochs)
        if found is not None:
            return source_at[:found]
        positions += positions // 4 + 1024


def _table(recipe: Recipe, stages: list[Stage], length: int) -> Sources:
    _check_length(recipe, length, "the mixture has", "lower `length`, or give one")
    return table_of(stages, length)


def enough(stages: Sequence[Stage], kept: Sequence[int]) -> int:
    """Positions that certainly show some source's sample again, of so many kept of each."""
    found = (_surely(stages, i, count + 1) for i, count in enumerate(kept))
    return min(position for position in found if position is not None)


def _surely(stages: Sequence[Stage], source: int, visits: int) -> int | None:
    """Positions that surely hold so many visits of a source, none of its stages a whole one off."""
    # each stage may be one visit short of its exact share
    left = Fraction(visits + len(stages))
    ends = [start for start, _ in stages[1:]]
    for (start, shares), end in zip(stages, [*ends, None], strict=True):
        share = Fraction(shares[source], sum(shares))
        if share and (end is None or left <= share * (end - start)):
            return start + ceil(left / share)
        left -= share * (end - start) if end is not None else 0
    return None


def _positions_holding(
    tokens: int, source_at: Sources, tables: Tables, epochs: Epochs
) -> int | None:
    """The fewest positions that hold so many tokens; None if all of the table hold fewer."""
    turns = [0] * len(tables)
    total = 0
    for start in range(0, len(source_at), _AT_ONCE):
        part = source_at[start : start + _AT_ONCE].astype(np.int64)
        sizes = np.empty(len(part), np.int64)
        # tokens of each position, source by source, then their running sum
        for i, at in enumerate(places_by(part, len(tables))):
            row, _ = epochs.drawn(i, np.arange(turns[i], turns[i] + len(at)))
            sizes[at] = tables[i]["tokens"][row]
            turns[i] += len(at)
        sums = total + np.cumsum(sizes)
        if sums[-1] >= tokens:
            return start + int(np.searchsorted(sums, tokens)) + 1
        total = int(sums[-1])
    return None


def _bounded(recipe: Recipe, schedule: Schedule, tables: Tables) -> int:
    """The length of the table, or less where a source may run short; else UserError."""
    length = len(schedule.source)
    ends = []
    for i, (source, table) in enumerate(zip(recipe.sources, tables, strict=True)):
        most = _most(source, table)
        end = None if most is None else schedule.position_of(i, most)
        # where the source has had all the visits that it allows
        ends.append(length if end is None else end)
    pairs = list(zip(recipe.sources, ends, strict=True))
    # sources that may run short end the mixture; any other one that would is a mistake
    length = min([length, *(end for source, end in pairs if source.allow_short)])
    for i, (source, end) in enumerate(pairs):
        if end < length:
            asked = int(schedule.visits(length)[i])
            raise _too_often(recipe, source, len(tables[i]), asked)
    return length


def _too_often(recipe: Recipe, source: Source, kept: int, asked: int) -> UserError:
    return UserError(
        f"{recipe.path}: max_repeats: {source.name!r} has {kept} samples and would be drawn "
        f"{asked} times, more than {source.max_repeats} each; lower its ratio or `length`, raise "
        "max_repeats, or take what is there with `allow_short: true`"
    )
