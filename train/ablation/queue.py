"""The runs of a grid, some at once, each `train run` and then `train evaluate` in its own folder.

    DIR/runs/VARIANT.SEED.KEY/    what `train run` writes, scores.json, output.log

What is killed goes on where it was; a run whose folder says that it diverged is not tried again.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import STDOUT, Popen
from types import FrameType

from mixtures.manifest.files import MANIFEST
from train.ablation.grid import Grid
from train.ablation.plans import CONFIG, PlannedRun, benchmark_words
from train.ablation.results import SCORES, divergence
from train.run_folder.record import RUN

LOG = "output.log"
GRACE = 600.0
"""Seconds in which runs may save when the queue is asked to stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where runs go: so many at once, each on `ranks` of a Ray cluster (0: this machine), with a
    GPU of its own where this machine has some."""

    out: Path
    at_once: int
    ranks: int
    gpus: int


@dataclass(slots=True, kw_only=True)
class _Active:
    """A run under way: its next commands, and the process of the one at work."""

    run: PlannedRun
    commands: list[list[str]]
    gpu: int
    process: Popen[bytes] | None = None


@dataclass(slots=True, kw_only=True)
class _Signals:
    """What this process was asked, while it waits."""

    received: list[int] = field(default_factory=list)

    def note(self, number: int, _: FrameType | None) -> None:
        """A handler."""
        self.received.append(number)


def folder_of(out: Path, run: PlannedRun) -> Path:
    """Where a run is trained."""
    return out / "runs" / run.name


def train_all(
    grid: Grid,
    runs: Sequence[PlannedRun],
    places: Places,
    done: Callable[[PlannedRun, Path], None],
) -> list[str]:
    """Train and score every run; `done` is told of each that ended or diverged, in any order.

    A line for each that failed. SystemExit with 143 where a signal asked to stop.
    """
    waiting, active, failed = list(runs), list[_Active](), list[str]()
    with _listening() as signals:
        while waiting or active:
            while waiting and len(active) < places.at_once and not signals.received:
                active.append(_begin(grid, waiting.pop(0), places, active))
            if signals.received:
                _stop(active)
                sys.exit(128 + signals.received[0])
            for ended in [ended for ended in active if _has_ended(ended, places)]:
                active.remove(ended)
                folder = folder_of(places.out, ended.run)
                if ended.process is None or divergence(folder):
                    done(ended.run, folder)
                else:
                    failed.append(_why(ended, folder))
            time.sleep(0.05)
    return failed


def _begin(grid: Grid, run: PlannedRun, places: Places, active: Sequence[_Active]) -> _Active:
    taken = {one.gpu for one in active}
    gpu = next((n for n in range(places.gpus) if n not in taken), -1)
    commands = list(_commands(grid, run, places))
    return _Active(run=run, commands=commands, gpu=gpu)


def _commands(grid: Grid, run: PlannedRun, places: Places) -> Iterator[list[str]]:
    """What is left to be done of a run, as words behind `python -m train`."""
    folder = folder_of(places.out, run)
    on_ray = ["--ray", str(places.ranks)] if places.ranks else []
    if not (folder / RUN).is_file():
        manifest = str(run.folder / MANIFEST)
        words = ["run", str(run.folder / CONFIG), "--manifest", manifest, "--data", grid.pool]
        yield [*words, "--out", str(folder), *on_ray]
    if (grid.tasks or grid.benchmarks) and not (folder / SCORES).is_file():
        words = ["evaluate", "--model", str(folder / "model"), "--out", str(folder / SCORES)]
        words += ["--tasks", *grid.tasks] if grid.tasks else []
        words += ["--benchmark", *benchmark_words(grid)] if grid.benchmarks else []
        words += ["--relevance", run.relevance] if run.relevance else []
        yield [*words, "--pathways", run.pathways, *grid.floors, *on_ray]


def _has_ended(active: _Active, places: Places) -> bool:
    """Whether nothing of a run is left to be done, or its command failed; the next is started."""
    if active.process is not None:
        status = active.process.poll()
        if status is None:
            return False
        if status:
            return True
        active.process = None
    if not active.commands:
        return True
    active.process = _start(active.commands.pop(0), active, places)
    return False


def _start(words: Sequence[str], active: _Active, places: Places) -> Popen[bytes]:
    folder = folder_of(places.out, active.run)
    folder.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ)
    if active.gpu >= 0:
        environment["CUDA_VISIBLE_DEVICES"] = str(active.gpu)
    elif not places.ranks:
        # runs beside each other share the cores
        threads = max((os.cpu_count() or 1) // places.at_once, 1)
        environment.setdefault("OMP_NUM_THREADS", str(threads))
    command = [sys.executable, "-m", "train.ablation.parent_death", str(os.getpid()), *words]
    with (folder / LOG).open("ab") as log:
        return Popen(  # noqa: S603
            command, stdout=log, stderr=STDOUT, env=environment
        )


def _stop(active: Sequence[_Active]) -> None:
    """Runs save behind the step at hand, and end."""
    there = [one.process for one in active if one.process is not None]
    for process in there:
        process.send_signal(signal.SIGTERM)
    for process in there:
        process.wait(GRACE)


def _why(active: _Active, folder: Path) -> str:
    """The last thing that a failed run said."""
    text = (folder / LOG).read_text(errors="replace")
    errors = [line for line in text.splitlines() if line.startswith("error: ")]
    said = errors[-1].removeprefix("error: ") if errors else f"see {folder / LOG}"
    status = active.process.returncode if active.process is not None else 0
    return f"{active.run.variant}, seed {active.run.seed}: ended with status {status}: {said}"


@contextmanager
def _listening() -> Iterator[_Signals]:
    """Inside, SIGTERM and SIGINT are noted."""
    signals = _Signals()
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {one: signal.signal(one, signals.note) for one in numbers}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
