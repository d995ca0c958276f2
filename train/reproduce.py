"""A run made again: its recorded steps over the same manifest, and whether the losses are the same.

No folder is written. Under torchrun the same steps run on as many processes as it starts, by
DeepSpeed where the run's own engine trains one: the engine decides no more than last digits.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from shards.errors import UserError
from train import ranks
from train.config import Config, RandomInit, from_places, load_config
from train.engine import checkpoint
from train.engine.checkpoint import Checkpoint
from train.engine.open_engine import check_launch, for_launch
from train.loop import Training, optimize, resume, start
from train.run_folder.opening import CHECKPOINTS
from train.run_folder.record import (
    FIRST,
    ROUNDING,
    Record,
    compared,
    made_with,
    manifest_of,
    read_record,
    verdict,
)
from train.schedule import rate_share


def reproduce(
    path: Path,
    data: str,
    manifest_path: Path | None,
    begin: int,
    *,
    places: Mapping[str, str] | None = None,
) -> list[str]:
    """Run the steps of a run.json again, from the start or behind its checkpoint of step `begin`.

    `places` says by part where what the run started from lies now. What to tell, a line each:
    whether the losses are the same, and what else differs.
    """
    record = read_record(path)
    folder = path if path.is_dir() else path.parent
    manifest = manifest_of(record, manifest_path)
    config = for_launch(_moved(_config_of(record), places or {}, begin))
    check_launch(config)
    with ranks.joined(wanted=config.engine == "deepspeed"):
        # from a checkpoint on, only the steps behind it are run again
        committed = _begin(folder, begin) if begin else None
        # `folder` is only read: nothing of the loop that writes is called here
        run = start(config, manifest, data, folder, record.step, committed)
        try:
            if committed is not None:
                resume(run, committed)
            losses = _again(run, min(begin + FIRST, record.step))
        finally:
            run.engine.close()
        again = replace(record, made_with=made_with(config), losses=losses)
    told = verdict(record.losses, losses, config.precision, begin)
    return [told, *compared(record, again)]


def _again(run: Training, last: int) -> dict[str, str]:
    """The losses of every step that is taken, up to the `last`."""
    losses = {}
    batches = run.stream.steps()
    while run.stream.step < last:
        packs = next(batches)
        # one less: `stream.step` counts the step at hand already, the schedule begins at 0
        share = rate_share(run.config.schedule, run.stream.step - 1, run.total)
        row = optimize(run.engine, packs, share, run.guard, run.manifest.names)
        if row["objection"] is None:
            # as bits: a comparison of printed numbers would hide the last ones
            losses[str(run.stream.step)] = float(row["loss"]).hex()
    return losses


def _config_of(record: Record) -> Config:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "config.yaml"
        path.write_text(record.config)
        # held-out looks change no loss, and their manifest may be gone
        return replace(load_config(path), held_out=None)


def _moved(config: Config, places: Mapping[str, str], begin: int) -> Config:
    """The config with parts where they lie now; UserError for one that is read nowhere."""
    for part in places:
        rule = getattr(config.parts, part)
        if isinstance(rule.init, RandomInit):
            raise UserError(f"--init {part}: the run drew it ({rule.init}); leave it out")
        if begin and rule.trains_own:
            raise UserError(
                f"--init {part}: it was trained, and is in the checkpoint of step {begin}; leave "
                "it out"
            )
    return replace(config, parts=from_places(config.parts, places))


def _begin(folder: Path, step: int) -> Checkpoint:
    """The verified checkpoint of a step."""
    found = checkpoint.at(folder / CHECKPOINTS, step)
    # the ranks share out the files to be hashed
    ranks.by_each(partial(checkpoint.verify, found, ranks.rank(), ranks.world_size()))
    return found


def diff(left: Path, right: Path) -> list[str]:
    """What differs between two runs, a line each, and whether their losses are the same."""
    before = read_record(left)
    after = read_record(right)
    # the coarser of their precisions decides what rounding is
    precisions = [run.made_with["precision"] for run in (before, after)]
    coarser = max(precisions, key=ROUNDING.__getitem__)
    return [*compared(before, after), verdict(before.losses, after.losses, coarser)]
