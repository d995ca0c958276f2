"""Four ranks on two nodes read shards through one link of 50 ms and 200 Mb/s, 10 % cache per node.

The consumer takes 70 % of the link. Counted: every byte the server sent, indexes and receipts too,
against the bytes of the samples; time waited for packs after the first one against the whole.
Beside it, by simulation of the same reads: each node keeps whole blocks of 1 MiB, as loaders of
whole shards do, least recently used out first.
"""

from __future__ import annotations

import shutil
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console

from benchmarks.frame import Bar, at_least, at_most, equal
from benchmarks.inputs.corpus import DENSE, ROOT, corpus
from benchmarks.loading.link import bytes_sent, link
from benchmarks.peers import ask_ours
from mixtures.manifest.draws import Draws
from mixtures.manifest.files import load_manifest
from mixtures.manifest.manifest import Manifest
from mixtures.manifest.sampler import BatchSampler
from shards.extents import ByteRange
from shards.reader import open_data

LATENCY, BANDWIDTH, SHARE = 0.05, 200e6 / 8, 0.7
WORLD, NODES, GLOBAL_BATCH, BLOCK = 4, 2, 4, 1 << 20
CACHE = 0.10


def run(console: Console) -> list[Bar]:
    made = corpus("dense", [DENSE])
    manifest = load_manifest(made.manifest)
    needs = [list(reads(manifest, made.shards, node)) for node in range(NODES)]
    step_bytes = [
        sum(byte_range.extent for node in needs for byte_range in node[step])
        for step in range(len(needs[0]))
    ]
    unique = sum(step_bytes)
    limit = int(CACHE * unique)
    home = ROOT / "remote"
    shutil.rmtree(home, ignore_errors=True)
    per_node = WORLD // NODES
    with link(Path(made.shards), LATENCY, BANDWIDTH) as address:
        requests = [
            {
                "task": "remote",
                "manifest": made.manifest,
                "address": address,
                "rank": rank,
                "world_size": WORLD,
                "ranks": [rank // per_node * per_node, (rank // per_node + 1) * per_node],
                "folder": str(home / f"node{rank // per_node}"),
                "limit": limit,
                "global_batch": GLOBAL_BATCH,
                "step_bytes": step_bytes,
                "rate": SHARE * BANDWIDTH,
            }
            for rank in range(WORLD)
        ]
        with ThreadPoolExecutor(WORLD) as threads:
            answers = list(threads.map(ask_ours, requests))
        sent = bytes_sent(address)
    waited = max(sum(answer["waits"][1:]) for answer in answers)
    consumed = unique / (SHARE * BANDWIDTH)
    first = max(answer["waits"][0] for answer in answers)
    blocks = sum(lru_bytes(node, limit) for node in needs)
    seen = sorted(key for answer in answers for key in answer["keys"])
    expected = sorted(one.key for one in Draws(manifest).samples(0, manifest.length))
    console.print(
        f"{unique / 1e6:.1f} MB in {len(step_bytes)} steps, {limit / 1e6:.1f} MB per node; "
        f"sent {sent / 1e6:.1f} MB; first pack {first:.2f} s; "
        f"waited {waited:.2f} s beside {consumed:.2f} s of use; "
        f"whole blocks by least recent use: {blocks / 1e6:.1f} MB",
        highlight=False,
    )
    return [
        at_most("bytes over all nodes / unique bytes", sent / unique, 1.10),
        at_most("time waited / time consumed and waited", waited / (waited + consumed), 0.05),
        at_least("bytes of least-recently-used whole blocks / ours", blocks / sent, 1.0),
        equal("samples that differ from the order", int(seen != expected), 0),
    ]


def reads(manifest: Manifest, data: str, node: int) -> Iterator[list[ByteRange]]:
    """What the ranks of a node read at each step."""
    order, reader, per_node = BatchSampler(manifest, GLOBAL_BATCH), open_data(data), WORLD // NODES
    packs = sum(manifest.packs_per_window.tolist())
    for step in range(-(-packs // GLOBAL_BATCH)):
        ranks = [order.batch(step, node * per_node + r, WORLD) for r in range(per_node)]
        drawn = [one for packs in ranks for pack in packs for one in pack]
        yield [
            byte_range for one in drawn for byte_range in reader.byte_ranges(one.source, one.key)
        ]


def lru_bytes(steps: list[list[ByteRange]], limit: int) -> int:
    """Bytes fetched by a cache of whole blocks that drops the least recently used one."""
    held: OrderedDict[tuple[str, int], None] = OrderedDict()
    fetched = 0
    for byte_range in (byte_range for step in steps for byte_range in step):
        for block in range(
            byte_range.offset // BLOCK, (byte_range.offset + byte_range.extent - 1) // BLOCK + 1
        ):
            if (byte_range.file, block) in held:
                held.move_to_end((byte_range.file, block))
                continue
            fetched += BLOCK
            held[byte_range.file, block] = None
            if len(held) * BLOCK > limit:
                held.popitem(last=False)
    return fetched
