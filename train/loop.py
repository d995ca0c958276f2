"""The main path of training: load, and while there is work: step, log, save.

    manifest + config ─► packs ─► gradient steps ─► checkpoints ─► OUT/model

Run again after a crash, it goes on from the last committed step as if nothing had happened.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mixtures.console import Console
from mixtures.manifest.files import load_manifest
from mixtures.manifest.manifest import Manifest
from shards.errors import UserError
from train.config import Config, check_layout, digest
from train.data.collate import Pack
from train.data.node_cache import this_node
from train.data.pack_stream import Stream
from train.data.render import Rules
from train.engine import checkpoint
from train.engine.interface import Engine
from train.engine.open_engine import open_engine
from train.model_folder import build_model, export

METRICS = "metrics.jsonl"


def run(config: Config, manifest_path: Path, data: str, out: Path) -> None:
    """Train `config` on a manifest's order, its bytes found in `data`; results under `out`."""
    manifest = load_manifest(manifest_path)
    check_layout(config, manifest.layout, str(manifest_path))
    check_length(config, manifest, str(manifest_path))
    rules = Rules(view=manifest.view, layout=manifest.layout, codec=manifest.codec)
    engine = open_engine(config, build_model(config, rules))
    stream = Stream(
        manifest,
        data,
        engine.rank,
        engine.world_size,
        workers=config.workers,
        global_batch=config.global_batch,
        micro_batch=config.micro_batch,
        cache_bytes=config.cache_mib << 20,
        node=this_node(config.node_folder, config.node_mib << 20, engine.rank, os.environ),
    )
    try:
        resume(engine, stream, config, out)
        train(engine, stream, config, out)
        export(engine, manifest, rules, out / "model")
    finally:
        engine.close()


def train(engine: Engine, stream: Stream, config: Config, out: Path) -> None:
    """Every step from the stream's on; a checkpoint every `save_every` steps and at the end."""
    log = Log(out / METRICS, keep=stream.step) if engine.rank == 0 else None
    with progress(config.steps, stream.step, shown=engine.rank == 0) as show:
        batches = stream.steps()
        started = time.perf_counter()
        while stream.step < config.steps:
            packs = next(batches)
            waited = time.perf_counter()
            lr = learning_rate(config, stream.step - 1)
            row = optimize(engine, packs, lr)
            ended = time.perf_counter()
            seconds = {"data_seconds": waited - started, "compute_seconds": ended - waited}
            if log is not None:
                log.write(
                    {"step": stream.step, "lr": lr, **row, **seconds, "replaced": stream.replaced}
                )
            show(row["loss"])
            if stream.step % config.save_every == 0 or stream.step == config.steps:
                save(engine, stream, config, out)
            started = time.perf_counter()


def optimize(engine: Engine, packs: Sequence[Pack], lr: float) -> dict[str, float]:
    """One optimizer step; every supervised token of the global batch weighs the same.

    The denominator is known before the first backward pass: the supervised tokens of all ranks.
    """
    supervised = int(engine.total(sum(pack.supervised for pack in packs)))
    summed = engine.backward(packs, max(supervised, 1))
    norm = engine.update(lr)
    return {
        "loss": engine.total(summed) / max(supervised, 1),
        "grad_norm": norm,
        "supervised": supervised,
        "tokens": int(engine.total(sum(len(pack.tokens) for pack in packs if pack.keys))),
        "samples": int(engine.total(sum(len(pack.keys) for pack in packs))),
    }


def learning_rate(config: Config, step: int) -> float:
    """Linear warm-up, then a cosine down to `floor` times the peak; `step` counts from 0."""
    rule = config.optimizer
    if step < rule.warmup_steps:
        return rule.lr * (step + 1) / rule.warmup_steps
    done = (step - rule.warmup_steps) / max(config.steps - rule.warmup_steps, 1)
    return rule.lr * (rule.floor + (1 - rule.floor) * (1 + math.cos(math.pi * done)) / 2)


def check_length(config: Config, manifest: Manifest, where: str) -> None:
    """Raise UserError before any work if a finite order ends before the last step."""
    if not manifest.is_finite:
        return
    packs, wanted = sum(manifest.packs_per_window), config.steps * config.global_batch
    if packs + config.global_batch <= wanted:
        raise UserError(
            f"{where}: its order ends after {packs} packs, {config.steps} steps of "
            f"{config.global_batch} want {wanted}; lower `steps`, or plan more repeats"
        )


def resume(engine: Engine, stream: Stream, config: Config, out: Path) -> None:
    """Go on from the last committed checkpoint of this very run, if there is one."""
    found = checkpoint.latest(out / "checkpoints")
    if found is None:
        return
    checkpoint.check_same_run(found, stream.manifest_id, digest(config))
    engine.load(found.folder, found.step)
    stream.load(found.data)


def save(engine: Engine, stream: Stream, config: Config, out: Path) -> None:
    """Commit the state after the stream's last step; all ranks write, the first one commits."""
    folder = checkpoint.pending(out / "checkpoints", stream.step)
    if engine.rank == 0:
        checkpoint.begin(folder)
    engine.barrier()
    engine.save(folder)
    engine.barrier()
    if engine.rank == 0:
        head = {"step": stream.step, "manifest_id": stream.manifest_id, "config": digest(config)}
        checkpoint.commit(folder, head | {"data": stream.state()})
    engine.barrier()


class Log:
    """One JSON line per step. What a crash wrote beyond its checkpoint is cut off on resume."""

    def __init__(self, path: Path, keep: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = path.read_text().splitlines()[:keep] if path.exists() else []
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text("".join(f"{line}\n" for line in kept))
        temporary.replace(path)
        self.path = path

    def write(self, metrics: Mapping[str, float]) -> None:
        """Append what one step measured, by name."""
        with self.path.open("a") as file:
            file.write(json.dumps(metrics) + "\n")


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
