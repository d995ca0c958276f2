"""What the results of a grid say: every variant beside its base, measure by measure.

Differences are paired: the same seed, hence the same order of what both keep, and the same items.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from train.ablation.grid import BASE
from train.ablation.results import Result, ScoredQuestions
from train.ablation.seed_statistics import CLAIMS_FROM, LEVEL, Difference, difference, holm

HELD_OUT = "held-out loss"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing that a model is measured on: its clip, its value, and what that weighs."""

    clip: str
    value: float
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One figure of a result: the weighted mean of its items, by their ids.

    Of a part of a figure (a source, a type of question) `part` is its name; nothing is claimed of
    these.
    """

    name: str
    part: str
    items: Mapping[str, Item]

    @property
    def mean(self) -> float:
        """The figure."""
        total = sum(item.weight for item in self.items.values())
        return sum(item.weight * item.value for item in self.items.values()) / total

    @property
    def less_is_better(self) -> bool:
        """Of losses."""
        return self.name == HELD_OUT


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A variant and its base in one measure, over the seeds and `items` that both have.

    `level` is the p-value, corrected for all claims of the grid; None where none may be made.
    """

    variant: str
    measure: str
    part: str
    base: float
    difference: Difference
    items: int
    less_is_better: bool
    level: float | None = None

    @property
    def verdict(self) -> str:
        """What may be said of it."""
        seeds = self.difference.seeds
        if self.part:
            return ""
        if self.level is None:
            return f"no claim: {seeds} of {CLAIMS_FROM} seeds"
        if self.level >= LEVEL:
            return "no difference shown"
        return "better" if (self.difference.mean < 0) == self.less_is_better else "worse"


def measures_of(result: Result) -> dict[tuple[str, str], Measure]:
    """Every figure of a result by name and part."""
    # a supervised token weighs as much as any other: so the mean is the loss per token
    rows = {
        key: (source, Item(clip=clip, value=float(loss) / tokens, weight=tokens))
        for key, clip, source, loss, tokens in result.held_out
        if tokens
    }
    found = list(_parted(HELD_OUT, rows))
    for name, asked in result.asked.items():
        found += _parted(name, _credits(asked))
    return {(one.name, one.part): one for one in found if one.items}


def _credits(scored: ScoredQuestions) -> dict[str, tuple[str, Item]]:
    sizes = Counter(scored.groups)
    columns = zip(scored.ids, scored.clips, scored.groups, scored.credits_, strict=True)
    # where the authors average over groups, each of them weighs the same
    return {
        each: (
            group,
            Item(
                clip=clip,
                value=float(credit),
                weight=1 / sizes[group] if scored.mean_of_groups else 1.0,
            ),
        )
        for each, clip, group, credit in columns
    }


def _parted(name: str, rows: Mapping[str, tuple[str, Item]]) -> Iterator[Measure]:
    """The figure over all rows, and over those of each part where there are several."""
    parts = sorted({part for part, _ in rows.values()})
    for wanted in ("", *(parts if len(parts) > 1 else ())):
        items = {key: item for key, (part, item) in rows.items() if wanted in ("", part)}
        yield Measure(name=name, part=wanted, items=items)


def comparisons(results: Sequence[Result], variants: Sequence[str]) -> list[Comparison]:
    """Every variant beside the base, in the order of `variants`; claims are corrected together."""
    by_run = {
        (result.variant, result.seed): measures_of(result)
        for result in results
        if not result.diverged
    }
    names = dict.fromkeys(name for measures in by_run.values() for name in measures)
    per_variant = [
        comparison
        for variant in variants
        if variant != BASE
        for name in names
        if (comparison := _compared(by_run, variant, name)) is not None
    ]
    return _claimed(per_variant)


def _compared(
    by_run: Mapping[tuple[str, int], Mapping[tuple[str, str], Measure]],
    variant: str,
    name: tuple[str, str],
) -> Comparison | None:
    """None where no seed has this measure of both."""
    pairs = [
        (by_run[BASE, seed][name], measures[name])
        for (who, seed), measures in sorted(by_run.items())
        if who == variant and name in measures and name in by_run.get((BASE, seed), {})
    ]
    # what one of them could not be asked is in no difference
    common = (
        [key for key in pairs[0][0].items if all(key in m.items for p in pairs for m in p)]
        if pairs
        else []
    )
    if not common:
        return None
    first = pairs[0][0]
    weights = np.array([float(first.items[key].weight) for key in common])
    base, varied = (
        np.array([[pair[side].items[key].value for key in common] for pair in pairs])
        for side in (0, 1)
    )
    weights *= len(common) / weights.sum()
    return Comparison(
        variant=variant,
        measure=name[0],
        part=name[1],
        base=float((weights * base).mean()),
        difference=difference(weights * (varied - base), [first.items[key].clip for key in common]),
        items=len(common),
        less_is_better=first.less_is_better,
    )


def _claimed(compared: Sequence[Comparison]) -> list[Comparison]:
    """With the levels of those that may be claimed, corrected for how many they are."""
    levels = {
        place: one.difference.level
        for place, one in enumerate(compared)
        if not one.part and one.difference.seeds >= CLAIMS_FROM
    }
    known = {place: level for place, level in levels.items() if level is not None}
    corrected = dict(zip(known, holm(list(known.values())), strict=True))
    return [replace(one, level=corrected.get(place)) for place, one in enumerate(compared)]
