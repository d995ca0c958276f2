"""The bar of a run: what its last step was like, in a line."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from mixtures.console import Console


@contextmanager
def progress(
    total: int, done: int, *, visible: bool
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A bar with what the last step was like; yields the function to call with each step's row."""
    columns = (
        TextColumn("train"),
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[told]}", table_column=Column(no_wrap=True)),
    )
    # on stderr: stdout is for what a command answers
    bar = Progress(*columns, console=Console(stderr=True), disable=not visible)
    with bar:
        task = bar.add_task("train", total=total, completed=done, told="")
        yield lambda row: bar.update(task, advance=1, told=line(row))


def line(row: Mapping[str, Any]) -> str:
    """A step in a line: loss, speed, use of the device, wait for data, fill, memory."""
    share = row["data_seconds"] / (row["data_seconds"] + row["compute_seconds"])
    # a step that was skipped for its loss has none to show: the log says why
    loss = f"loss {row['loss']:.3f} " if math.isfinite(row["loss"]) else "no loss, "
    # no peak is known of this device
    use = "" if row["mfu"] is None else f"MFU {row['mfu']:.0%} HFU {row['hfu']:.0%} "
    return (
        f"{loss}{row['tokens_per_second']:,.0f} tokens/s {use}"
        f"wait {share:.0%} fill {row['fill']:.0%} {row['memory_bytes'] / 2**30:.1f} GiB"
    )
