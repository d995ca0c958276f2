"""The same global batches on any number of ranks and workers, with a mixture and packing on.

For each world size and number of workers, the ranks' packs of 200 steps are drawn, every worker
with an order of its own, and put together; the sha256 of their sample keys must be one.
MosaicML Streaming runs the same matrix over as many samples of as many sources, without packing,
which it does not do.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.frame import Bar, at_least, equal
from benchmarks.made_index import make_index, write_recipe
from benchmarks.peers import PeerUnavailable, ask
from mixtures.manifest import Manifest
from mixtures.order import Order, Pack
from mixtures.plan import build_manifest
from mixtures.recipe import load_recipe

WORLD_SIZES, WORKERS = (1, 2, 3, 4, 6, 8, 16), (0, 1, 2, 3, 5)
GLOBAL_BATCH, STEPS = 48, 200
SAMPLES, SOURCES = 60_000, 8


def run(console: Console) -> list[Bar]:
    manifest = planned()
    found = {
        (world, workers): digest(manifest, world, workers)
        for world, workers in product(WORLD_SIZES, WORKERS)
    }
    table = Table("loader", "sha256 of 200 global batches, of how many layouts", "layouts that ran")
    table.add_row("ours", str(len(set(found.values()))), f"{len(found)} of {len(found)}")
    bars = [
        equal("orders found over 7 world sizes x 5 numbers of workers", len(set(found.values())), 1)
    ]
    bars.append(_beside(table))
    console.print(table)
    console.print(f"sha256 of the keys: {found[1, 0]}")
    return bars


def planned() -> Manifest:
    """Eight sources with weights, in packs of 8,192 tokens."""
    with tempfile.TemporaryDirectory() as folder:
        pool, names = make_index(Path(folder) / "pool", SAMPLES, SOURCES)
        weights = {name: f"weight: {i + 1}" for i, name in enumerate(names)}
        more = ("length: 30000", "period: 36", "pack_tokens: 24576", "frames: {cap: 32}")
        recipe = write_recipe(Path(folder) / "recipe.yaml", Path(folder) / "pool", weights, *more)
        build_manifest(load_recipe(recipe), pool).manifest.write(folder)
        return Manifest.load(f"{folder}/manifest.json")


def digest(manifest: Manifest, world_size: int, workers: int) -> str:
    """sha256 of the keys of all ranks' packs, step after step, the packs of a step in order."""
    ranks = [batches(manifest, rank, world_size, workers) for rank in range(world_size)]
    total = hashlib.sha256()
    for step in range(STEPS):
        packs = [pack for rank in ranks for pack in next(rank)]
        packs.sort(key=lambda pack: pack[0].position)
        if len(packs) != GLOBAL_BATCH:
            raise AssertionError(f"step {step} has {len(packs)} packs")
        for pack in packs:
            total.update("".join(drawn.source + drawn.key for drawn in pack).encode() + b"|")
    return total.hexdigest()


def batches(manifest: Manifest, rank: int, world_size: int, workers: int) -> Iterator[list[Pack]]:
    """A rank's packs step by step; step s is made by worker s modulo their number."""
    orders = [Order(manifest, GLOBAL_BATCH) for _ in range(max(workers, 1))]

    def make(step: int) -> list[Pack]:
        return orders[step % len(orders)].batch(step, rank, world_size)

    if not workers:
        yield from map(make, range(STEPS))
        return
    threads = [ThreadPoolExecutor(1) for _ in range(workers)]
    try:
        steps = [threads[step % workers].submit(make, step) for step in range(STEPS)]
        yield from (step.result() for step in steps)
    finally:
        for thread in threads:
            thread.shutdown()


def _beside(table: Table) -> Bar:
    """How many orders MosaicML Streaming gives on the same matrix, without packing."""
    what = "orders of mosaicml on the same matrix, without packing, / ours"
    request = {
        "do": "order",
        "world_sizes": WORLD_SIZES,
        "workers": WORKERS,
        "global_batch": GLOBAL_BATCH,
        "steps": STEPS,
        "samples": SAMPLES,
        "sources": SOURCES,
    }
    try:
        answers = ask("mosaicml", request, "order")
    except PeerUnavailable as error:
        return Bar(what=what, value=None, bar=">= 1", holds=False, why=str(error))
    found = {answer["digest"] for answer in answers if "digest" in answer}
    ran = f"{sum('digest' in answer for answer in answers)} of {len(answers)}"
    table.add_row("mosaicml, without packing", str(len(found)), ran)
    return at_least(what, len(found), 1)
