"""Intervals and claims of ablations: coverage over made grids, false claims where there is nothing.

1,000 grids of 5 seeds x 100 clips x 3 items whose true difference is 0, the seeds' variance 0, 1
and 4 times that of a mean over the items; then 500 grids of 8 variants that are all the base.
"""

from __future__ import annotations

from itertools import chain

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.frame import Bar, at_least, at_most
from benchmarks.inputs.made_differences import ITEMS_OF, aa_grid, covered
from train.ablation.seed_statistics import LEVEL, holm

GRIDS, AA_GRIDS = 1000, 500
LOW, HIGH = 0.93, 0.98


def run(console: Console) -> list[Bar]:
    shares = (0.0, 0.5, 1.0)
    table = Table("seed variance / items'", *(f"seeds agree on {one:.0%}" for one in shares))
    found = {}
    for variance in (0.0, 1.0, 4.0):
        found[variance] = [covered(GRIDS, variance, shared) for shared in shares]
        table.add_row(f"{variance:g}", *(f"{one:.3f}" for one in found[variance]))
    console.print("coverage of the 95 % interval, by how far seeds agree on items")
    console.print(table)
    each = (
        (
            at_least(f"coverage at seed variance {v:g}, lowest", min(some), LOW),
            at_most(f"coverage at seed variance {v:g}, highest", max(some), HIGH),
        )
        for v, some in found.items()
    )
    return [*chain.from_iterable(each), at_most("A/A of 8: grids with a false claim", *false())]


def false() -> tuple[float, float]:
    """(share of A/A grids in which a claim is made, the level that was promised)."""
    rng = np.random.default_rng(2411)
    claims = [
        min(holm([one.level or 0.0 for one in aa_grid(rng, ITEMS_OF)])) < LEVEL
        for _ in range(AA_GRIDS)
    ]
    return float(np.mean(claims)), LEVEL
