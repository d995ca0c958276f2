"""Losses as a function of mixture weights, and the mixture for which it is least.

The law is that of data mixing laws (Ye et al., arXiv 2403.16952): the loss on each held-out source
falls or rises exponentially with the share of every source that is trained on,

    L(w) = sum_i s_i (c_i + exp(t_i . w))        s_i: the share of held-out source i of the tokens

A sum of exponentials of linear forms is convex in w, and may have its minimum inside. As in RegMix
(Liu et al., arXiv 2407.01492) it is fitted to small runs of drawn mixtures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FLOORS = np.linspace(0, 0.9, 19)
"""Floors c that are tried, as shares of the least loss."""
FLAT = 1e-6
"""Directions in which mixtures differ less than so do not differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MixingLaw:
    """A fitted law: `shares` [I] of held-out tokens, `floors` [I], `coefficients` [K, I]."""

    shares: Floats
    floors: Floats
    coefficients: Floats

    def loss(self, mixtures: Floats) -> Floats:
        """The loss of each mixture: [..., K] -> [...]."""
        return np.asarray((self.floors + np.exp(mixtures @ self.coefficients)) @ self.shares)

    def slope(self, mixture: Floats) -> Floats:
        """Its derivative by each weight: [K]."""
        return self.coefficients @ (self.shares * np.exp(mixture @ self.coefficients))


def fit(mixtures: Floats, observed: Floats, shares: Floats) -> MixingLaw:
    """The law of mixtures [N, K] with losses `observed` [N, I] on held-out sources.

    Least squares of log(loss - floor), the floor being that with the least error of the loss.
    """
    # no intercept: weights sum to 1; of directions that were not tried nothing is learned
    inverse = np.linalg.pinv(mixtures, rcond=FLAT)
    floors = FLOORS[:, None] * observed.min(axis=0)
    # linear least squares, once for every floor and held-out source: [floors, K, I]
    coefficients = inverse @ np.log(observed - floors[:, None])
    predicted = floors[:, None] + np.exp(mixtures @ coefficients)
    # the floor is judged by the loss itself: near its floor a logarithm is all noise
    best = ((predicted - observed) ** 2).sum(axis=1).argmin(axis=0)
    own = np.arange(observed.shape[1])
    return MixingLaw(
        shares=shares, floors=floors[best, own], coefficients=coefficients[best, :, own].T
    )


def free_weights(mixtures: Floats) -> int:
    """In how many directions mixtures [N, K] differ: of K sources that all vary K - 1."""
    return int(np.linalg.matrix_rank(mixtures - mixtures.mean(axis=0), tol=FLAT))


def least(law: MixingLaw, mixtures: Floats, steps: int = 2000, tolerance: float = 1e-6) -> Floats:
    """The mixture [K] of least loss among all blends of `mixtures`: nothing is extrapolated.

    Frank and Wolfe (1956) over the convex hull, from its best corner; the gap of the linear bound
    says when the rest is not worth a step.
    """
    mixture: Floats = mixtures[law.loss(mixtures).argmin()]
    # squared: short steps are tried more densely, for they are what is left in the end
    lengths = np.linspace(0, 1, 257)[:, None] ** 2
    for _ in range(steps):
        # towards the corner that the linear bound takes for best
        slope = law.slope(mixture)
        towards = mixtures[(mixtures @ slope).argmin()] - mixture
        # convexity: nothing in the hull lies further below than this gap
        if -towards @ slope < tolerance * law.loss(mixture):
            break
        # line search; the hull is convex, so that every step stays a blend
        along = mixture + lengths * towards
        mixture = along[law.loss(along).argmin()]
    return mixture


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """By how much a law says that a mixture is better than the base, and how far it may be wrong.

    `interval` holds, at 95 %, what new runs of the mixture show against the base of the law, with
    as many seeds as the runs that it was fitted to. `error` is the root mean square of what was
    predicted of runs that were left out; `predicted` [N] are those predictions.
    """

    mean: float
    interval: tuple[float, float]
    error: float
    predicted: tuple[float, ...]

    @property
    def refusal(self) -> str:
        """Why the mixture is not to be proposed; nothing if it is."""
        low, high = self.interval
        if self.mean <= self.error:
            return f"left-out runs are mistaken by {self.error:.4f}, more than the gain"
        return f"new runs may show a gain of {low:+.4f} to {high:+.4f}" if low <= 0 else ""


def gain(mixtures: Floats, observed: Floats, shares: Floats, pair: tuple[Floats, Floats]) -> Gain:
    """What the law of these runs says of a `pair`: the base, and the mixture that is best by it.

    Two errors add up. How much the law hangs on each run (the jackknife of Quenouille and Tukey),
    with Scheffe's factor (1953), as the best mixture was looked for in all directions with the same
    runs; and how far runs that were left out lie from the law, for they are no law.
    """
    base, chosen = pair
    count, free = len(mixtures), free_weights(mixtures)
    freedom = count - free - 1
    whole = fit(mixtures, observed, shares)
    without = [
        fit(np.delete(mixtures, n, 0), np.delete(observed, n, 0), shares) for n in range(count)
    ]
    # leave-one-out: each run as the law of the others has it
    predicted = np.array([law.loss(mixtures[n]) for n, law in enumerate(without)])
    error = float(np.sqrt(((predicted - observed @ shares) ** 2).mean()))
    # the jackknife's standard error of the gain of this pair
    gains = np.array([law.loss(base) - law.loss(chosen) for law in without])
    of_law = float(np.sqrt((count - 1) / count * ((gains - gains.mean()) ** 2).sum()))
    # independent errors: their squares add up
    half = float(
        np.hypot(scheffe_factor(free, freedom) * of_law, scheffe_factor(1, freedom) * error)
    )
    mean = float(whole.loss(base) - whole.loss(chosen))
    return Gain(
        mean=mean,
        interval=(mean - half, mean + half),
        error=error,
        predicted=tuple(predicted.tolist()),
    )


def scheffe_factor(directions: int, freedom: int, level: float = 0.95) -> float:
    """Standard errors that hold in every direction at once: sqrt(d F(d, freedom)) at `level`."""
    # d F = freedom tan^2(a), where a has the density sin^(d-1) cos^(freedom-1); of d = 1 Student's
    angle = np.linspace(0, np.pi / 2, 100_001)
    density = np.sin(angle) ** (directions - 1) * np.cos(angle) ** (freedom - 1)
    # the trapezoidal rule; the density's constant cancels in the share
    share = np.cumsum((density[1:] + density[:-1]) / 2)
    quantile = np.interp(level, share / share[-1], angle[1:])
    return float(np.sqrt(freedom) * np.tan(quantile))
