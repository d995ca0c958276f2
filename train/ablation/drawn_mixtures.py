"""Mixtures drawn around a base, as RegMix does (Liu et al., arXiv 2407.01492): from a Dirichlet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from train.ablation.grid import Mixtures, Variant

PARTS = 1000
"""Weights are written in thousandths of their sum."""


def drawn_shares(drawing: Mixtures, around: Sequence[Fraction]) -> Iterator[list[int]]:
    """Shares of each mixture in thousandths, around those of the base; each a draw of its own."""
    total = float(drawing.concentration or len(around))
    for number in range(drawing.count):
        # a generator for each draw: of a higher count the first ones stay as they are
        generator = np.random.Generator(np.random.Philox(key=[drawing.seed, number]))
        # the mean of this Dirichlet is the base; the higher the total, the nearer the draws
        yield in_thousandths(generator.dirichlet([total * float(share) for share in around]))


def in_thousandths(mixture: NDArray[np.float64]) -> list[int]:
    """Shares as whole parts, of a sum of PARTS."""
    exact = mixture / mixture.sum() * PARTS
    found = np.floor(exact).astype(int)
    # Hamilton's method: what is left over goes to the largest remainders
    order = np.argsort(found - exact, kind="stable")
    found[order[: PARTS - found.sum()]] += 1
    return [int(one) for one in found]


def with_weights(name: str, thousandths: Mapping[str, int]) -> Variant:
    """A variant whose sources have these weights; one without any is left out."""
    return Variant(
        name=name,
        sources={
            one: {"weight": Decimal(count) / PARTS} for one, count in thousandths.items() if count
        },
        leave_out=tuple(one for one, count in thousandths.items() if not count),
    )


def drawn_variants(drawing: Mixtures, around: Mapping[str, Fraction]) -> Iterator[Variant]:
    """A variant for each draw around the base's shares of its sources."""
    for number, drawn in enumerate(drawn_shares(drawing, list(around.values())), 1):
        yield with_weights(f"mixture_{number}", dict(zip(around, drawn, strict=True)))
