"""Runs that are killed, spread otherwise, and fed bad numbers; and what their saves cost.

20 SIGKILLs dealt by seed over runs of a tiny model on one process and two, ZeRO-2 and 3, bf16 and
fp32, with adapters and without: half at any moment of a step, half inside a save or a prune. Each
run must end with the losses of one that nobody struck, bit for bit, and leave nothing half done.
Then a run on 2, 1 and 4 ranks; planted steps whose gradients are not finite, under each engine; and
a made state of 2 GB that four ranks save with digests and without.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import random
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.frame import Bar, at_most, equal
from benchmarks.training import save_cost
from benchmarks.training.strikes import SITES, Job, Strike, dealt, keys_of, start
from tests.support.tiny_pool import tiny_manifest
from tests.support.tiny_run import TINY, pool_of
from train.adapter import Adapter
from train.config import Config, Guard, Schedule, Stop
from train.run_keys import Keep

SEED, KILLS, STEPS = 16, 20, 12
EXACT = ("step", "loss", "grad_norm", "by_source", "supervised", "tokens", "samples", "objection")
CELLS = tuple(itertools.product((1, 2), (2, 3), ("fp32", "bf16"), (False, True)))
"""Processes, ZeRO stage, precision, adapters."""
BAD, BAD_STEPS = 10, 24
ENGINES = (("torch", 1, 2), ("deepspeed", 2, 1), ("deepspeed", 2, 2), ("deepspeed", 2, 3))
"""Engine, processes, ZeRO stage."""


def run(console: Console) -> list[Bar]:
    warm()
    with tempfile.TemporaryDirectory(prefix="survive-") as name:
        folder = Path(name)
        manifest = tiny_manifest(folder / "made")
        return [
            *kill_bars(console, folder, manifest),
            *rank_bars(console, folder, manifest),
            *bad_bars(console, folder, manifest),
            *save_bars(console, folder),
        ]


def warm() -> None:
    """Import what every rank would: that takes longer than its steps."""
    for name in ("deepspeed", "peft", "peft.tuners.lora", "train.engine.deepspeed_engine",
                 "transformers.models.qwen2.modeling_qwen2"):  # fmt: skip
        importlib.import_module(name)


def config_of(stage: int, precision: str = "fp32", *, adapters: bool = False) -> Config:
    """The tests' tiny run under DeepSpeed, saving every second step."""
    parts = TINY.parts
    if adapters:
        adapter = replace(parts.decoder, adapter=Adapter(rank=4))
        parts = replace(parts, tower=adapter, decoder=adapter)
    return replace(
        TINY,
        parts=parts,
        stop=Stop(steps=STEPS),
        engine="deepspeed",
        zero_stage=stage,
        precision=precision,
        save_every=2,
        keep=Keep(last=2),
    )


def rows(job: Job, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    path = job.out / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def exact(job: Job) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in EXACT) for row in rows(job)]


# Kills -------------------------------------------------------------------------


def kill_bars(console: Console, folder: Path, manifest: Path) -> list[Bar]:
    draw = random.Random(SEED)
    struck = dict.fromkeys(("step", *SITES), 0)
    differ = left = failed = 0
    for cell, sites in zip(CELLS, dealt(KILLS, len(CELLS), draw), strict=True):
        ranks, stage, precision, adapters = cell
        config = config_of(stage, precision, adapters=adapters)
        name = f"{ranks}-zero{stage}-{precision}{'-adapters' * adapters}"
        calm = Job(config=config, manifest=manifest, data=pool_of(manifest),
                   out=folder / f"{name}-calm", ranks=ranks)  # fmt: skip
        hit = replace(calm, out=folder / name)
        ended = [start(calm)]
        for site in sites:
            found = start(hit, strike_at(site, ranks, draw))
            kind = next((kind for kind, each in SITES.items() if site in each), "step")
            struck[kind] += -9 in found
        ended.append(start(hit))
        failed += sum(any(each) for each in ended)
        same = exact(hit) == exact(calm) and len(rows(calm)) == STEPS
        differ += not same
        left += len(leftovers(hit))
        told = "the same losses" if same else "OTHER LOSSES"
        console.print(f"{name}: struck in {', '.join(sites)}; {told}", highlight=False)
    return [
        equal("kills that struck", sum(struck.values()), KILLS),
        equal("of them inside saves and prunes", struck["save"] + struck["prune"], KILLS // 2),
        equal("runs that did not end well", failed, 0),
        equal("runs whose losses are not bit-identical", differ, 0),
        equal("files that kills left behind", left, 0),
    ]


def strike_at(site: str, ranks: int, draw: random.Random) -> Strike:
    """A strike at this site, behind the second save; what one rank does alone strikes that one."""
    if site == "step":
        moment = draw.random() * 0.3
        step, rank = draw.randrange(2, STEPS), draw.randrange(ranks)
        return Strike(site=site, number=step, rank=rank, moment=moment)
    return Strike(site=site, number=draw.randrange(1, 3), rank=0)


def leftovers(job: Job) -> list[Path]:
    """What lies in a run's folder and its checkpoints that no complete run leaves."""
    known = {"config.yaml", "manifest.json", "metrics.jsonl", "model", "run.json", "checkpoints"}
    known |= {"skipped.jsonl", "held_out.jsonl", ".owner.lock"}
    here = [path for path in job.out.iterdir() if path.name not in known]
    return here + [path for path in (job.out / "checkpoints").iterdir() if path.name[0] == "."]


# Ranks -------------------------------------------------------------------------


def rank_bars(console: Console, folder: Path, manifest: Path) -> list[Bar]:
    """A third of the steps each on 2 ranks, on 1 and on 4, against all of them on one."""
    config = replace(config_of(2), schedule=Schedule(kind="constant", warmup=2))
    one = Job(config=config, manifest=manifest, data=pool_of(manifest), out=folder / "one")
    ended = [start(one)]
    many = replace(one, out=folder / "many")
    for ranks, stage, steps in ((2, 2, 4), (1, 3, 8), (4, 3, STEPS)):
        part = replace(config, zero_stage=stage, stop=Stop(steps=steps))
        ended.append(start(replace(many, config=part, ranks=ranks)))
    pairs = list(zip(rows(one), rows(many), strict=True))
    far = max(abs(a["loss"] - b["loss"]) / abs(a["loss"]) for a, b in pairs)
    others = sum(keys_of(one)[n] != keys_of(many)[n] for n in range(1, STEPS + 1))
    console.print(f"2, 1 and 4 ranks: losses {far:.1e} apart at most", highlight=False)
    return [
        equal("2 -> 1 -> 4 ranks: starts that failed", sum(any(each) for each in ended), 0),
        equal("2 -> 1 -> 4 ranks: steps of other samples", others, 0),
        Bar(what="2 -> 1 -> 4 ranks: losses apart, relatively", value=far, bar="<= 1e-06",
            holds=far <= 1e-6),
    ]  # fmt: skip


# Numbers -----------------------------------------------------------------------


def bad_bars(console: Console, folder: Path, manifest: Path) -> list[Bar]:
    """BAD steps of each engine whose gradients are not finite; a run that goes on behind half of
    them does as one that was never struck."""
    draw = random.Random(SEED)
    bad = frozenset(draw.sample(range(1, BAD_STEPS), BAD))
    taken = unnamed = differ = 0
    for engine, ranks, stage in ENGINES:
        guard = Guard(policy="skip", at_most=BAD)
        config = replace(config_of(stage), engine=engine, guard=guard, stop=Stop(steps=BAD_STEPS))
        name = f"bad-{engine}-{ranks}-{stage}"
        calm = Job(config=config, manifest=manifest, data=pool_of(manifest),
                   out=folder / f"{name}-calm", ranks=ranks, bad=bad)  # fmt: skip
        hit = replace(calm, out=folder / name)
        half = Strike(site="step", number=BAD_STEPS // 2 + 1, rank=0)
        ended = [start(calm), start(hit, half), start(hit)]
        found = list(named_wrongly(calm, bad))
        taken += sum(row["objection"] is None for row in rows(calm) if row["step"] in bad)
        unnamed += len(found)
        same = exact(hit) == exact(calm) and len(rows(calm)) == BAD_STEPS
        differ += not (same and rows(hit, "skipped.jsonl") == rows(calm, "skipped.jsonl"))
        console.print(f"{name}: {ended}, {'alike' if same else 'OTHERWISE'}", highlight=False)
    return [
        equal("planted steps that were taken", taken, 0),
        equal("planted steps that were not named with their samples", unnamed, 0),
        equal("engines under which a resumed run does otherwise", differ, 0),
    ]


def named_wrongly(job: Job, bad: frozenset[int]) -> Iterator[int]:
    """Steps that were planted and not named with their samples, or named and not planted."""
    named = {row["step"]: {one["key"] for one in row["samples"]} for row in
             rows(job, "skipped.jsonl")}  # fmt: skip
    keys = keys_of(job)
    yield from (step for step in bad | named.keys()
                if step not in bad or named.get(step) != set(keys[step]))  # fmt: skip


# Saves -------------------------------------------------------------------------


def save_bars(console: Console, folder: Path) -> list[Bar]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(save_cost.RANKS):
        if child := os.fork():
            children.append(child)
            continue
        try:
            save_cost.measure(folder, rank, port)
        finally:
            os._exit(0)
    for child in children:
        os.waitpid(child, 0)
    told = json.loads((folder / "cost.json").read_text())
    largest = max(save_cost.SIZES) * 4
    size = sum(save_cost.SIZES) * 12 / 1e9
    console.print(
        f"{size:.2f} GB on {save_cost.RANKS} ranks: {told['with']:.2f} s with digests, "
        f"{told['without']:.2f} s without",
        highlight=False,
    )
    return [
        at_most("a save with digests / one without", told["with"] / told["without"], 1.3),
        at_most("MiB of a rank above rest while it saves", told["peak"] / 2**20,
                largest / 2**20 + 1024),
    ]  # fmt: skip
