"""What paired differences over seeds and items say: intervals, and claims that hold together.

A variant and its base are trained with the same seeds and asked the same items. Two things make
their mean difference uncertain: another seed would train other weights, and other clips would ask
other questions. Both are counted, each once: the two-way variance of Cameron, Gelbach and Miller
(Robust Inference with Multiway Clustering, 2011), with analysis of variance in its small samples.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

CLAIMS_FROM = 5
"""Seeds from which on a difference may be claimed; below, only differences are told."""
LEVEL = 0.05
"""Of intervals, and of the claims of a table together."""
LEAST = 1e-9
"""No level is told more exactly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The mean of variant - base over seeds and items in `clips`; `by_seed` has that of each seed.

    `variances` of the mean are those due to seeds, to clips, and to what a clip does with one seed
    only, which is part of the first.
    """

    mean: float
    by_seed: tuple[float, ...]
    clips: int
    variances: tuple[float, float, float]

    @property
    def seeds(self) -> int:
        """How many seeds were paired."""
        return len(self.by_seed)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Where the difference lies at 95 %; None of one seed, which says nothing of others."""
        if self.seeds < 2:
            return None
        half = self._half_width(LEVEL)
        return self.mean - half, self.mean + half

    @property
    def level(self) -> float | None:
        """The p-value: the level of the interval that reaches just to 0."""
        if self.seeds < 2:
            return None
        if not any(self.variances):
            return LEAST if self.mean else 1.0
        # bisection in the logarithm: the narrower an interval, the higher its level
        low, high = math.log(LEAST), 0.0
        for _ in range(40):
            middle = (low + high) / 2
            is_wide = self._half_width(math.exp(middle)) > abs(self.mean)
            low, high = (middle, high) if is_wide else (low, middle)
        return math.exp(high)

    def _half_width(self, level: float) -> float:
        # Banerjee (1961): the squares of two Student intervals add up, and cover at least as often
        freedom = (self.seeds - 1, self.clips - 1, (self.seeds - 1) * (self.clips - 1))
        of_seeds, of_clips, of_both = (
            student_quantile(1 - level / 2, n) ** 2 * variance if variance else 0.0
            for variance, n in zip(self.variances, freedom, strict=True)
        )
        # few seeds may agree by chance, to the last item: what clips do with each counts at least
        least = of_both if self.seeds < CLAIMS_FROM else 0.0
        return math.sqrt(max(of_seeds, least) + of_clips)


def difference(item_scores: NDArray[np.float64], clips: Sequence[Hashable]) -> Difference:
    """What `item_scores` (variant - base of each seed and item, [seeds, items]) say on the whole.

    `clips` names the clip of each item: those of one clip are right or wrong together.
    """
    by_seed = item_scores.mean(axis=1)
    return Difference(
        mean=float(by_seed.mean()),
        by_seed=tuple(by_seed.tolist()),
        clips=len(set(clips)),
        variances=_variances(item_scores, by_seed, clips) if len(item_scores) > 1 else (0.0,) * 3,
    )


def _variances(
    item_scores: NDArray[np.float64], by_seed: NDArray[np.float64], clips: Sequence[Hashable]
) -> tuple[float, float, float]:
    """The variance of the mean that is due to seeds, to clips, and to both; each at least 0."""
    number = {name: i for i, name in enumerate(dict.fromkeys(clips))}
    seeds, count = item_scores.shape
    few = len(number)
    of_seeds = float(by_seed.var(ddof=1)) / seeds
    if few < 2:
        return of_seeds, 0.0, 0.0
    # each clip's pull on the mean of each seed, without what the seed shifts all of them by
    pulls = np.zeros((few, seeds))
    np.add.at(pulls, [number[name] for name in clips], (item_scores - by_seed[:, None]).T / count)
    shared = pulls.mean(axis=1, keepdims=True)
    of_clips = float(np.sum(shared**2))
    # what a clip does with one seed only is in the spread of the seeds already
    of_both = float(np.sum((pulls - shared) ** 2)) / (seeds * (seeds - 1))
    unbiased = few / (few - 1)
    return of_seeds, max(of_clips - of_both, 0.0) * unbiased, of_both * unbiased


def holm(levels: Sequence[float]) -> list[float]:
    """Levels as they are when all of them are claimed together (Holm 1979); none above 1."""
    adjusted = [0.0] * len(levels)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(levels)), key=lambda i: levels[i])):
        highest = max(highest, min(1.0, (len(levels) - rank) * levels[place]))
        adjusted[place] = highest
    return adjusted


def student_share(t: float, freedom: int) -> float:
    """The probability that Student's t of a whole number of degrees of freedom is at most `t`.

    The finite series of Abramowitz and Stegun (1964), 26.7.3 and 26.7.4.
    """
    angle = math.atan(t / math.sqrt(freedom))
    square = math.cos(angle) ** 2
    # odd: 2/pi (angle + sin cos (1 + 2/3 cos^2 + ...)); even: sin (1 + 1/2 cos^2 + ...)
    first = 2 if freedom % 2 else 1
    term, series = 1.0, 0.0
    for step in range(first, freedom, 2):
        series += term
        term *= square * step / (step + 1)
    if freedom % 2:
        both = 2 / math.pi * (angle + math.sin(angle) * math.cos(angle) * series)
    else:
        both = math.sin(angle) * series
    return (1 + both) / 2


@cache
def student_quantile(share: float, freedom: int) -> float:
    """Where `student_share` is `share`, which is above 1/2."""
    # Newton from the normal quantile: left of the root of a concave function, so from one side
    t = NormalDist().inv_cdf(share)
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2))
    scale /= math.sqrt(freedom * math.pi)
    for _ in range(100):
        density = scale * (1 + t * t / freedom) ** (-(freedom + 1) / 2)
        step = (share - student_share(t, freedom)) / density
        t += step
        if step <= 1e-12 * t:
            break
    return t
