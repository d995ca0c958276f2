"""How far a mixture strays from the recipe's exact weights, beside an independent draw per sample.

Errors are counted in samples against exact fractions of the weights as written, at every position:
10^6 of one mixture, and 2 x 10^5 of each of 200 mixtures of random weights. Peers that are
installed draw the same weights in the same run (`benchmarks/peers`).
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.frame import Bar, at_most, equal
from benchmarks.inputs.made_order import made_order
from benchmarks.peers import PeerUnavailable, ask
from mixtures.manifest.blocks import pack_numbers
from mixtures.manifest.draws import Draws
from mixtures.plan.quotas import mean_tokens
from mixtures.sums import group_sums
from shards.errors import UserError

POSITIONS, WINDOW = 10**6, 100
WEIGHTS = [Fraction(Decimal(w)) for w in "0.301 0.249 0.153 0.117 0.082 0.051 0.029 0.018".split()]
KEPT = [400_000, 300_000, 250_000, 90_000, 60_000, 50_000, 40_000, 1_803]
LARGE = [1_803, 2_400_000, 1_900_000, 1_200_000, 700_000, 300_000, 130_000, 48_197]
MEANS = [120, 240, 700, 1500, 3000, 5200, 6000, 400]
PEERS = ("mosaicml", "litdata")
STEPS, GLOBAL_BATCH = 6_000, 48
TOKENS = 10**10
VECTORS, DRAWS = 200, 200_000


def run(console: Console) -> list[Bar]:
    table = Table("draw", "off at a prefix, at most", f"off in a window of {WINDOW}, at most")
    weighted = made_order(KEPT, "weight", WEIGHTS)
    ours = off(source_at(Draws(weighted), POSITIONS), WEIGHTS)
    table.add_row("weights", *map(_shown, ours))
    finite = made_order(LARGE, "repeat", [Fraction(1)] * len(LARGE))
    draws, total = Draws(finite), sum(LARGE)
    sources = source_at(draws, total)
    shares = [Fraction(kept, total) for kept in LARGE]
    small = off(sources, shares)
    table.add_row(f"repeat: 1, {total:,} samples, one source of 1,803", *map(_shown, small))
    rng = np.random.default_rng(0)
    drawn = rng.choice(len(WEIGHTS), POSITIONS, p=[float(w) for w in WEIGHTS])
    table.add_row("independent draws", *map(_shown, off(drawn, WEIGHTS)))
    bars = [
        _below("weights: off at a prefix, samples", ours[0], 1),
        _below("weights: off in a window of 100, samples", ours[1], 2),
        _below("1,803 among 6.68M: off at a prefix, samples", small[0], 1),
        _below("1,803 among 6.68M: off in a window of 100, samples", small[1], 2),
        equal("repeat 1: samples not visited exactly once", not_once(draws, total), 0),
        *random_weights(table),
    ]
    bars += [_beside(table, peer, float(ours[0])) for peer in PEERS]
    console.print(table)
    return [*bars, *token_shares(console)]


def source_at(draws: Draws, stop: int) -> NDArray[np.int64]:
    """The source at positions 0..stop-1."""
    step = 1 << 18
    parts = [draws.draw(a, min(a + step, stop)).source for a in range(0, stop, step)]
    return np.concatenate(parts)


def off(source: NDArray[np.integer], shares: Sequence[Fraction]) -> tuple[Fraction, Fraction]:
    """The furthest that any source is from its share, at any prefix and in any window."""
    n = np.arange(len(source) + 1, dtype=np.int64)
    prefix, window = Fraction(0), Fraction(0)
    for i, share in enumerate(shares):
        counts = np.concatenate([[0], np.cumsum(source == i)])
        ahead = counts * share.denominator - n * share.numerator
        moved = ahead[WINDOW:] - ahead[:-WINDOW]
        prefix = max(prefix, Fraction(int(abs(ahead).max()), share.denominator))
        window = max(window, Fraction(int(abs(moved).max()), share.denominator))
    return prefix, window


def random_weights(table: Table) -> list[Bar]:
    """The furthest off of many mixtures of 2 to 40 sources, weights 1 to 9,999; none refused."""
    rng, prefix, window, refused = np.random.default_rng(4), Fraction(0), Fraction(0), 0
    for _ in range(VECTORS):
        weights = rng.integers(1, 10_000, rng.integers(2, 41)).tolist()
        try:
            made = made_order(
                [10] * len(weights), "weight", [Fraction(w) for w in weights], length=DRAWS
            )
        except UserError:
            refused += 1
            continue
        found = off(made.source_at, [Fraction(w, sum(weights)) for w in weights])
        prefix, window = max(prefix, found[0]), max(window, found[1])
    table.add_row(f"{VECTORS} random weights, {DRAWS:,} draws", _shown(prefix), _shown(window))
    return [
        _below("random weights: off at a prefix, samples", prefix, 1),
        _below("random weights: off in a window of 100, samples", window, 2),
        equal("random weights: mixtures refused", refused, 0),
    ]


def not_once(draws: Draws, total: int) -> int:
    """Kept samples that positions 0..total-1 do not show exactly once."""
    seen = [np.zeros(kept, np.int64) for kept in LARGE]
    step = 1 << 18
    for start in range(0, total, step):
        draw = draws.draw(start, min(start + step, total))
        for i, counts in enumerate(seen):
            counts += np.bincount(draw.row[draw.source == i], minlength=len(counts))
    return int(sum((counts != 1).sum() for counts in seen))


def token_shares(console: Console) -> list[Bar]:
    """`unit: tokens`: what share of the tokens each source has had, every 1,000 steps."""
    manifest = made_order(KEPT, "weight", WEIGHTS, unit="tokens", means=MEANS, length=TOKENS)
    draws, sums, start = Draws(manifest), np.zeros(len(WEIGHTS), np.int64), 0
    wanted = np.array([float(w) for w in WEIGHTS])
    table = Table("steps", *(f"{float(w):.1%}" for w in WEIGHTS), title="share of the tokens")
    worst, relative = 0.0, 0.0
    size, packs, step = manifest.pack.window * 64, 0, 1000
    while step <= STEPS:
        draw = draws.draw(start, start + size)
        records, start = draws.records(draw), start + size
        sums += group_sums(records["tokens"], draw.source, len(sums))
        packs += sum(int(numbers.max()) + 1 for numbers in pack_numbers(records, manifest.pack))
        if packs < step * GLOBAL_BATCH:
            continue
        share = sums / sums.sum()
        worst = max(worst, float(abs(share - wanted).max()))
        relative = max(relative, float((abs(share - wanted) / wanted).max()))
        table.add_row(str(step), *(f"{each:.2%}" for each in share))
        step += 1000
    console.print(table)
    console.print(f"furthest off relative to its share: {relative:.2%}")
    means = [float(mean_tokens(each)) for each in manifest.tables]
    console.print(f"mean tokens of the sources: {', '.join(f'{mean:.0f}' for mean in means)}")
    return [
        at_most("tokens: off a share at every 1,000 steps, percentage points", worst * 100, 0.5),
    ]


def _shown(value: Fraction) -> str:
    return f"{float(value):.4f}"


def _below(what: str, value: Fraction, bar: int) -> Bar:
    return Bar(what=what, value=float(value), bar=f"< {bar}", holds=value < bar)


def _beside(table: Table, peer: str, ours: float) -> Bar:
    """A peer's draw of the same weights, as far off as it strays; ours must be nearer."""
    what = f"off at a prefix, ours / {peer}"
    try:
        weights = [[w.numerator, w.denominator] for w in WEIGHTS]
        request = {"do": "mixture", "weights": weights, "kept": KEPT, "positions": POSITIONS}
        (answer,) = ask(peer, request, "order")
    except PeerUnavailable as error:
        return Bar(what=what, value=None, bar="<= 1", holds=False, why=str(error))
    strayed = off(np.array(answer["source"]), WEIGHTS)
    table.add_row(f"{peer} ({len(answer['source']):,} positions)", *map(_shown, strayed))
    return at_most(what, ours / float(strayed[0]), 1)
