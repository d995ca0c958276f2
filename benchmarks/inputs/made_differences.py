"""Made differences of two models of one mind: no true difference, as seeds and clips scatter it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from train.ablation.seed_statistics import Difference, difference

SEEDS, CLIPS, ITEMS = 5, 100, 3
ITEMS_OF = [clip for clip in range(CLIPS) for _ in range(ITEMS)]
"""The clip of each item."""
CLIP_SHARE = 0.5
"""Of the variance of an item, what the items of its clip share."""


def made(
    rng: np.random.Generator, seed_variance: float, shared: float = 0.5
) -> tuple[NDArray[np.float64], Sequence[int]]:
    """(differences [SEEDS, items], the clip of each item); their true mean is 0.

    `seed_variance` is in units of the variance that the items give to a mean over them; `shared`
    is the share of that variance in which the seeds agree, the rest is each seed's own.
    """
    common = np.sqrt(shared) * _items(rng, 1)
    own = np.sqrt(1 - shared) * _items(rng, SEEDS)
    # of a mean over clips: the shared part whole, the own part of each item a third
    of_items = (CLIP_SHARE + (1 - CLIP_SHARE) / ITEMS) / CLIPS
    of_seed = rng.normal(size=(SEEDS, 1)) * np.sqrt(seed_variance * of_items)
    return common + own + of_seed, ITEMS_OF


def _items(rng: np.random.Generator, rows: int) -> NDArray[np.float64]:
    clips = np.repeat(rng.normal(size=(rows, CLIPS)), ITEMS, axis=1)
    found: NDArray[np.float64] = np.sqrt(CLIP_SHARE) * clips + np.sqrt(1 - CLIP_SHARE) * rng.normal(
        size=(rows, CLIPS * ITEMS)
    )
    return found


def covered(grids: int, seed_variance: float, shared: float = 0.5) -> float:
    """The share of made grids whose interval holds the true difference."""
    rng = np.random.default_rng([grids, int(seed_variance * 100), int(shared * 100)])
    hits = 0
    for _ in range(grids):
        found = difference(*made(rng, seed_variance, shared)).interval
        assert found is not None
        hits += found[0] <= 0 <= found[1]
    return hits / grids


def aa_grid(
    rng: np.random.Generator, clips: Sequence[int], comparisons: int = 8
) -> list[Difference]:
    """So many variants that are the base by another name, compared with one base."""
    base = made(rng, 1.0)[0]
    return [difference(made(rng, 1.0)[0] - base, clips) for _ in range(comparisons)]
