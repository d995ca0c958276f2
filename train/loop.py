"""The main path of training: load, and while there is work: step, log, save.

    manifest + config ─► packs ─► gradient steps ─► checkpoints ─► OUT/model

Run again after a crash, it goes on from the last committed step as if nothing had happened.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mixtures.console import Console
from mixtures.manifest.files import load_manifest
from mixtures.manifest.manifest import Manifest
from shards.errors import UserError
from train.config import PARTS, Config, check_layout, digest
from train.data.collate import Pack
from train.data.node_cache import this_node
from train.data.pack_stream import Stream
from train.data.render import Rules
from train.data.tower_plan import TowerRule
from train.engine import checkpoint
from train.engine.interface import Engine
from train.engine.open_engine import open_engine
from train.engine.trained import frozen_parts
from train.guard import SKIPPED, Door, samples_of
from train.json_files import StepLog
from train.model_folder import build_model, export
from train.schedule import check_same_rates, check_schedule, rate_share, total_steps
from train.weights.start import check_start

METRICS = "metrics.jsonl"


@dataclass(slots=True, kw_only=True)
class Training:
    """One run in memory, of `total` steps; `updates` of those so far were taken."""

    config: Config
    manifest: Manifest
    out: Path
    total: int
    frozen: dict[str, dict[str, str]]
    engine: Engine
    stream: Stream
    door: Door
    updates: int = 0


def run(config: Config, manifest_path: Path, data: str, out: Path) -> None:
    """Train `config` on a manifest's order, its bytes found in `data`; results under `out`."""
    manifest = load_manifest(manifest_path)
    total = total_steps(config.stop, manifest, config.global_batch)
    check_layout(config, manifest.layout, str(manifest_path))
    check_start(config, manifest, str(manifest_path))
    check_length(manifest, total, config.global_batch, str(manifest_path))
    check_schedule(config.schedule, total)
    rules = Rules(view=manifest.view, layout=manifest.layout, codec=manifest.codec)
    model = build_model(config, rules)
    frozen = frozen_parts(config, model)
    engine = open_engine(config, model)
    training = Training(
        config=config,
        manifest=manifest,
        out=out,
        total=total,
        frozen=frozen,
        engine=engine,
        stream=open_stream(config, manifest, data, engine),
        door=Door(config.guard),
    )
    try:
        resume(training)
        train(training)
        export(engine, manifest, rules, out / "model")
    finally:
        engine.close()


def open_stream(config: Config, manifest: Manifest, data: str, engine: Engine) -> Stream:
    """The packs of this rank."""
    return Stream(
        manifest,
        data,
        engine.rank,
        engine.world_size,
        workers=config.workers,
        global_batch=config.global_batch,
        micro_batch=config.micro_batch,
        cache_bytes=config.cache_mib << 20,
        node=this_node(config.node_folder, config.node_mib << 20, engine.rank, os.environ),
        tower=tower_rule(config),
    )


def tower_rule(config: Config) -> TowerRule:
    """How the tower runs over packs, as the config has it."""
    rule = config.stochastic
    return TowerRule(chunk=config.tower_chunk, keep=rule.keep.denominator, seed=rule.seed)


def train(run: Training) -> None:
    """Every step from the stream's on; a checkpoint every `save_every` steps and at the end."""
    stream, is_first = run.stream, run.engine.rank == 0
    logs = [StepLog(run.out / name, stream.step) for name in (METRICS, SKIPPED) if is_first]
    with progress(run.total, stream.step, shown=is_first) as show:
        batches = stream.steps()
        started = time.perf_counter()
        while stream.step < run.total:
            packs = next(batches)
            waited = time.perf_counter()
            share = rate_share(run.config.schedule, stream.step - 1, run.total)
            row = optimize(run.engine, packs, share, run.door)
            ended = time.perf_counter()
            seconds = {"data_seconds": waited - started, "compute_seconds": ended - waited}
            row |= {"step": stream.step, **rates(run.config, share), **seconds}
            settle(run, row | {"replaced": stream.replaced}, logs)
            show(row["loss"])
            if stream.step % run.config.save_every == 0 or stream.step == run.total:
                save(run)
            started = time.perf_counter()


def optimize(engine: Engine, packs: Sequence[Pack], share: float, door: Door) -> dict[str, Any]:
    """One step; every supervised token of the global batch weighs the same.

    The denominator is known before the first backward pass: the supervised tokens of all ranks.
    What the door objects to is not taken: `objection` says why.
    """
    real = [pack for pack in packs if pack.keys]
    supervised, tokens, samples = engine.totals(
        sum(pack.supervised for pack in packs),
        sum(len(pack.tokens) for pack in real),
        sum(len(pack.keys) for pack in real),
    )
    summed = engine.backward(packs, max(int(supervised), 1))
    loss = engine.totals(summed)[0] / max(supervised, 1)
    norm = engine.norm()
    objection = door.objection(loss, norm)
    if objection:
        engine.discard()
    else:
        engine.update(share)
        door.took(loss)
    counts = {"supervised": int(supervised), "tokens": int(tokens), "samples": int(samples)}
    return {"loss": loss, "grad_norm": norm, **counts, "objection": objection or None}


def settle(run: Training, row: dict[str, Any], logs: Sequence[StepLog]) -> None:
    """Log a step; count it as an update, or name its samples; UserError if the run ends there."""
    why, step = row["objection"], run.stream.step
    run.updates += why is None
    for log in logs[:1]:
        log.write(row)
    if why is None:
        return
    for log in logs[1:]:
        place = run.stream.sampler.order.place_of(step - 1)
        samples = samples_of(run.manifest, step - 1, place, run.config.global_batch)
        told = {name: row[name] for name in ("step", "objection", "loss", "grad_norm")}
        log.write(told | {"samples": samples})
    run.door.refuse(step, why, run.out / SKIPPED)


def rates(config: Config, share: float) -> dict[str, float]:
    """The rate of each part that is trained, by the name it has in the log."""
    rules = {part: getattr(config.parts, part) for part in PARTS}
    return {f"lr_{part}": rule.lr * share for part, rule in rules.items() if rule.train}


def check_length(manifest: Manifest, total: int, global_batch: int, where: str) -> None:
    """Raise UserError before any work if a finite order ends before the last step."""
    if not manifest.is_finite:
        return
    packs, wanted = sum(manifest.packs_per_window), total * global_batch
    if packs + global_batch <= wanted:
        raise UserError(
            f"{where}: its order ends after {packs} packs, {total} steps of "
            f"{global_batch} want {wanted}; lower `stop`, or plan more repeats"
        )


def resume(run: Training) -> None:
    """Go on from the last committed checkpoint of this very run, if there is one."""
    found = checkpoint.latest(run.out / "checkpoints")
    if found is None:
        return
    checkpoint.check_same_run(found, run.stream.manifest_id, digest(run.config))
    checkpoint.check_same_frozen(found, run.frozen)
    check_same_rates(run.config, found.step, found.total, run.total)
    run.engine.load(found.folder, found.updates)
    run.stream.load(found.data)
    run.door.load(found.guard)
    run.updates = found.updates


def save(run: Training) -> None:
    """Commit the state after the stream's last step; all ranks write, the first one commits."""
    engine = run.engine
    folder = checkpoint.pending(run.out / "checkpoints", run.stream.step)
    if engine.rank == 0:
        checkpoint.begin(folder)
    engine.barrier()
    engine.save(folder)
    engine.barrier()
    if engine.rank == 0:
        checkpoint.commit(folder, record(run))
    engine.barrier()


def record(run: Training) -> dict[str, Any]:
    """What a checkpoint says of the run (train.engine.checkpoint.Checkpoint), but for its files."""
    return {
        "step": run.stream.step,
        "updates": run.updates,
        "total": run.total,
        "manifest_id": run.stream.manifest_id,
        "config": digest(run.config),
        "precision": run.config.precision,
        "optimizer_state": run.config.optimizer_state,
        "frozen": run.frozen,
        "guard": run.door.state(),
        "data": run.stream.state(),
    }


@contextmanager
def progress(total: int, done: int, *, shown: bool) -> Iterator[Callable[[float], None]]:
    """A bar with the latest loss; yields the function to call after each step."""
    columns = (
        TextColumn("train"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
    )
    bar = Progress(*columns, console=Console(stderr=True), disable=not shown)
    with bar:
        task = bar.add_task("train", total=total, completed=done, loss=math.nan)
        yield lambda loss: bar.update(task, advance=1, loss=loss)
