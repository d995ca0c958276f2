"""`python -m train ablate GRID --scale TOKENS...`: a grid at several budgets, and their law.

The largest budget is held out: the law of the smaller ones is asked what comes out there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from shards.errors import UserError
from train.ablation.comparisons import HELD_OUT, measures_of
from train.ablation.prediction.rank_correlation import rank_correlation
from train.ablation.prediction.scaling_law import Floats, ScalingLaw, fit
from train.ablation.results import Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The held-out losses [V, B] of `variants` after supervised tokens [V, B], means over seeds,
    and the law of all budgets but the last."""

    variants: tuple[str, ...]
    tokens: Floats
    losses: Floats
    law: ScalingLaw

    @property
    def predicted(self) -> Floats:
        """What the law says of the budget that is held out: [V]."""
        return self.law.loss(self.tokens)[:, -1]

    @property
    def error(self) -> float:
        """Its root mean square, as a share of the losses."""
        return float(np.sqrt(np.mean((self.predicted / self.losses[:, -1] - 1) ** 2)))


def predict(results: Mapping[int, Sequence[Result]]) -> Prediction:
    """What the smaller budgets say of the largest; UserError where no variant has a loss at all of
    them. A seed that is missing somewhere, or has diverged, counts nowhere."""
    by_run = {(b, r.variant, r.seed): r for b, some in results.items() for r in some if r.held_out}
    budgets = sorted(results)
    runs = {(variant, seed): None for _, variant, seed in by_run}
    whole = [run for run in runs if all((b, *run) in by_run for b in budgets)]
    if not whole:
        raise UserError(
            "no variant has a held-out loss at every budget; there is nothing to predict from"
        )
    # in the order in which the grid names them
    variants = tuple(dict.fromkeys(variant for variant, _ in whole))
    # [variants, budgets, (tokens, loss)], means over seeds
    table = np.array(
        [
            [
                np.mean([_measured(by_run[b, *run]) for run in whole if run[0] == variant], axis=0)
                for b in budgets
            ]
            for variant in variants
        ]
    )
    tokens, losses = table[..., 0], table[..., 1]
    # the largest budget is held out
    law = fit(tokens[:, :-1], losses[:, :-1])
    return Prediction(variants=variants, tokens=tokens, losses=losses, law=law)


def _measured(result: Result) -> tuple[float, float]:
    """(supervised tokens, held-out loss)."""
    return result.supervised, measures_of(result)[HELD_OUT, ""].mean


def says(prediction: Prediction) -> Iterator[Table | str]:
    """The losses, the law, and how near it came."""
    law, losses = prediction.law, prediction.losses
    budgets = prediction.tokens.mean(axis=0)
    table = Table("variant", title="held-out loss by supervised tokens")
    for count in budgets:
        table.add_column(f"{count:,.0f}", justify="right")
    for name in ("predicted", "error"):
        table.add_column(name, justify="right")
    for variant, row, predicted in zip(
        prediction.variants, losses, prediction.predicted, strict=True
    ):
        cells = [f"{loss:.4f}" for loss in (*row, predicted)]
        table.add_row(variant, *cells, f"{predicted / row[-1] - 1:+.1%}")
    yield table
    yield (
        f"law of the first {len(budgets) - 1} budgets: loss = {law.floor:.4f} + A (tokens / "
        f"{law.unit:,.0f})^-{law.exponent:.4f}, A "
        + ", ".join(
            f"{a:.4f} ({name})"
            for name, a in zip(prediction.variants, law.factors.tolist(), strict=True)
        )
    )
    ranks = rank_correlation(prediction.predicted, losses[:, -1])
    yield (
        f"at the budget that was held out: error {prediction.error:.2%} (root mean square), rank "
        f"correlation {ranks:.2f} over {len(prediction.variants)} variants"
    )


def prediction_json(prediction: Prediction) -> dict[str, Any]:
    """The same as JSON."""
    law = prediction.law
    ranks = rank_correlation(prediction.predicted, prediction.losses[:, -1])
    return {
        "variants": prediction.variants,
        "tokens": prediction.tokens.tolist(),
        "losses": prediction.losses.tolist(),
        "predicted": prediction.predicted.tolist(),
        "floor": law.floor,
        "exponent": law.exponent,
        "factors": law.factors.tolist(),
        "unit": law.unit,
        "error": prediction.error,
        # JSON has no NaN
        "rank_correlation": None if math.isnan(ranks) else ranks,
    }
