"""Learning-rate schedules, and how long a run is: functions of config, manifest and step.

Warm-up, then constant, linear, cosine (Loshchilov and Hutter, SGDR, 2017) or warmup-stable-decay
(MiniCPM, arXiv 2404.06395). They look at no loss, so that a resumed run finds the same rates.
"""

from __future__ import annotations

import math
from fractions import Fraction

from mixtures.manifest.manifest import Manifest
from shards.errors import UserError
from train.config import Config, Schedule, Stop


def total_steps(stop: Stop, manifest: Manifest, global_batch: int) -> int:
    """The step after which the run is complete.

    Tokens and epochs become steps by the manifest's own counts, which makes a step of
    `global_batch` packs worth the mean of so many packs.
    """
    if stop.steps is not None:
        return stop.steps
    # exact rationals: a step more or less would move every rate
    epochs = stop.epochs or Fraction(stop.tokens or 0, manifest.contents.totals.tokens)
    return math.ceil(epochs / share_of(manifest, 1) / global_batch)


def share_of(manifest: Manifest, packs: int) -> Fraction:
    """How much of what the manifest's length draws is in so many packs: more than 1 where it is
    passed over again. UserError where no pack of it is counted."""
    contents = manifest.contents
    if not contents.packs:
        raise UserError(
            f"manifest {manifest.manifest_id[:12]}: its length, {contents.length} samples, ends "
            f"within its first window of {contents.pack.window}, so that its packs are not counted;"
            " plan a longer one"
        )
    # packs are counted in whole windows, an endless order's last one is not: its samples are drawn
    # and in no counted pack
    packed = min(len(manifest.packs_per_window) * contents.pack.window, contents.length)
    return Fraction(packs * packed, contents.packs * contents.length)


def rate_share(schedule: Schedule, step: int, total: int) -> float:
    """The share of every part's `lr` at a step, counted from 0, of a run of `total` steps."""
    # counted from 1, so that the first step has a rate
    warmup = _steps(schedule.warmup, total)
    if step < warmup:
        return (step + 1) / warmup
    if schedule.kind == "constant":
        return 1.0
    # WSD (MiniCPM, arXiv 2404.06395): constant until the last steps, then linear
    start = total - _steps(schedule.decay, total) if schedule.kind == "wsd" else warmup
    done = min(max(step - start, 0) / max(total - start, 1), 1.0)
    # cosine annealing (Loshchilov and Hutter, SGDR, 2017), down to `floor`, without restarts
    left = (1 + math.cos(math.pi * done)) / 2 if schedule.kind == "cosine" else 1 - done
    return schedule.floor + (1 - schedule.floor) * left


def check_schedule(schedule: Schedule, total: int) -> None:
    """Raise UserError where warm-up and decay do not fit into `total` steps."""
    warmup = _steps(schedule.warmup, total)
    decay = _steps(schedule.decay, total) if schedule.kind == "wsd" else 0
    if warmup + decay > total:
        raise UserError(
            f"schedule: {warmup} steps of warmup and {decay} of decay do not fit into {total} "
            "steps; lower them, or raise `stop`"
        )


def check_length(manifest: Manifest, total: int, global_batch: int, where: str) -> None:
    """Raise UserError before any work if a finite order ends before the last step."""
    if not manifest.is_finite:
        return
    packs = sum(manifest.packs_per_window)
    wanted = total * global_batch
    # the last step may be short of packs, but not without any
    if packs + global_batch <= wanted:
        raise UserError(
            f"{where}: its order ends after {packs} packs, {total} steps of "
            f"{global_batch} want {wanted}; lower `stop`, or plan more repeats"
        )


def check_same_rates(config: Config, taken: int, before: int, now: int) -> None:
    """Raise UserError unless the `taken` steps of a run of `before` steps had the same rates in
    one of `now` steps: then its stop may be moved."""
    schedule = config.schedule
    # bit for bit: the same function at the same steps
    same = taken <= now and all(
        rate_share(schedule, step, before) == rate_share(schedule, step, now)
        for step in range(taken)
    )
    if not same:
        raise UserError(
            f"stop: the run was to end after {before} steps, now after {now}: under "
            f"`schedule: {{kind: {schedule.kind}}}` its first {taken} steps would have been "
            "others; set the stop of before, or give another --out"
        )


def _steps(amount: int | Fraction, total: int) -> int:
    return amount if isinstance(amount, int) else math.ceil(amount * total)
