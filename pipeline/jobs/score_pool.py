"""A column of scores over a pool: a scorer runs where the workers are, table by table."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import pyarrow.compute as pc

from pipeline.jobs.job import Job, each
from pipeline.stages.scoring.score_table import PER, Scorer, ScoreUnit, score, scorer_of
from shards.errors import UserError
from shards.index import SCORES
from shards.pool import Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A whole column: how many clips or samples it scores; its least, mean and largest value."""

    scorer: str
    digest: str
    per: str
    rows: int
    least: int
    mean: float
    most: int


def check_scorer(name: str) -> None:
    """Raise UserError, before any worker is started, for a scorer whose module is not there."""
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


def score_pool(name: str, per: str, job: Job) -> Scored:
    """Score every table of the pool that has no scores of this scorer yet."""
    # loaded where it runs: what it needs, a model perhaps, is there
    with job.bars.step("scorer") as step:
        (scorer,) = each(job, _found, [(name, per)], step)
    units = [
        ScoreUnit(pool=job.pool.store.url, scorer=scorer, table=table)
        for table in _tables(job.pool, per)
    ]
    with job.bars.step("score") as step:
        step.begin(len(units))
        receipts = list(each(job, score, units, step))
    column = job.pool.table(receipts, "scores", SCORES)["values"]
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


def _found(named: tuple[str, str]) -> Scorer:
    return scorer_of(*named)


def _tables(pool: Pool, per: str) -> list[str]:
    """The tables of clips, or of samples, that receipts name, each once."""
    stage = "admit" if PER[per] == "index/samples" else "decode"
    return pool.files(pool.receipts(stage), PER[per])
