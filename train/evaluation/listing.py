"""The evaluation sets that can be scored, as a table."""

from __future__ import annotations

from rich.table import Table

from pipeline.sources.benchmarks import BENCHMARKS
from train.evaluation.rules import prompts


def listing() -> Table:
    """A row for each set: what it asks about, its score, where its copy is to be had."""
    table = Table(title="evaluation sets: --benchmark NAME=FOLDER of your copy")
    for title in ("name", "about", "score", "where to get it", "layout from"):
        table.add_column(title)
    for name, benchmark in BENCHMARKS.items():
        table.add_row(name, benchmark.kind, score_of(name), prompts(name).get, benchmark.layout)
    return table


def score_of(name: str) -> str:
    """What the set's authors average over."""
    axis = prompts(name).mean_of
    return f"mean over {axis}s" if axis else "mean over questions"
