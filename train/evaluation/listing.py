"""The evaluation sets that can be scored, as a table."""

from __future__ import annotations

from rich.table import Table

from pipeline.sources.benchmarks import BENCHMARKS
from train.evaluation.rules import prompts


def listing() -> Table:
    """A row for each set: what it asks about, its score, where its copy is to be had."""
    table = Table(title="evaluation sets: --benchmark NAME=FOLDER of your copy")
    for title in ("name", "about", "score", "where to get it", "layout from"):
        table.add_column(title, overflow="fold")
    for name, benchmark in BENCHMARKS.items():
        rules = prompts(name)
        score = f"mean over {rules.mean_of}" if rules.mean_of else "mean over questions"
        table.add_row(name, benchmark.kind, score, rules.get, benchmark.layout)
    return table
