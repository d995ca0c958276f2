"""Results by hand: five seeds, one variant that is better, one that is not, one diverged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from train.ablation.ablate import Ablation, Told, write_ablation
from train.ablation.results import Result, ScoredQuestions, write_result

SEEDS = (1, 2, 3, 4, 5)
GAINS = {"base": 0.0, "better": 0.3, "alike": 0.0, "hot<b>": 0.0}
ITEMS = 60


def result(variant: str, seed: int) -> Result:
    """What a variant scored with a seed: 60 questions on 20 clips, 30 held-out samples."""
    rng = np.random.default_rng([seed, len(variant)])
    hard = np.random.default_rng(7).random(ITEMS)
    credits_ = (hard - rng.normal(0, 0.05, ITEMS) < 0.4 + GAINS[variant]).astype(float)
    losses = 20 + 5 * hard[:30] + rng.normal(0, 0.2, 30) - 10 * GAINS[variant]
    clips = [f"clip{i // 3}" for i in range(ITEMS)]
    is_hot = variant.startswith("hot")
    sources = ["a", "b"] * 15
    rows = zip(clips[:30], sources, losses.tolist(), strict=True)
    held_out = tuple((f"k{i}", c, s, repr(x), 10) for i, (c, s, x) in enumerate(rows))
    asked = ScoredQuestions(
        ids=tuple(map(str, range(ITEMS))),
        clips=tuple(clips),
        groups=tuple(["first", "motion"] * 30),
        credits_=tuple(map(repr, credits_.tolist())),
        mean_of_groups=False,
        floors={"majority": "0.2", "none": "0.1"},
    )
    return Result(
        variant=variant,
        seed=seed,
        key={"manifest": variant, "seed": str(seed)},
        code="0" * 64,
        made_with={},
        diverged="step 7: its loss is nan" if is_hot else "",
        steps=50,
        supervised=1000 + seed,
        tokens=9000,
        seconds="12.5",
        flops="2e12",
        losses=tuple((n, repr(3 - n / 30)) for n in range(1, 51)),
        held_out=() if is_hot else held_out,
        asked={} if is_hot else {"scenes/test": asked},
    )


def write(out: Path, seeds: tuple[int, ...] = SEEDS) -> Path:
    """An ablation and its results in `out`."""
    results = [result(variant, seed) for variant in GAINS for seed in seeds]
    for one in results:
        write_result(out, f"{one.variant.strip('<b>')}.{one.seed}.{one.key_id[:8]}", one)
    changes = {name: () if name == "base" else ("recipe: duplicates: keep",) for name in GAINS}
    variants = tuple(
        Told(name=n, changes=changes[n], differs=("a: 9 -> 10",), shares={}) for n in GAINS
    )
    write_ablation(
        out,
        Ablation(
            grid="grid.yaml",
            supervised=1000,
            tasks=(),
            variants=variants,
            runs=tuple((one.variant, one.seed, one.key_id) for one in results),
        ),
    )
    return out


def with_gone(one: Result, ids: set[str]) -> Result:
    """Without some of its held-out samples."""
    return replace(one, held_out=tuple(row for row in one.held_out if row[0] not in ids))
