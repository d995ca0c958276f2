"""Time to the first batch at 90 % consumed against 0 %, bytes of state, other topologies after it.

Ours: a fresh process opens the stream at a step, in CPU seconds, the least of several runs; wall
seconds are printed. The keys of the next 100 global batches for other ranks and workers must have
one digest. Peers, each in its own way and as far as it can: webdataset replays; the others load
their state into a new loader of the same run, then into one with another number of workers, and the
next 8 batches are compared.
"""

from __future__ import annotations

import statistics

from rich.console import Console

from benchmarks.frame import Bar, at_most, equal
from benchmarks.inputs.corpus import Corpus, Kind, corpus
from benchmarks.loading.loader import prepare, request_of, side
from benchmarks.peers import PeerUnavailable
from mixtures.manifest.files import load_manifest

TINY = Kind(name="tiny", count=12_000, frames=1, sides=(32, 64))
TOPOLOGIES = ((1, 1), (1, 0), (2, 2), (3, 1), (4, 3), (6, 1), (8, 1))
GLOBAL_BATCH, ROUNDS, BATCHES = 1, 7, 100
PEERS = ("webdataset", "mosaicml", "litdata", "energon")


def run(console: Console) -> list[Bar]:
    made = corpus("tiny", [TINY], pack_tokens=256)
    return [*ours(console, made), *(peer(console, name, made) for name in PEERS)]


def ours(console: Console, made: Corpus) -> list[Bar]:
    packs = int(sum(load_manifest(made.manifest).packs_per_window.tolist()))
    request = request_of("ours", made) | {"task": "resume", "global_batch": GLOBAL_BATCH}
    one = request | {"workers": 1, "world_size": 1, "steps": 1}
    begun, late = [], []
    for _ in range(ROUNDS):
        begun.append(side("ours", one | {"step": 0}))
        late.append(side("ours", one | {"step": packs * 9 // 10}))
    cpu = min(row["first_cpu_s"] for row in late) / min(row["first_cpu_s"] for row in begun)
    seconds = [statistics.median(row["first_s"] for row in rows) for rows in (begun, late)]
    batch = 8
    many = request | {"steps": BATCHES, "global_batch": batch, "step": packs // batch // 10}
    digests = {
        side("ours", many | {"world_size": ranks, "workers": workers})["digest"]
        for ranks, workers in TOPOLOGIES
    }
    console.print("ours: first pack after {:.3f} s at 0 %, {:.3f} s at 90 %".format(*seconds))
    return [
        at_most("CPU seconds to the first batch at 90 % / at 0 %", cpu, 1.1),
        at_most("bytes of state", late[0]["state_bytes"], 256),
        equal("digests of the next 100 batches over ranks and workers", len(digests), 1),
    ]


def peer(console: Console, name: str, made: Corpus) -> Bar:
    """First batch at 90 % over 0 %; the table says what its state costs and what it survives."""
    what = f"first batch at 90 % / at 0 %, {name} (beside it, no bar of ours)"
    request = request_of(name, made) | {"task": "resume", "workers": 1}
    try:
        prepare(name, made)
        begun = side(name, request | {"skip": 0, "workers_after": 1})
        late = side(name, request | {"skip": TINY.count * 9 // 10, "workers_after": 1})
    except PeerUnavailable as error:
        return Bar(what=what, value=None, bar="printed", holds=False, why=str(error))
    try:
        other = side(name, request | {"skip": TINY.count * 9 // 10, "workers_after": 2})
        survives = "same batches" if other.get("digest") == late.get("digest") else "other batches"
    except PeerUnavailable as error:
        survives = f"refuses: {error}"
    if name == "webdataset":
        survives = "has no state"
    ratio = round(late["first_s"] / begun["first_s"], 3)
    console.print(
        f"{name}: {late['first_s']:.3f} s against {begun['first_s']:.3f} s, "
        f"{late['state_bytes']} bytes of state; from 1 to 2 workers: {survives}",
        highlight=False,
    )
    return Bar(what=what, value=ratio, bar="printed", holds=True)
