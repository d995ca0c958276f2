"""Guards each step: one whose loss or gradient is not finite, or far above its like, is not
taken, and its samples are named.

PaLM's authors went back and skipped the batches of a loss spike (arXiv 2204.02311, section 5.1);
here the step of such a batch is not taken in the first place.

    OUT/skipped.jsonl    a line for each such step: step, why, loss, norm, samples
"""

from __future__ import annotations

import math
from collections import deque
from pathlib import Path
from statistics import fmean, pstdev
from typing import TypedDict

from mixtures.manifest.manifest import Manifest
from mixtures.manifest.sampler import BatchSampler
from shards.errors import UserError
from train.config import Guard

SKIPPED = "skipped.jsonl"
MOST, LEAST = 200, 50
"""Losses that a step is compared with: the last ones, and no comparison before so many."""


class GuardState(TypedDict):
    """As JSON, what a checkpoint keeps: the last losses of taken steps, and steps not taken.

    Losses are written as `float.hex` does, to the bit: canonical JSON has no floats.
    """

    losses: list[str]
    skipped: int


class StepGuard:
    """Judges each step before it is taken, on every rank alike: all hold the same numbers."""

    def __init__(self, rule: Guard) -> None:
        self.rule = rule
        self.losses: deque[float] = deque(maxlen=MOST)
        self.skipped = 0

    def objection(self, loss: float, norm: float) -> str:
        """Why a step of this loss and gradient norm is not to be taken; nothing if it is."""
        # NaN passes every comparison below: finiteness comes first
        for what, value in (("loss", loss), ("gradient norm", norm)):
            if not math.isfinite(value):
                return f"its {what} is {value}"
        # a deviation of a few losses, and of the steep first ones, says nothing
        if len(self.losses) < LEAST:
            return ""
        # of taken steps only: one spike must not make the next one look usual
        mean, deviation = fmean(self.losses), pstdev(self.losses)
        # one-sided: a loss far below its like is no harm
        if loss <= mean + self.rule.spike * deviation:
            return ""
        far = f"{(loss - mean) / deviation:.1f} deviations" if deviation else "any deviation"
        return f"its loss {loss:.4g} is {far} above the {mean:.4g} of the last {len(self.losses)}"

    def took(self, loss: float) -> None:
        """A step of this loss was taken."""
        self.losses.append(loss)

    def refuse(self, step: int, why: str, where: Path) -> None:
        """Count a step that was not taken; UserError if the run ends there."""
        self.skipped += 1
        # counted over the whole run, restarts included: many skipped steps are a fault of the data
        # or the rate
        if self.rule.policy == "stop" or self.skipped > self.rule.at_most:
            raise UserError(
                f"step {step}: {why}; it was not taken, its samples are in {where}; look at them, "
                f"then go on with `guard: {{policy: skip, at_most: {self.skipped}}}` or a lower "
                "rate, or, if that loss is usual, a higher `guard: {spike: ...}`"
            )

    def state(self) -> GuardState:
        """What a resumed run needs to judge as this one would."""
        return {"losses": [loss.hex() for loss in self.losses], "skipped": self.skipped}

    def load(self, state: GuardState) -> None:
        """Go on judging where `state` was taken."""
        self.losses.extend(map(float.fromhex, state["losses"]))
        self.skipped = state["skipped"]


def samples_of(
    manifest: Manifest, step: int, start: tuple[int, int], global_batch: int
) -> list[dict[str, str]]:
    """Key and source of every sample of a step, as the order names them; `start` is the step's
    `BatchSampler.place_of`."""
    order = BatchSampler(manifest, global_batch)
    # counted from the step's own window: the order need not be walked from its beginning
    order.go_on(step, *start)
    drawn = [one for pack in order.batch(step, 0, 1) for one in pack]
    return [{"key": one.key, "source": one.source} for one in drawn]
