"""Ratios and what is kept become a schedule and a length; what cannot be had is an error.

Integers and fractions only. `unit: tokens` divides each weight by the exact mean of the source's
tokens, so that positions keep the ratio of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from mixtures.manifest.npy_tables import content_id
from mixtures.order.permutation import drawn_rows
from mixtures.order.schedule import MAX_LENGTH, Schedule, period_of, quotas_of
from mixtures.recipe.types import Recipe, Source
from mixtures.recipe.validate import check_period
from shards.errors import UserError

Tables = Sequence[NDArray[np.void]]


def schedule_for(recipe: Recipe, tables: Tables) -> Schedule:
    """Which source at each position, from the kept samples of each source (rows of ROW)."""
    if recipe.ratio == "weight":
        return _weighted(recipe, tables)
    pairs = zip(recipe.sources, tables, strict=True)
    quotas = [_quota(recipe, source, table) for source, table in pairs]
    if sum(quotas) > MAX_LENGTH:
        raise UserError(
            f"{recipe.path}: the {recipe.ratio}s make {sum(quotas)} positions, more than "
            f"{MAX_LENGTH}; lower them, or use weights"
        )
    return Schedule((0,), (period_of(quotas),))


def _weighted(recipe: Recipe, tables: Tables) -> Schedule:
    starts, periods = [], []
    for start, weights in recipe.weights():
        if recipe.unit == "tokens":
            pairs = zip(weights, tables, strict=True)
            weights = [weight / mean_tokens(table) for weight, table in pairs]
            check_period(recipe, weights, start)
        starts.append(start)
        periods.append(period_of(quotas_of(weights, recipe.period)))
    return Schedule(tuple(starts), tuple(periods))


def mean_tokens(table: NDArray[np.void]) -> Fraction:
    """Tokens per kept sample, exactly."""
    return Fraction(int(table["tokens"].sum(dtype=np.int64)), len(table))


def _quota(recipe: Recipe, source: Source, table: NDArray[np.void]) -> int:
    """Samples of one source in a finite order."""
    if source.repeat is not None:
        quota, asked = int(len(table) * source.repeat), f"repeat {source.repeat}"
    else:
        asked = f"budget {source.budget} {recipe.unit}"
        quota = source.budget or 0
        if recipe.unit == "tokens":
            quota = _samples_within(recipe.seed, table, quota)
    if quota == 0:
        raise UserError(f"{recipe.path}: {source.name}: {asked}: not one sample; raise it")
    most = _most(source, table)
    if most is None or quota <= most:
        return quota
    if source.allow_short:
        return most
    raise _too_often(recipe, source, len(table), quota)


def _samples_within(seed: int, table: NDArray[np.void], budget: int) -> int:
    """How many samples, in the order that the source is drawn in, stay within `budget` tokens."""
    rows = len(table)
    epochs, left = divmod(budget, int(table["tokens"].sum(dtype=np.int64)))
    turns = np.arange(epochs * rows, (epochs + 1) * rows)
    row, _ = drawn_rows(seed, content_id(table), rows, turns)
    tokens = np.cumsum(table["tokens"][row], dtype=np.int64)
    return epochs * rows + int(np.searchsorted(tokens, left, side="right"))


def _most(source: Source, table: NDArray[np.void]) -> int | None:
    """The visits that a source allows; a budget that may fall short shows no sample twice."""
    if source.max_repeats is not None:
        return source.max_repeats * len(table)
    return len(table) if source.allow_short else None


def bounded_length(recipe: Recipe, schedule: Schedule, tables: Tables, length: int) -> int:
    """`length` of a weight recipe, or less where a source may run short; else UserError."""
    ends = []
    for i, (source, table) in enumerate(zip(recipe.sources, tables, strict=True)):
        most = _most(source, table)
        end = None if most is None else schedule.position_of(i, most)
        ends.append(length if end is None else min(end, length))
    pairs = list(zip(recipe.sources, ends, strict=True))
    length = min([length, *(end for source, end in pairs if source.allow_short)])
    for i, (source, end) in enumerate(pairs):
        if end < length:
            raise _too_often(recipe, source, len(tables[i]), schedule.visits(length)[i])
    return length


def _too_often(recipe: Recipe, source: Source, kept: int, asked: int) -> UserError:
    return UserError(
        f"{recipe.path}: max_repeats: {source.name!r} has {kept} samples and would be drawn "
        f"{asked} times, more than {source.max_repeats} each; lower its ratio or `length`, raise "
        "max_repeats, or take what is there with `allow_short: true`"
    )
