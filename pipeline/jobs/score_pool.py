"""A column of scores over a pool: a scorer runs where the workers are, table by table."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from pipeline.jobs.job import Job, each
from pipeline.stages.scoring.score_table import (
    PER,
    Scorer,
    ScoreUnit,
    check_ours,
    score,
    scorer_of,
)
from shards.errors import UserError
from shards.id_arrays import find, ids_of, sorting
from shards.index import FRAME_SCORES, SCORES
from shards.key_index import SAMPLE_FRAME, SCORES_FOLDER
from shards.pool import Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A whole column: how many clips or samples (or clips of samples) it scores; its least, mean
    and largest value."""

    scorer: str
    digest: str
    per: str
    rows: int
    least: int
    mean: float
    most: int


def check_scorer(name: str, per: str, model: str = "") -> None:
    """Raise UserError, before any worker is started, for a scorer whose module is not there, one of
    `pipeline.scorers` that is not there or scores something else, or a model's folder that is none.
    """
    module, _, function = name.partition(":")
    try:
        found = module and function and importlib.util.find_spec(module)
    except (ImportError, ValueError):
        found = None
    if not found:
        raise UserError(
            f"--scorer {name}: no such module here; give MODULE:FUNCTION, e.g. "
            "pipeline.scorers:sharpness"
        )
    check_ours(name, per)
    if model and not Path(model).is_dir():
        raise UserError(f"--model {model}: no such folder; name that of a model")


def score_pool(name: str, per: str, job: Job, model: str = "") -> Scored:
    """Score every table of the pool that has no scores of this scorer yet; `model` is the folder
    that the scorer takes, if it takes one."""
    # loaded where it runs: what it needs, a model perhaps, is there
    with job.bars.step("scorer") as step:
        (scorer,) = each(job, _found, [(name, per, model)], step)
    units = [
        ScoreUnit(pool=job.pool.store.url, scorer=scorer, table=table, clips_table=clips)
        for table, clips in _tables(job.pool, per)
    ]
    with job.bars.step("score") as step:
        step.begin(len(units))
        # a model wants a GPU of its own, where there are any
        receipts = list(each(job, score, units, step, on_gpu=bool(model)))
    kept = (SCORES_FOLDER, FRAME_SCORES) if per == SAMPLE_FRAME else ("scores", SCORES)
    column = job.pool.table(receipts, *kept)["values"]
    values = pc.list_flatten(column)
    # of a pool without a row nothing is the least
    least, most = pc.min_max(values).as_py().values() if len(values) else (0, 0)
    return Scored(
        scorer=name,
        digest=scorer.digest,
        per=per,
        rows=len(column),
        least=least,
        mean=pc.mean(values).as_py() or 0.0,
        most=most,
    )


def _found(named: tuple[str, str, str]) -> Scorer:
    return scorer_of(*named)


def _tables(pool: Pool, per: str) -> list[tuple[str, str]]:
    """The tables of clips, or of samples, that receipts name, each once, and "".

    Per sample and frame: each table of samples with each table of clips that they show.
    """
    stage = "admit" if PER[per] == "index/samples" else "decode"
    names = pool.files(pool.receipts(stage), PER[per])
    if per != SAMPLE_FRAME:
        return [(name, "") for name in names]
    return list(_shown_together(pool, names))


def _shown_together(pool: Pool, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(table of samples, table of clips) where the samples show one of the clips at least."""
    tables = pool.files(pool.receipts("decode"), "index/clips")
    of_clips = pool.tables("index/clips", tables, ["clip_id"])
    ids = [ids_of(table["clip_id"]) for _, table in of_clips]
    # which table each clip lies in, sorted by clip
    clips = np.concatenate([np.empty(0, "V16"), *ids])
    order = sorting(clips)
    owners = np.repeat(np.arange(len(ids)), list(map(len, ids)))[order]
    for name, table in pool.tables("index/samples", names, ["clip_ids"]):
        at = find(clips[order], ids_of(pc.list_flatten(table["clip_ids"])))
        for owner in np.unique(owners[at[at >= 0]]).tolist():
            yield name, tables[owner]
