"""Decode, fingerprint and part writing under Ray against a process pool running the same function.

The same units of films, each round into pools of its own, interleaved; Ray is started
for its rounds and gone in the other's, and neither start is counted. Then a whole build, step by
step.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.curation.kills import world
from benchmarks.frame import Bar, at_least
from mixtures.recipe.load import load_recipe
from pipeline import build
from pipeline.jobs.progress import Step, Steps
from pipeline.jobs.ray_executor import connect
from pipeline.report.page import write_report
from pipeline.stages import decode_media, pending
from shards.pool import Pool, Receipt

ROUNDS, FILMS = 8, 192


def run(console: Console) -> list[Bar]:
    with tempfile.TemporaryDirectory(prefix="pipeline-") as folder:
        recipe = world(Path(folder), FILMS)
        pool = breakdown(console, recipe, Path(folder))
        units = film_units(pool)
        alone = one_by_one(units)
        console.print(f"{len(units)} units of {min(alone):.1f} to {max(alone):.1f} s of work")
        ratios = [one_round(console, pool, units, number % 2) for number in range(ROUNDS)]
        return [
            at_least("seconds of work in a side's rounds", sum(alone) * ROUNDS, 120),
            at_least("shortest unit, seconds", min(alone), 1),
            at_least("throughput: Ray / process pool, median", statistics.median(ratios), 0.9),
        ]


def film_units(pool: Pool) -> list[decode_media.MediaUnit]:
    """The full units of films that a build over this pool's media runs."""
    rows = pending.wanted_media(pool, pool.receipts("admit"))
    films = tuple(row for row in rows if row.kind == "video")
    size = pending.VIDEOS_PER_PART
    found = [films[at : at + size] for at in range(0, len(films) - size + 1, size)]
    return [
        decode_media.MediaUnit(pool=pool.store.url, stage="decode", rows=unit) for unit in found
    ]


def one_by_one(units: Sequence[decode_media.MediaUnit]) -> list[float]:
    """Seconds that each unit takes alone."""
    with tempfile.TemporaryDirectory(prefix="pool-", dir=Path(units[0].pool).parent) as folder:
        return [timed(lambda unit=unit: decode_media.decode(unit)) for unit in into(units, folder)]


def one_round(
    console: Console, pool: Pool, units: Sequence[decode_media.MediaUnit], first: int
) -> float:
    """Seconds of the process pool over seconds of Ray; `first` is 1 where Ray begins."""
    seconds = {}
    sides = (under_pool, under_ray)
    for side in (sides[first], sides[1 - first]):
        with tempfile.TemporaryDirectory(prefix="pool-", dir=Path(units[0].pool).parent) as folder:
            seconds[side] = side(into(units, folder))
            made = {receipt.work_id for receipt in Pool(folder).receipts("decode")}
            if len(made & {receipt.work_id for receipt in pool.receipts("decode")}) < len(units):
                raise AssertionError(f"{side.__name__} did other work than the build")
    console.print(f"process pool {seconds[under_pool]:.1f} s, Ray {seconds[under_ray]:.1f} s")
    return seconds[under_pool] / seconds[under_ray]


def into(units: Sequence[decode_media.MediaUnit], folder: str) -> list[decode_media.MediaUnit]:
    """The same units for another pool."""
    shutil.copy(Path(units[0].pool, "profile.json"), folder)
    return [replace(unit, pool=folder) for unit in units]


def under_pool(units: Sequence[decode_media.MediaUnit]) -> float:
    count = os.cpu_count() or 1
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as processes:
        list(processes.map(warm, range(2 * count)))
        return timed(lambda: list(processes.map(decode_media.decode, units)))


def under_ray(units: Sequence[decode_media.MediaUnit]) -> float:
    with connect(None) as workers:
        list(workers.map(warm, range(2 * (os.cpu_count() or 1))))
        return timed(lambda: list(workers.map(decode_media.decode, units)))


def warm(_: int) -> str:
    """Have a worker import what the stage needs; long enough that every worker gets one."""
    time.sleep(0.5)
    return decode_media.DECODE_VERSION


def timed(work: Callable[[], list[Any] | Receipt]) -> float:
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def breakdown(console: Console, recipe: Path, folder: Path) -> Pool:
    """A whole build, its seconds by step; returns its pool."""
    seconds: dict[str, float] = {}
    out, pool, begun = str(folder / "out"), str(folder / "pool"), time.monotonic()
    with mock.patch.object(build, "steps", lambda: recorded(seconds)):
        build.build(str(recipe), out, pool)
    seconds["report"] = timed(lambda: [write_report(out, pool)])
    whole = time.monotonic() - begun
    seconds["between: Ray's start, pinning"] = whole - sum(seconds.values())
    table = Table("step of the build", "seconds", "share")
    for name, value in (*seconds.items(), ("whole", whole)):
        table.add_row(name, f"{value:.1f}", f"{value / whole:.0%}")
    console.print(table)
    return Pool(pool, load_recipe(recipe).profile)


@contextmanager
def recorded(seconds: dict[str, float]) -> Iterator[Steps]:
    """Steps whose time is written down and shown nowhere."""
    with Progress(disable=True) as progress:
        yield _Recorded(progress, seconds)


class _Recorded(Steps):
    def __init__(self, progress: Progress, seconds: dict[str, float]) -> None:
        super().__init__(progress)
        self.seconds = seconds

    @contextmanager
    def step(self, name: str, note: str = "") -> Iterator[Step]:
        begun = time.monotonic()
        with super().step(name, note) as step:
            yield step
        self.seconds[name] = self.seconds.get(name, 0) + time.monotonic() - begun
