"""Losses of several variants as a function of the tokens they were trained on.

    L_v(D) = E + A_v (D / D_0)^-alpha

the form of Hoffmann et al. (arXiv 2203.15556) in data alone, with one floor E and one exponent for
all variants: few budgets cannot tell those of each apart. D_0 is the smallest budget, so that A_v
is how far above the floor a variant is there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shards.errors import UserError

Floats = NDArray[np.float64]

EXPONENTS = 0.01, 3.0
"""Between which the exponent is looked for."""
_PLACES, _ROUNDS = 61, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingLaw:
    """A fitted law; `factors` [V] are A of each variant, `unit` is D_0."""

    floor: float
    exponent: float
    factors: Floats
    unit: float

    def loss(self, tokens: Floats) -> Floats:
        """Of every variant [V] after its tokens: [V, B] -> [V, B]."""
        return self.floor + self.factors[:, None] * (tokens / self.unit) ** -self.exponent


def fit(tokens: Floats, observed: Floats) -> ScalingLaw:
    """The law of losses `observed` [V, B] after ascending tokens [V, B], by least squares of
    relative errors, which to first order are those of the logarithm. UserError where losses do not
    fall with tokens.

    Given the exponent the rest is linear (variable projection, Golub and Pereyra 1973), so that one
    number is looked for: on ever finer grids.
    """
    if np.log(observed[:, -1]).mean() >= np.log(observed[:, 0]).mean():
        raise UserError(
            "held-out losses do not fall from the smallest budget to the largest that is fitted; "
            "there is no law to fit: give --scale larger budgets"
        )
    low, high = EXPONENTS
    for _ in range(_ROUNDS):
        # each round looks between the neighbours of the best of the last one
        places = np.geomspace(low, high, _PLACES).tolist()
        laws = [_linear(tokens, observed, exponent) for exponent in places]
        best = int(np.argmin([_error(law, tokens, observed) for law in laws]))
        low, high = places[max(best - 1, 0)], places[min(best + 1, _PLACES - 1)]
    return laws[best]


def _linear(tokens: Floats, observed: Floats, exponent: float) -> ScalingLaw:
    """The best floor and factors of an exponent; neither is below 0."""
    variants, unit = len(observed), float(tokens.min())
    # relative errors: every term is divided by the loss that it explains
    powers = (tokens / unit) ** -exponent / observed
    # one row for each loss: floor / loss + factor * power / loss = 1
    rows = np.zeros((*observed.shape, variants + 1))
    rows[..., 0] = 1 / observed
    rows[np.arange(variants), :, np.arange(variants) + 1] = powers
    targets = np.ones(observed.size)
    equations = rows.reshape(-1, variants + 1)
    solution = np.asarray(np.linalg.lstsq(equations, targets, rcond=None)[0], np.float64)
    if solution.min() < 0:
        # on the bound: without a floor each variant's factor is a projection of its own
        solution[0], solution[1:] = 0.0, powers.sum(axis=1) / (powers**2).sum(axis=1)
    return ScalingLaw(floor=float(solution[0]), exponent=exponent, factors=solution[1:], unit=unit)


def _error(law: ScalingLaw, tokens: Floats, observed: Floats) -> float:
    return float(((law.loss(tokens) / observed - 1) ** 2).sum())
