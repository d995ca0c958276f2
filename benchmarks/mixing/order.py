"""The same global batches on any number of ranks and workers, with a mixture and packing on.

For each world size and number of workers, every rank's `Stream` reads, decodes and packs 200 steps
with that many threads; the packs of a step are put together, and the sha256 of their sample keys
must be one, which is also that of the order's own arithmetic.
A random 1 % of a source is then removed, and what is left is compared by its order in an epoch.
Beside it, without packing, which they do not do or leave to their users: MosaicML Streaming by its
own arithmetic on the same matrix, Megatron-Energon and litData by their own loaders on a smaller
one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import product

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.frame import Bar, at_least, equal
from benchmarks.inputs.corpus import Kind, corpus
from benchmarks.inputs.made_order import made_tables
from benchmarks.peers import PeerUnavailable, ask
from mixtures.diff import in_order
from mixtures.manifest.files import load_manifest
from mixtures.manifest.manifest import Manifest
from mixtures.manifest.sampler import BatchSampler
from mixtures.order.permutation import key_of
from mixtures.order.ranking import ranked
from train.data.pack_stream import Stream

WORLD_SIZES, WORKERS = (1, 2, 3, 4, 6, 8, 16), (0, 1, 2, 3, 5)
GLOBAL_BATCH, STEPS = 48, 200
SAMPLES, SOURCES = 60_000, 8
PEERS: dict[str, dict[str, Sequence[int]]] = {
    "mosaicml": {"world_sizes": WORLD_SIZES, "workers": WORKERS},
    "energon": {"world_sizes": (1, 2, 4, 8), "workers": (0, 1, 2)},
    "litdata": {"world_sizes": (1, 2, 4, 8), "workers": (0, 1, 2)},
}
PACK_TOKENS = 160
KINDS = (
    Kind(name="pictures", count=500, frames=1, sides=(32, 64), ratio="weight: 3"),
    Kind(name="shorts", count=200, frames=2, sides=(64,), ratio="weight: 1"),
    Kind(name="stills", count=900, frames=1, sides=(32,), ratio="weight: 5"),
)


def run(console: Console) -> list[Bar]:
    made = corpus("mixed", KINDS, pack_tokens=PACK_TOKENS, length=30_000)
    manifest = load_manifest(made.manifest)
    arithmetic = BatchSampler(manifest, GLOBAL_BATCH)
    planned = digest(
        [[one.key for one in pack] for pack in arithmetic.batch(step, 0, 1)]
        for step in range(STEPS)
    )
    found = {
        (world, workers): digest(streamed(manifest, made.pool, world, workers))
        for world, workers in product(WORLD_SIZES, WORKERS)
    }
    table = Table("loader", "sha256 of 200 global batches, of how many layouts", "layouts")
    orders = {planned, *found.values()}
    table.add_row("ours", str(len(orders)), f"{len(found)} layouts")
    bars = [
        equal("orders found over 7 world sizes x 5 numbers of workers, and planned", len(orders), 1)
    ]
    bars.append(
        at_least("1 % of a source removed: of the rest in their order, %", kept_order(), 100)
    )
    bars += [_beside(table, peer, matrix) for peer, matrix in PEERS.items()]
    console.print(table)
    console.print(f"sha256 of the keys: {planned}")
    return bars


def kept_order() -> float:
    """Per cent of the samples left that follow each other as before, in the worst of 20 epochs."""
    rng, salt, epochs = np.random.default_rng(1), key_of(17, "source"), np.arange(20)
    (table,) = made_tables([SAMPLES], [500])
    left = np.sort(rng.permutation(SAMPLES)[SAMPLES // 100 :])
    keys = np.ascontiguousarray(table["key"])
    before, after = ranked(keys, salt, epochs), ranked(keys[left], salt, epochs)
    shared = [
        in_order(np.argsort(one)[left], np.argsort(other))
        for one, other in zip(before, after, strict=True)
    ]
    return 100 * min(shared) / len(left)


Packs = list[list[str]]
"""The sample keys of each pack of a step."""


def streamed(manifest: Manifest, data: str, world_size: int, workers: int) -> Iterator[Packs]:
    """The packs of all ranks, step by step."""
    ranks = [
        Stream(manifest, data, rank, world_size, workers=workers, global_batch=GLOBAL_BATCH).steps()
        for rank in range(world_size)
    ]
    for _ in range(STEPS):
        yield [list(pack.keys) for rank in ranks for pack in next(rank) if pack.keys]
    for rank in ranks:
        rank.close()


def digest(steps: Iterable[Packs]) -> str:
    """sha256 of the keys, step after step; within a step whoever was dealt a pack is left out."""
    total = hashlib.sha256()
    for packs in steps:
        if len(packs) != GLOBAL_BATCH:
            raise AssertionError(f"a step of {len(packs)} packs")
        total.update("".join("".join(pack) + "|" for pack in sorted(packs)).encode())
    return total.hexdigest()


def _beside(table: Table, peer: str, matrix: dict[str, Sequence[int]]) -> Bar:
    """How many orders a peer gives on a matrix of layouts, without packing."""
    what = f"orders of {peer} without packing / ours"
    rest = {"global_batch": GLOBAL_BATCH, "steps": STEPS, "samples": SAMPLES, "sources": SOURCES}
    try:
        answers = ask(peer, {"do": "order"} | matrix | rest, "order")
    except PeerUnavailable as error:
        return Bar(what=what, value=None, bar=">= 1", holds=False, why=str(error))
    found = {answer["digest"] for answer in answers}
    table.add_row(f"{peer}, without packing", str(len(found)), f"{len(answers)} layouts")
    return at_least(what, len(found), 1)
