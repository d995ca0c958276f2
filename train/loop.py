"""The main path of training: load, and while there is work: step, log, save.

    manifest + config ─► packs ─► gradient steps ─► checkpoints ─► OUT/model

Run again after a crash, it goes on from the last committed step as if nothing had happened.
Asked to stop (SIGTERM, SIGUSR1), it saves behind a step that all ranks agree on.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mixtures.manifest.files import load_manifest
from mixtures.manifest.manifest import Manifest
from shards.errors import UserError
from shards.store import Store
from train import ranks
from train.config import PARTS, Config, check_layout
from train.data.collate import Pack
from train.data.node_cache import this_node
from train.data.pack_stream import Stream
from train.data.render import Rules
from train.data.tower_plan import TowerRule
from train.engine import checkpoint
from train.engine.checkpoint import Checkpoint
from train.engine.interface import Engine
from train.engine.open_engine import check_launch, open_engine
from train.engine.trained import frozen_parts
from train.export import export
from train.guard import SKIPPED, StepGuard, samples_of
from train.json_files import HELD_OUT, HELD_OUT_SAMPLES, METRICS, StepLog, write_json
from train.model_folder import build_model, description_of, keep_features
from train.run_folder.opening import CHECKPOINTS, branched_from, last_checkpoint, opened
from train.run_folder.owner import Claim
from train.run_folder.pool_lease import pool_kept
from train.run_folder.record import RUN, read_record, record_of, write_record
from train.run_folder.settings import deciding
from train.run_folder.signals import STATUS, STOPPED, StopRequest, listening
from train.run_keys import NOTHING, Shown
from train.schedule import (
    check_length,
    check_same_rates,
    check_schedule,
    rate_share,
    total_steps,
)
from train.watched.by_source import losses_by_source, mean_by_source, rows_by_source
from train.watched.held_out import HeldOut, means_of, open_held_out
from train.watched.progress import progress
from train.watched.step_figures import figures, operations
from train.watched.trace import check_trace, traced
from train.watched.trackers import tracked
from train.weights.start import check_start

MODEL = "model"


@dataclass(slots=True, kw_only=True)
class Training:
    """One run in memory, of `total` steps; `updates` of those so far were taken, and the last that
    is saved is `saved`. `description`, `bases` and `branch` are what its checkpoints say of the
    model and of where it comes from."""

    config: Config
    manifest: Manifest
    out: Path
    total: int
    frozen: dict[str, dict[str, str]]
    engine: Engine
    stream: Stream
    guard: StepGuard
    description: dict[str, bytes]
    bases: dict[str, str]
    stop_request: StopRequest = field(default_factory=StopRequest)
    claim: Claim | None = None
    held_out: HeldOut | None = None
    shown: Shown = NOTHING
    held_out_loss: str = ""
    branch: str = ""
    updates: int = 0
    saved: int = 0


def run(
    config: Config,
    manifest_path: Path,
    data: str,
    out: Path,
    branch: Path | None = None,
    shown: Shown = NOTHING,
) -> int:
    """Train `config` on a manifest's order, its bytes found in `data`; results under `out`.

    With `branch`, a checkpoint of another run, a new run goes on from there, perhaps under another
    manifest or config. `shown`: in which trackers and traces this launch shows up. The exit status:
    0 if the run is complete, 143 if a signal asked it to stop.
    """
    # all that a person can have got wrong is refused before a weight is read
    manifest = load_manifest(manifest_path)
    total = total_steps(config.stop, manifest, config.global_batch)
    check_layout(config, manifest.layout, str(manifest_path))
    if branch is None and not checkpoint.steps(out / CHECKPOINTS):
        check_start(config, manifest, str(manifest_path))
    check_length(manifest, total, config.global_batch, str(manifest_path))
    check_schedule(config.schedule, total)
    check_launch(config)
    # ranks first, then the folder: one of them owns it for all
    with (
        ranks.joined(wanted=config.engine == "deepspeed"),
        opened(out) as claim,
        pool_kept(data, manifest.manifest_id),
    ):
        committed = last_checkpoint(out, manifest, config)
        if committed is not None and ranks.by_first(partial(is_complete, out, committed, total)):
            tell_complete(out, total)
            return 0
        # a run that goes on is not complete, whatever an earlier and shorter one left
        ranks.by_first(partial(Store(out).remove, RUN))
        if is_branch := committed is None and branch is not None:
            committed = branched_from(branch, manifest, config, total)
        if committed is None or is_branch:  # the command of a supervised run is the same to its end
            check_trace(shown.profile, total - (committed.step if committed else 0))
        with listening() as stop_request:
            training = start(config, manifest, data, out, total, committed)
            # signals are taken while the model is built too: that can take minutes
            training.stop_request = stop_request
            training.claim = claim
            training.branch = str(branch) if is_branch else ""
            training.shown = shown
            return to_the_end(training, committed, manifest_path)


def start(
    config: Config,
    manifest: Manifest,
    data: str,
    out: Path,
    total: int,
    committed: Checkpoint | None,
) -> Training:
    """The run in memory, before it goes on from `committed`."""
    # the model may be that of the checkpoint, whose parts are then not read again
    rules = Rules(view=manifest.view, layout=manifest.layout, codec=manifest.codec)
    held_out = held_out_of(config, manifest, data)  # what is wrong with it is said at once
    model = build_model(
        config, rules, None if committed is None else committed.folder / checkpoint.MODEL
    )
    frozen = frozen_parts(config, model)
    if config.feature_cache:
        say(keep_features(model, config, manifest, frozen["tower"]["sha256"]))
    engine = open_engine(config, model)
    return Training(
        config=config,
        manifest=manifest,
        out=out,
        total=total,
        frozen=frozen,
        engine=engine,
        stream=open_stream(config, manifest, data, engine),
        guard=StepGuard(config.guard),
        held_out=held_out,
        description=description_of(engine.model, manifest, rules) if engine.rank == 0 else {},
        bases={part: str(getattr(config.parts, part).init) for part in PARTS},
    )


def to_the_end(run: Training, committed: Checkpoint | None, manifest_path: Path) -> int:
    """Go on from `committed`, and leave a model behind the last step; the exit status."""
    try:
        if committed is not None:
            # weights, moments, guard and data state, or the start as it was drawn
            resume(run, committed)
        if signal := train(run):
            tell_stopped(run, signal)
            return STATUS
        ranks.by_first(partial(leave_model, run, manifest_path))
        tell_complete(run.out, run.total)
        return 0
    finally:
        run.engine.close()


def leave_model(run: Training, manifest_path: Path) -> None:
    """Export the last checkpoint, and say that the run is complete."""
    # the model folder is made of what was committed, not of what is in memory
    last = checkpoint.latest(run.out / CHECKPOINTS)
    assert last is not None and last.step == run.total
    places = {part: str(getattr(run.config.parts, part).init) for part in last.frozen}
    export(last, run.out / MODEL, places)
    record = record_of(run.out, run.config, manifest_path, last)
    write_record(run.out, record)


def is_complete(out: Path, committed: Checkpoint, total: int) -> bool:
    """Whether the run ended at this very checkpoint, its model exported."""
    if committed.step != total or not ((out / RUN).is_file() and (out / MODEL).is_dir()):
        return False
    record = read_record(out)
    return (record.step, record.manifest_id) == (committed.step, committed.manifest_id)


def tell_complete(out: Path, total: int) -> None:
    """Say that nothing is left to do, and where the model lies."""
    say(f"{out}: complete since step {total}; {out / MODEL} is the model")


def say(line: str) -> None:
    """Once for all ranks."""
    if ranks.rank() == 0:
        sys.stdout.write(f"{line}\n")


def tell_stopped(run: Training, signal: str) -> None:
    """Write why the run is not complete, and from where it goes on."""
    if run.engine.rank == 0:
        told = {"signal": signal, "step": run.stream.step, "total": run.total, "saved": run.saved}
        write_json(run.out / STOPPED, told)
        sys.stderr.write(
            f"{run.out}: stopped by {signal} after step {run.stream.step} of {run.total}; the same "
            "command goes on\n"
        )


def held_out_of(config: Config, manifest: Manifest, data: str) -> HeldOut | None:
    """What the held-out loss is taken on, if the config asks for it."""
    if config.held_out is None:
        return None
    return open_held_out(config.held_out, manifest, data, config.tower_chunk, "config")


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


def train(run: Training) -> str:
    """Every step from the stream's on, with a checkpoint every `save_every` steps and at the end.

    The name of the signal that asked the run to stop, if one did.
    """
    stream, is_first, shown = run.stream, run.engine.rank == 0, run.shown
    names = (METRICS, SKIPPED, HELD_OUT) if is_first else ()
    logs = {name: StepLog(run.out / name, stream.step) for name in names}
    with (
        # logs are cut to the step that the run goes on from: steps that are taken again appear once
        progress(run.total, stream.step, visible=is_first) as show,
        tracked(shown.trackers if is_first else (), run.out, stream.step) as tell,
        traced(shown.profile, run.out, run.engine.rank, stream.step) as trace,
    ):
        # packs come in the order of the manifest, on every rank equally many
        batches = stream.steps()
        while stream.step < run.total:
            # agreed on by all ranks before each step
            if signal := asked_to_stop(run):
                if stream.step != run.saved:
                    save(run, logs)
                return signal
            row = one_step(run, batches)
            tell(row, "")
            # logged before the run may end for it: the log shows the step that was at fault
            settle(run, row, logs)
            if means := held_out_loss(run, logs):
                tell(means, "held_out/")
            show(row)
            if stream.step % run.config.save_every == 0 or stream.step == run.total:
                save(run, logs)
            trace()
    return ""


def one_step(run: Training, batches: Iterator[list[Pack]]) -> dict[str, Any]:
    """The next step, taken or not, and its line of the log."""
    started = time.perf_counter()
    packs = next(batches)
    waited = time.perf_counter()
    # `stream.step` counts this step already
    share = rate_share(run.config.schedule, run.stream.step - 1, run.total)
    row = optimize(run.engine, packs, share, run.guard, run.manifest.names)
    ended = time.perf_counter()
    seconds = {"data_seconds": waited - started, "compute_seconds": ended - waited}
    row |= {"step": run.stream.step, **rates(run.config, share), **seconds}
    row |= watched(run, packs, row["tokens"], ended - started)
    return row | {"replaced": run.stream.replaced}


def watched(
    run: Training, packs: Sequence[Pack], tokens: int, seconds: float
) -> dict[str, float | None]:
    """How fast the step was, as this rank sees it, and how full."""
    flops = partial(operations, run.config, run.engine.model.config, packs)
    return figures(run.config, run.manifest.pack.tokens, tokens, seconds, flops)


def held_out_loss(run: Training, logs: Mapping[str, StepLog]) -> dict[str, Any] | None:
    """The held-out loss, behind every step that wants it."""
    run.held_out_loss = ""
    rule = run.config.held_out
    if run.held_out is None or rule is None:
        return None
    if run.stream.step % rule.every and run.stream.step != run.total:
        return None
    losses = run.held_out.losses(run.engine)
    told = means_of(losses)
    # by bits, as it goes into the checkpoint's record
    run.held_out_loss = told["loss"].hex()
    row = {"step": run.stream.step, **told}
    if log := logs.get(HELD_OUT):
        log.write(row)
        if run.stream.step == run.total:
            write_json(run.out / HELD_OUT_SAMPLES, {"step": run.total, "samples": losses})
    return row


def asked_to_stop(run: Training) -> str:
    """The signal that any rank was sent, if one was; UserError where another run took the folder
    over: then nothing more is written there."""
    who = run.claim.lost if run.claim else ""
    # one all-reduce for both: a rank that ends alone would leave the others waiting
    signal, lost = run.stop_request.any_rank(run.engine, has_lost=bool(who))
    if lost:
        raise UserError(
            f"{run.out}: was taken over by another run ({who or 'rank 0 knows it'}), this one ends;"
            " give each its own --out"
        )
    return signal


def optimize(
    engine: Engine, packs: Sequence[Pack], share: float, guard: StepGuard, sources: Sequence[str]
) -> dict[str, Any]:
    """One step; every supervised token of the global batch weighs the same.

    The denominator is known before the first backward pass: the supervised tokens of all ranks.
    What the guard objects to is not taken: `objection` says why. `sources` names all there are.
    """
    # empty packs keep collectives in step, and count for nothing
    real = [pack for pack in packs if pack.keys]
    tokens, samples, *rows = engine.totals(
        sum(len(pack.tokens) for pack in real),
        sum(len(pack.keys) for pack in real),
        *rows_by_source(real, sources),
    )
    supervised = sum(rows)
    # gradient of (sum of losses / supervised tokens of all ranks): no batch weighs more than its
    # tokens
    losses = engine.backward(packs, max(int(supervised), 1))
    summed = engine.totals(*losses_by_source(packs, losses, sources))
    loss = math.fsum(summed) / max(supervised, 1)
    # judged before it is taken: the same numbers on every rank
    norm = engine.norm()
    objection = guard.objection(loss, norm)
    if objection:
        engine.discard()
    else:
        engine.update(share)
        guard.took(loss)
    counts = {"supervised": int(supervised), "tokens": int(tokens), "samples": int(samples)}
    means = mean_by_source(sources, summed, rows)
    told = {"loss": loss, "by_source": means, "grad_norm": norm, **counts}
    return told | {"objection": objection or None}


def settle(run: Training, row: dict[str, Any], logs: Mapping[str, StepLog]) -> None:
    """Log a step; count it as an update, or name its samples; UserError if the run ends there."""
    why = row["objection"]
    step = run.stream.step
    run.updates += why is None
    if log := logs.get(METRICS):
        log.write(row)
    if why is None:
        return
    if log := logs.get(SKIPPED):
        place = run.stream.sampler.place_of(step - 1)
        samples = samples_of(run.manifest, step - 1, place, run.config.global_batch)
        told = {name: row[name] for name in ("step", "objection", "loss", "grad_norm")}
        log.write(told | {"samples": samples})
    run.guard.refuse(step, why, run.out / SKIPPED)


def rates(config: Config, share: float) -> dict[str, float]:
    """The rate of each part that is trained, by the name it has in the log."""
    rules = {part: getattr(config.parts, part) for part in PARTS}
    return {f"lr_{part}": rule.lr * share for part, rule in rules.items() if rule.train}


def resume(run: Training, committed: Checkpoint) -> None:
    """Go on from a verified checkpoint of this run, or of the one it branches off."""
    checkpoint.check_same_frozen(committed, run.frozen)
    # another run's data state is of another order
    if run.branch:
        run.stream.step = committed.step
    else:
        check_same_rates(run.config, committed.step, committed.total, run.total)
        run.stream.load(committed.data)
        run.branch = committed.branch
        run.saved = committed.step
    run.engine.load(committed.folder, committed.updates)
    run.guard.load(committed.guard)
    run.bases = committed.bases
    run.updates = committed.updates


def save(run: Training, logs: Mapping[str, StepLog]) -> None:
    """Commit the state after the stream's last step; all ranks write, the first one commits."""
    engine = run.engine
    folder = checkpoint.pending(run.out / CHECKPOINTS, run.stream.step)
    # one rank makes the folder, all write their share, one commits
    files = ranks.by_first(partial(checkpoint.begin, folder, run.description))
    files |= {
        name: d for each in ranks.by_each(partial(engine.save, folder)) for name, d in each.items()
    }
    # logs reach the disk before the checkpoint that they describe
    for log in logs.values():
        log.sync()
    if engine.rank == 0:
        checkpoint.commit(folder, record(run), files, run.config.keep)
    engine.barrier()
    run.saved = run.stream.step


def record(run: Training) -> dict[str, Any]:
    """What a checkpoint says of the run (train.engine.checkpoint.Checkpoint), but for its files."""
    return {
        "step": run.stream.step,
        "updates": run.updates,
        "total": run.total,
        "manifest_id": run.stream.manifest_id,
        "config": deciding(run.config),
        "precision": run.config.precision,
        "optimizer_state": run.config.optimizer_state,
        "bases": run.bases,
        "frozen": run.frozen,
        "branch": run.branch,
        "held_out": run.held_out_loss,
        "guard": run.guard.state(),
        "data": run.stream.state(),
    }
