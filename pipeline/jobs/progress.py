"""One honest bar per step of a long job: units done of units to do, and what was done before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mixtures.console import Console


class Step:
    """The bar of one step; `begin` says how many units it has."""

    def __init__(self, progress: Progress, name: str) -> None:
        self.progress = progress
        self.task = progress.add_task(name, total=None, note="")

    def begin(self, total: int, note: str = "") -> None:
        """Start the clock; `total` units are to be done, `note` says what was done before."""
        self.progress.update(self.task, total=total, note=note)
        self.progress.start_task(self.task)

    def advance(self, amount: int = 1) -> None:
        """Some units more are done."""
        self.progress.advance(self.task, amount)


class Steps:
    """Makes the bars of a job."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        self.progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def step(self, name: str, note: str = "") -> Iterator[Step]:
        """A bar that ends full, whatever its units were."""
        step = Step(self.progress, name)
        # a step without units, or of one unit, is full when it ends
        step.begin(1, note)
        yield step
        task = self.progress.tasks[step.task]
        self.progress.update(step.task, completed=task.total)


@contextmanager
def steps() -> Iterator[Steps]:
    """Bars on the terminal's error stream; plain lines are left when it is not a terminal."""
    # rich draws on stderr: stdout is for what a command prints
    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield Steps(progress)
