"""Intervals and claims of ablations: coverage over made grids, false claims where there is nothing.

1,000 grids of 5 seeds x 100 clips x 3 items whose true difference is 0, the seeds' variance 0, 1
and 4 times that of a mean over the items; then 500 grids of 8 variants that are all the base, and
one real A/A: 6 pairs of small runs that differ in nothing but their seeds.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.frame import Bar, at_least, at_most
from benchmarks.inputs.made_differences import ITEMS_OF, aa_grid, covered
from tests.support.tiny_pool import tiny_manifest
from tests.support.tiny_run import TINY, pool_of
from train.ablation.seed_statistics import LEVEL, Difference, difference, holm
from train.config import RandomInit, all_from
from train.json_files import HELD_OUT_SAMPLES
from train.loop import run as run_of
from train.run_keys import HeldOutLoss

GRIDS, AA_GRIDS, PAIRS = 1000, 500, 6
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
    with tempfile.TemporaryDirectory() as folder:
        real = real_pairs(Path(folder))
    low, high = real.interval or (0.0, 0.0)
    console.print(
        f"a real A/A, {real.seeds} pairs, {real.clips} samples: held-out loss "
        f"{real.mean:+.4f}, from {low:+.4f} to {high:+.4f} (p {real.level:.3g})"
    )
    return [*chain.from_iterable(each), at_most("A/A of 8: grids with a false claim", *false())]


def real_pairs(folder: Path) -> Difference:
    """The held-out loss of 6 pairs of runs, each sample a clip of its own."""
    manifest = tiny_manifest(folder / "trained")
    other = tiny_manifest(folder / "held_out", seed=9)
    rule = HeldOutLoss(manifest=str(other), data=pool_of(other), every=99, samples=30)
    losses = []
    for seed in range(2 * PAIRS):
        parts = all_from(TINY.parts, RandomInit(seed))
        out = folder / f"run{seed}"
        run_of(replace(TINY, parts=parts, held_out=rule), manifest, pool_of(manifest), out)
        told = json.loads((out / HELD_OUT_SAMPLES).read_text())["samples"]
        losses.append([one["loss"] / one["tokens"] for one in told])
    found = np.array(losses)
    return difference(found[1::2] - found[::2], range(found.shape[1]))


def false() -> tuple[float, float]:
    """(share of A/A grids in which a claim is made, the level that was promised)."""
    rng = np.random.default_rng(2411)
    claims = [
        min(holm([one.level or 0.0 for one in aa_grid(rng, ITEMS_OF)])) < LEVEL
        for _ in range(AA_GRIDS)
    ]
    return float(np.mean(claims)), LEVEL
