"""An ablation for people: what it takes, what differs, what the differences are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from rich.table import Table

from train.ablation.ablate import Ablation, Standing, same_samples
from train.ablation.comparisons import Comparison, comparisons
from train.ablation.plans import PlannedRun
from train.ablation.results import Result
from train.dry_run import MFU, PEAK

GB = 1e9


def takes(standing: Standing) -> Iterator[Table | str]:
    """What the runs take, before any begins."""
    runs = standing.runs
    table = Table("variant", "seed", "steps", "supervised", "tokens", "hours", "GB", "state")
    speed, at = _speed(list(standing.there.values()))
    for run in runs:
        result = standing.there.get(run.key_id)
        table.add_row(
            run.variant,
            str(run.seed),
            f"{run.steps:,}",
            f"{run.supervised:,}",
            f"{run.tokens:,}",
            f"{run.flops / speed / 3600:.2g}",
            f"{run.nbytes / GB:.2f}",
            "to do" if result is None else "there",
        )
    yield table
    left = standing.open
    fewest, most = min(run.supervised for run in runs), max(run.supervised for run in runs)
    yield (
        f"{len(runs)} runs, {len(left)} to do: {sum(run.tokens for run in left):,} tokens, "
        f"{sum(run.flops for run in left) / speed / 3600:,.2g} hours ({at}), "
        f"{sum(run.nbytes for run in left) / GB:,.2f} GB"
    )
    yield from _features(runs)
    for variant, lines in same_samples(runs).items():
        yield from (f"{variant}, {line}: raise `budget`, or remove it" for line in lines)
    yield f"equal budget: every run has {fewest:,} to {most:,} supervised tokens, in whole steps"


def _features(runs: Sequence[PlannedRun]) -> Iterator[str]:
    """How large the feature cache of a grid may grow, where it has one."""
    # seeds of a variant show the same frames
    sizes = {run.variant: run.feature_bytes for run in runs if run.feature_bytes}
    if sizes:
        yield (
            f"feature_cache: at most {max(sizes.values()) / GB:,.3g} GB where the {len(sizes)} "
            f"variants that use it show the same frames, {sum(sizes.values()) / GB:,.3g} GB where "
            "no two do; held-out samples besides"
        )


def _speed(results: Sequence[Result]) -> tuple[float, str]:
    """(operations a second, where that is from)."""
    seconds = sum(float(one.seconds) for one in results if not one.diverged)
    if not seconds:
        return MFU * PEAK, f"on one GPU at {MFU:.0%} MFU of {PEAK / 1e12:.0f} TFLOP/s"
    done = sum(float(one.flops) for one in results if not one.diverged)
    return done / seconds, f"as fast as the {len(results)} runs that are there, one at a time"


def says(ablation: Ablation, results: Sequence[Result], code: str) -> Iterator[Table | str]:
    """What came out: the variants, and every difference from the base."""
    yield variants_table(ablation, results)
    yield from notes(results, code)
    found = comparisons(results, ablation.names)
    yield comparison_table([one for one in found if not one.part], "differences from the base")
    parts = [one for one in found if one.part]
    if parts:
        yield comparison_table(parts, "by source and by type of question: described, not claimed")
    yield (
        f"{ablation.supervised:,} supervised tokens each; differences are paired by seed and item, "
        "intervals (95 %) count seeds and clips, claims are corrected together (Holm)"
    )


def variants_table(ablation: Ablation, results: Sequence[Result]) -> Table:
    """What differs in the model and in the data, and what it cost."""
    table = Table("variant", "changed", "in the data")
    for name in ("runs", "tokens", "TFLOP", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    for variant in ablation.variants:
        runs = [result for result in results if result.variant == variant.name]
        ended = [result for result in runs if not result.diverged]
        wanted = sum(name == variant.name for name, _, _ in ablation.runs)
        table.add_row(
            variant.name,
            "; ".join(variant.changes),
            "; ".join(variant.differs),
            f"{len(ended)} of {wanted}",
            _mean([result.tokens for result in ended]),
            _mean([float(result.flops) / 1e12 for result in ended]),
            _mean([float(result.seconds) for result in ended]),
        )
    return table


def notes(results: Sequence[Result], code: str) -> Iterator[str]:
    """What is to be known of some runs."""
    others: dict[str, list[str]] = {}
    for one in results:
        if one.diverged:
            yield f"{one.variant}, seed {one.seed}: diverged at {one.diverged}; in no difference"
        if one.code != code:
            others.setdefault(one.code, []).append(f"{one.variant} {one.seed}")
    for other, names in others.items():
        told = ", ".join(names) if len(names) < len(results) else "all runs"
        yield f"made by other code ({other[:8]}), repeated with --again: {told}"


def _mean(differences: Sequence[float]) -> str:
    return f"{fmean(differences):,.0f}" if differences else ""


def comparison_table(compared: Sequence[Comparison], title: str) -> Table:
    """A row for each comparison."""
    table = Table(title=title)
    for name in ("measure", "part", "variant"):
        if name != "part" or any(comparison.part for comparison in compared):
            table.add_column(name, overflow="fold")
    # where there is little room names and verdicts go over several lines, numbers never
    for name in ("base", "difference", "95 %", "seeds", "items"):
        table.add_column(name, justify="right", no_wrap=True)
    # of parts there is none
    if has_verdicts := any(comparison.verdict for comparison in compared):
        table.add_column("verdict")
    for comparison in compared:
        difference = comparison.difference
        table.add_row(
            comparison.measure,
            *([comparison.part] if any(each.part for each in compared) else []),
            comparison.variant,
            f"{comparison.base:.4f}",
            f"{difference.mean:+.4f}",
            interval(comparison),
            str(difference.seeds),
            str(comparison.items),
            *([verdict(comparison)] if has_verdicts else []),
        )
    return table


def interval(comparison: Comparison) -> str:
    """Where the difference lies."""
    found = comparison.difference.interval
    return "" if found is None else f"{found[0]:+.4f}..{found[1]:+.4f}"


def verdict(comparison: Comparison) -> str:
    """What may be said, with the corrected level of a claim that may be made."""
    return (
        comparison.verdict
        if comparison.level is None
        else f"{comparison.verdict} (p {comparison.level:.3g})"
    )
