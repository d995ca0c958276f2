"""Columns of scores in a pool (stage `score`), and which samples pass a filter over one.

A column is named by its scorer's function; where the pool holds several of that name, by the
beginning of its digest as well: `scores.sharpness@3f2a.mean`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mixtures.pool.columns import Clips, Samples
from mixtures.recipe.filters import SCORES, Filter
from mixtures.recipe.types import Recipe
from mixtures.sums import segment_sums
from shards import index
from shards.errors import UserError
from shards.id_arrays import Ids, find, ids_of, sorting
from shards.pool import Pool, Receipt

FRAMES, SAMPLE = "frame", "sample"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreColumn:
    """The receipts of one scorer, what it scores, and its digest."""

    receipts: tuple[Receipt, ...]
    per: str
    digest: str


def score_digests(pool: Pool, recipe: Recipe) -> dict[str, str]:
    """The digest of the scorer behind each column of scores that the recipe's filters name."""
    rules = [rule for source in recipe.sources for rule in source.filters if is_score(rule)]
    return {rule.column: column_of(pool, rule, str(recipe.path)).digest for rule in rules}


def is_score(rule: Filter) -> bool:
    """Whether a filter is over a column of scores."""
    return rule.column.startswith(SCORES)


def column_of(pool: Pool, rule: Filter, where: str) -> ScoreColumn:
    """The column that a filter names; UserError if the pool holds none of that name, or several."""
    name, _, head = rule.score[0].partition("@")
    receipts = [
        receipt
        for receipt in pool.receipts("score")
        if receipt.parameters["scorer"].endswith(f":{name}")
        and receipt.parameters["digest"].startswith(head)
    ]
    digests = sorted({receipt.parameters["digest"] for receipt in receipts})
    if not digests:
        raise UserError(
            f"{where}: filters: {rule.column}: the pool {pool.store.url} holds no scores {name!r}; "
            f"run `python -m pipeline score {pool.store.url} --scorer MODULE:{name}` first"
        )
    if len(digests) > 1:
        raise UserError(
            f"{where}: filters: {rule.column}: the pool holds {len(digests)} columns of that name "
            f"({', '.join(digest[:8] for digest in digests)}); "
            f"write {SCORES}{name}@{digests[0][:8]}"
        )
    per = receipts[0].parameters["per"]
    if (per == FRAMES) != bool(rule.score[1]):
        said = f"{SCORES}{name}.mean, .least or .most" if per == FRAMES else f"{SCORES}{name}"
        raise UserError(
            f"{where}: filters: {rule.column}: these are scores of a {per}; write {said}"
        )
    return ScoreColumn(receipts=tuple(receipts), per=per, digest=digests[0])


def passing_scores(
    pool: Pool, samples: Samples, clips: Clips, rule: Filter, where: str
) -> NDArray[np.bool_]:
    """Which samples pass a filter over a column of scores; UserError where some have no score."""
    column = column_of(pool, rule, where)
    table = pool.table(column.receipts, "scores", index.SCORES).combine_chunks()
    of, values = ids_of(table["of"]), _made_one(table, rule.score[1])
    if column.per == SAMPLE:
        return rule.holds(_looked_up(of, values, samples.key, rule, samples.name, where))
    # clips that were refused have no frames to score, and their samples are refused already
    shown = np.zeros(len(clips.ids), bool)
    shown[samples.clips] = True
    scored = np.flatnonzero(shown & (clips.kind > 0))
    passes = np.ones(len(clips.ids), bool)
    passes[scored] = rule.holds(
        _looked_up(of, values, clips.ids[scored], rule, samples.name, where)
    )
    return ~samples.per_sample(~passes)


def _made_one(table: pa.Table, how: str) -> NDArray[np.int64]:
    """One value a row: the only one, or the mean (rounded down), the least or the most of all."""
    lists = table["values"].combine_chunks()
    lists = lists.chunk(0) if isinstance(lists, pa.ChunkedArray) and lists.num_chunks else lists
    if not len(table):
        return np.empty(0, np.int64)
    values, ends = np.asarray(lists.values, np.int64), np.asarray(lists.offsets, np.int64)
    if how == "least":
        return np.minimum.reduceat(values, ends[:-1])
    if how == "most":
        return np.maximum.reduceat(values, ends[:-1])
    return segment_sums(values, ends) // np.diff(ends)


def _looked_up(
    of: Ids, values: NDArray[np.int64], wanted: Ids, rule: Filter, source: str, where: str
) -> pa.ChunkedArray:
    """The value of each wanted id."""
    order = sorting(of)
    at = find(of[order], np.ascontiguousarray(wanted))
    if (at < 0).any():
        raise UserError(
            f"{where}: filters: {rule.column}: {int((at < 0).sum())} rows of {source!r} have no "
            f"score, e.g. {wanted[at < 0][0].tobytes().hex()}; run `python -m pipeline score` again"
        )
    return pa.chunked_array([pa.array(values[order][at])])
