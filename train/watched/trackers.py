"""The figures of metrics.jsonl and held_out.jsonl in experiment trackers, while a run goes.

    OUT/tensorboard    `tensorboard --logdir OUT/tensorboard`
    OUT/wandb          an offline run for each start; `wandb sync` makes one of them

Neither library comes with the trainer, and neither is asked for before a run names it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from shards.errors import UserError
from shards.ids import short_hash

TRACKERS = ("tensorboard", "wandb")


class Tracker(Protocol):
    """Takes the figures of a step, and closes what it holds."""

    def write(self, step: int, told: Mapping[str, float]) -> None:
        """Of one step, by name."""
        ...

    def close(self) -> None:
        """Nothing comes any more."""
        ...


class TensorBoard:
    """Event files; what an earlier start wrote beyond `done` is hidden by them."""

    def __init__(self, out: Path, done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # steps that a crash took back are drawn once: the reader hides events from `purge_step` on
        self._writer: Any = SummaryWriter(out / "tensorboard", purge_step=done + 1)

    def write(self, step: int, told: Mapping[str, float]) -> None:
        """One scalar for each name."""
        for name, value in told.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush the events."""
        self._writer.close()


class WeightsAndBiases:
    """An offline run; the starts of one OUT have one id, and become one run when synced."""

    def __init__(self, out: Path, _done: int) -> None:
        import wandb

        self._run: Any = wandb.init(
            project="slowfast-mix",
            # the folder names the run: every start of one --out goes on under one id
            id=short_hash(["wandb", str(out.absolute())])[:16],
            name=out.name,
            dir=out,
            mode="offline",
            settings=wandb.Settings(console="off", silent=True),
        )
        # steps that are taken again after a crash come twice: the last one is drawn
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, told: Mapping[str, float]) -> None:
        """All names at once."""
        self._run.log({"step": step, **told})

    def close(self) -> None:
        """Write what is left to the disk."""
        self._run.finish()


_KINDS: dict[str, Callable[[Path, int], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
}


def check_trackers(names: Sequence[str]) -> None:
    """Raise UserError for a tracker whose library is not installed."""
    for name in names:
        spec = find_spec(name)
        # a folder of this name, such as one that an earlier run left, is no library
        if spec is None or spec.origin is None:
            raise UserError(f"--track {name}: not installed; pip install {name}")


@contextmanager
def tracked(
    names: Sequence[str], out: Path, done: int
) -> Iterator[Callable[[Mapping[str, Any], str], None]]:
    """A function that tells the trackers of these names of a row, its names prefixed; of a run of
    which `done` steps are done."""
    with ExitStack() as stack:
        trackers: list[Tracker] = []
        for name in names:
            trackers.append(_KINDS[name](out, done))
            stack.callback(trackers[-1].close)

        def tell(row: Mapping[str, Any], prefix: str) -> None:
            for tracker in trackers:
                tracker.write(row["step"], scalars(row, prefix))

        yield tell


def scalars(row: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The finite numbers of a row; `by_source` becomes loss/SOURCE."""
    numbers: dict[str, float] = {}
    for name, value in row.items():
        if name == "by_source":
            # a slash groups curves in both libraries
            numbers |= scalars(value, f"{prefix}loss/")
        elif name != "step" and isinstance(value, int | float) and math.isfinite(value):
            numbers[prefix + name] = float(value)
    return numbers
