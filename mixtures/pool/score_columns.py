"""Columns of scores in a pool (stage `score`), and which samples pass a filter over one.

A column is named by its scorer's function; where the pool holds several of that name, by the
beginning of its digest as well: `scores.sharpness@3f2a.mean`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from mixtures.manifest.contents import FrameScoresChoice
from mixtures.manifest.manifest import values_digest
from mixtures.pool.columns import Clips, Samples
from mixtures.recipe.filters import SCORES, Filter
from mixtures.recipe.types import Recipe
from mixtures.sums import segment_sums
from shards import index
from shards.errors import UserError
from shards.id_arrays import Ids, find, ids_of, sorting
from shards.key_index import SAMPLE_FRAME, FrameScores, clip_ids_of, frame_scores_table
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
    where = f"{where}: filters: {rule.column}"
    column = _named(pool, rule.score[0], SCORES, where)
    of_frames = column.per in (FRAMES, SAMPLE_FRAME)
    if of_frames != bool(rule.score[1]):
        name = rule.score[0].partition("@")[0]
        said = f"{SCORES}{name}.mean, .least or .most" if of_frames else f"{SCORES}{name}"
        raise UserError(f"{where}: these are scores of a {column.per}; write {said}")
    return column


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectedBy:
    """The scores by which a recipe selects frames: the column's name, its scorer's digest."""

    column: str
    digest: str
    frame_scores: FrameScores

    def choice(self, kept_rows: Sequence[NDArray[np.void]], where: str) -> FrameScoresChoice:
        """What a manifest says of them, over the kept samples of each source (rows of ROW)."""
        return FrameScoresChoice(
            column=self.column,
            scorer=self.digest,
            values=values_digest(
                self.frame_scores, kept_rows, f"{where}: frame_scores: {self.column}"
            ),
        )


def frame_scores_of(pool: Pool, recipe: Recipe) -> SelectedBy | None:
    """The column that the recipe selects frames by, if it does; UserError if the pool holds none of
    that name, or several, or one of other scores."""
    if recipe.frame_scores is None:
        return None
    where = f"{recipe.path}: frame_scores: {recipe.frame_scores}"
    column = _named(pool, recipe.frame_scores, "", where, f" --per {SAMPLE_FRAME}")
    if column.per != SAMPLE_FRAME:
        raise UserError(
            f"{where}: these are scores of a {column.per}; frames are selected by what is scored "
            f"with --per {SAMPLE_FRAME}"
        )
    return SelectedBy(
        column=recipe.frame_scores.partition("@")[0],
        digest=column.digest,
        frame_scores=FrameScores(frame_scores_table(pool, list(column.receipts))),
    )


def _named(pool: Pool, spelled: str, prefix: str, where: str, per: str = "") -> ScoreColumn:
    """The column NAME or NAME@DIGEST."""
    name, _, head = spelled.partition("@")
    receipts = [
        receipt
        for receipt in pool.receipts("score")
        if receipt.parameters["scorer"].endswith(f":{name}")
        and receipt.parameters["digest"].startswith(head)
    ]
    digests = sorted({receipt.parameters["digest"] for receipt in receipts})
    if not digests:
        raise UserError(
            f"{where}: the pool {pool.store.url} holds no scores {name!r}; run `python -m "
            f"pipeline score {pool.store.url} --scorer MODULE:{name}{per}` first"
        )
    if len(digests) > 1:
        raise UserError(
            f"{where}: the pool holds {len(digests)} columns of that name "
            f"({', '.join(digest[:8] for digest in digests)}); "
            f"write {prefix}{name}@{digests[0][:8]}"
        )
    first = receipts[0].parameters
    return ScoreColumn(receipts=tuple(receipts), per=first["per"], digest=first["digest"])


def passing_scores(
    pool: Pool, samples: Samples, clips: Clips, rule: Filter, where: str
) -> NDArray[np.bool_]:
    """Which samples pass a filter over a column of scores; UserError where some have no score."""
    column = column_of(pool, rule, where)
    if column.per == SAMPLE_FRAME:
        return _passing_pairs(pool, samples, clips, rule, column, where)
    table = pool.table(column.receipts, "scores", index.SCORES).combine_chunks()
    lists = _one(table["values"])
    of, values = ids_of(table["of"]), _made_one(lists.values, lists.offsets, rule.score[1])
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


def _passing_pairs(
    pool: Pool, samples: Samples, clips: Clips, rule: Filter, column: ScoreColumn, where: str
) -> NDArray[np.bool_]:
    """Which samples pass a filter over scores of their clips' frames: each of their clips must."""
    scores = FrameScores(frame_scores_table(pool, list(column.receipts)))
    values = _made_one(scores.values, scores.ends, rule.score[1])
    # clips that were refused have no frames to score
    scored = clips.kind[samples.clips] > 0
    rows = scores.rows(clip_ids_of(samples.key, np.diff(samples.ends)))[scored]
    if (rows < 0).any():
        raise UserError(
            f"{where}: filters: {rule.column}: {int((rows < 0).sum())} clips of samples of "
            f"{samples.name!r} have no score; run `python -m pipeline score` again"
        )
    fails = np.zeros(len(scored), bool)
    fails[scored] = ~rule.holds(pa.chunked_array([pa.array(values[rows])]))
    passes: NDArray[np.bool_] = segment_sums(fails, samples.ends) == 0
    return passes


def _one(column: pa.ChunkedArray) -> pa.ListArray:
    """A column of lists in one chunk, also where it has none."""
    lists = column.combine_chunks()
    return lists.chunk(0) if isinstance(lists, pa.ChunkedArray) and lists.num_chunks else lists


def _made_one(values: ArrayLike, ends: ArrayLike, how: str) -> NDArray[np.int64]:
    """One value a row: the only one, or the mean (rounded down), the least or the most of all."""
    values, ends = np.asarray(values, np.int64), np.asarray(ends, np.int64)
    if len(ends) < 2:
        return np.empty(0, np.int64)
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
