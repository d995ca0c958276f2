"""`python -m train suggest DIR`: a recipe with the weights for which an ablation's mixtures speak.

Of an ablation's variants those count that differ from the base in weights alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from rich.table import Table

from mixtures.recipe.strict_yaml import dump_yaml, load_yaml
from shards.errors import UserError
from shards.store import Store
from train.ablation.ablate import Ablation
from train.ablation.comparisons import HELD_OUT, measures_of
from train.ablation.drawn_mixtures import PARTS, in_thousandths, with_weights
from train.ablation.grid import BASE, load_grid
from train.ablation.prediction.mixing_law import Floats, Gain, fit, free_weights, gain, least
from train.ablation.prediction.rank_correlation import rank_correlation
from train.ablation.results import Result
from train.ablation.variants import changed_tree

RECIPE = "suggested.yaml"
MIXTURES_PER_WEIGHT = 4
"""So many are wanted for each free weight; another seed of a mixture is no other mixture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """Mixtures [N, K] of `sources`, that of the base [K], and `losses` [N, I] on held-out sources,
    means over seeds; `shares` [I] of the held-out tokens are theirs. `planned` counts the mixtures
    of the grid: runs may be missing, or have diverged."""

    sources: tuple[str, ...]
    base: Floats
    mixtures: Floats
    held_out: tuple[str, ...]
    losses: Floats
    shares: Floats
    runs: int
    planned: int

    @property
    def loss(self) -> Floats:
        """On all held-out tokens: [N]."""
        return self.losses @ self.shares


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """A mixture, in thousandths by source, and what is expected of it; `loss` is the base's, by the
    law."""

    tried: Tried
    thousandths: Mapping[str, int]
    loss: float
    gain: Gain


def tried_of(where: str, ablation: Ablation, results: Sequence[Result]) -> Tried:
    """The mixtures of an ablation and their losses; UserError where they are too few."""
    shares = {one.name: one.shares for one in ablation.variants if one.shares}
    if BASE not in shares:
        raise UserError(f"{where}: the recipe of its base gives no weights; nothing is suggested")
    by_mixture: dict[tuple[str, ...], list[dict[str, tuple[float, float]]]] = {}
    # runs of one mixture are told apart by nothing but their seed
    for one in results:
        if one.variant in shares and one.held_out:
            key = tuple(shares[one.variant].values())
            by_mixture.setdefault(key, []).append(_by_source(one))
    mixtures = np.array([_numbers(key) for key in by_mixture]).reshape(-1, len(shares[BASE]))
    _check_enough(where, mixtures)
    # all are asked the same held-out samples: the first says their sources and tokens
    rows = list(by_mixture.values())
    names = tuple(rows[0][0])
    tokens = np.array([rows[0][0][name][1] for name in names])
    return Tried(
        sources=tuple(shares[BASE]),
        base=_numbers(shares[BASE].values()),
        mixtures=mixtures,
        held_out=names,
        losses=np.array(
            [[np.mean([run[name][0] for run in runs]) for name in names] for runs in rows]
        ),
        shares=tokens / tokens.sum(),
        runs=sum(map(len, rows)),
        planned=len({tuple(mixture.values()) for mixture in shares.values()}),
    )


def _check_enough(where: str, mixtures: Floats) -> None:
    free = free_weights(mixtures) if len(mixtures) else 0
    wanted = MIXTURES_PER_WEIGHT * max(free, 1)
    if len(mixtures) < wanted:
        raise UserError(
            f"{where}: {len(mixtures)} mixtures have a held-out loss, {wanted} are wanted, "
            f"{MIXTURES_PER_WEIGHT} for each free weight; raise `mixtures: count` of the grid, and "
            "run `train ablate` again"
        )


def _numbers(fractions: Iterable[str]) -> Floats:
    return np.array([float(Fraction(spelled)) for spelled in fractions])


def _by_source(result: Result) -> dict[str, tuple[float, float]]:
    """(loss, supervised tokens) of a run by held-out source, in one order."""
    measures = {part: m for (name, part), m in measures_of(result).items() if name == HELD_OUT}
    # of one source alone there are no parts
    parts = sorted(part for part in measures if part) or [""]
    return {
        part: (measures[part].mean, sum(one.weight for one in measures[part].items.values()))
        for part in parts
    }


def suggestion_of(tried: Tried) -> Suggestion:
    """The best blend of what was tried, by the law of its losses."""
    law = fit(tried.mixtures, tried.losses, tried.shares)
    thousandths = in_thousandths(least(law, tried.mixtures))
    # what is written is what is judged
    pair = tried.base, np.array(thousandths) / PARTS
    return Suggestion(
        tried=tried,
        thousandths=dict(zip(tried.sources, thousandths, strict=True)),
        loss=float(law.loss(tried.base)),
        gain=gain(tried.mixtures, tried.losses, tried.shares, pair),
    )


def write_recipe(out: Path, ablation: Ablation, suggestion: Suggestion) -> Path:
    """The base's recipe with these weights, as DIR/suggested.yaml."""
    recipe = Path(load_grid(Path(ablation.grid)).recipe)
    tree = load_yaml(recipe)
    tree = changed_tree(tree, with_weights("suggested", suggestion.thousandths), str(recipe))
    Store(out).put(RECIPE, dump_yaml(tree | {"name": f"{tree['name']}_suggested"}).encode())
    return out / RECIPE


def says(suggestion: Suggestion) -> Iterator[Table | str]:
    """What was tried, what it says, and how far to trust it."""
    tried, expected = suggestion.tried, suggestion.gain
    low, high = expected.interval
    table = Table("source", "base", "tried", "suggested")
    # the range of what was tried: the suggestion lies within
    lowest, highest = tried.mixtures.min(axis=0), tried.mixtures.max(axis=0)
    for n, name in enumerate(tried.sources):
        table.add_row(
            name,
            f"{tried.base[n]:.3f}",
            f"{lowest[n]:.3f} to {highest[n]:.3f}",
            f"{suggestion.thousandths[name] / PARTS:.3f}",
        )
    yield table
    held_out = ", ".join(name or "one source" for name in tried.held_out)
    yield (
        f"{tried.runs} runs, {len(tried.mixtures)} of {tried.planned} mixtures, "
        f"{free_weights(tried.mixtures)} free weights, losses on {held_out}"
    )
    yield (
        f"held-out loss: {suggestion.loss:.4f} of the base by the law, "
        f"{suggestion.loss - expected.mean:.4f} suggested; gain {expected.mean:+.4f}, "
        f"new runs show {low:+.4f} to {high:+.4f} (95 %)"
    )
    yield (
        f"left-out runs are predicted with an error of {expected.error:.4f}; rank correlation "
        f"{rank_correlation(expected.predicted, tried.loss):.2f}; losses lie between "
        f"{tried.loss.min():.4f} and {tried.loss.max():.4f}"
    )
