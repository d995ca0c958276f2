"""Where the time of a few steps goes: a Chrome trace of each rank, by torch's own profiler.

OUT/profile/steps-3-to-5-rank-0.json    opens in https://ui.perfetto.dev
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from shards.errors import UserError

FOLDER = "profile"
BEFORE = 2
"""Steps of a start that are not traced: the first one warms up, the second one the profiler."""


def check_trace(steps: int, steps_left: int) -> None:
    """Raise UserError where a run has not so many steps left."""
    if steps and steps_left < steps + BEFORE:
        raise UserError(
            f"--profile {steps}: {steps_left} steps are left, of which the first {BEFORE} are not "
            "traced; ask for fewer"
        )


@contextmanager
def traced(steps: int, out: Path, rank: int, done: int) -> Iterator[Callable[[], None]]:
    """A function to call behind each step; so many steps are traced if any are asked for."""
    if not steps:
        yield lambda: None
        return
    first = done + BEFORE + 1
    path = out / FOLDER / f"steps-{first}-to-{first + steps - 1}-rank-{rank}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    kinds = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        kinds.append(ProfilerActivity.CUDA)
    # the profiler's own warm-up is thrown away: its first step is slowed by the start of tracing
    when = schedule(wait=1, warmup=BEFORE - 1, active=steps, repeat=1)
    with profile(
        activities=kinds,
        schedule=when,
        on_trace_ready=lambda made: made.export_chrome_trace(str(path)),
        # shapes tell which pack a kernel was slow on
        record_shapes=True,
    ) as profiler:
        yield profiler.step
