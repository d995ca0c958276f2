"""Training runs that are struck by SIGKILL: who starts them, where they are struck, what is left.

Every rank is a fork of this process, which has imported everything and computed nothing, so that a
start takes a second and a kill is a kill. Ranks meet by the variables that torchrun would set.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.engine import watched
from train import loop
from train.config import Config
from train.data.pack_stream import Stream
from train.engine import checkpoint
from train.engine.tensor_file import TensorFile
from train.json_files import StepLog

SITES = {
    "save": ("begin", "write", "sync", "commit", "rename"),
    "prune": ("prune", "remove"),
}
"""Where inside a save or a prune a run is struck; any other strike comes at any time of a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """One SIGKILL of a rank: at a site, the `number`-th time that it gets there; or `moment`, so
    many seconds into the step of that number."""

    site: str
    number: int
    rank: int
    moment: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A run, on so many ranks; `bad` are steps whose gradients are not finite."""

    config: Config
    manifest: Path
    data: str
    out: Path
    ranks: int = 1
    bad: frozenset[int] = frozenset()


def start(job: Job, strike: Strike | None = None) -> list[int]:
    """Run to the end, or until a rank is struck, when the others are killed too, as with their
    node; the exit status of each rank, -9 for one that was killed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [_forked(job, strike, rank, port) for rank in range(job.ranks)]
    statuses: dict[int, int] = {}
    while len(statuses) < len(children):
        child, status = os.wait()
        statuses[child] = os.waitstatus_to_exitcode(status)
        if statuses[child]:
            for other in set(children) - statuses.keys():
                os.kill(other, signal.SIGKILL)
    return [statuses[child] for child in children]


def _forked(job: Job, strike: Strike | None, rank: int, port: int) -> int:
    sys.stdout.flush()
    if child := os.fork():
        return child
    status = 70
    try:
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(job.ranks),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        with (job.out.parent / f"{job.out.name}-{rank}.log").open("a") as log:
            os.dup2(log.fileno(), 2)
        status = _run(job, strike, rank)
    finally:
        os._exit(status)


def _run(job: Job, strike: Strike | None, rank: int) -> int:
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        watched.plant(patch, set(job.bad))
        _note_keys(patch, job.out.parent / f"{job.out.name}-keys-{rank}.jsonl")
        if strike is not None and strike.rank == rank:
            _lay(patch, strike)
        try:
            return loop.run(job.config, job.manifest, job.data, job.out)
        except Exception as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            return 2


def _note_keys(patch: pytest.MonkeyPatch, path: Path) -> None:
    """Write down which samples each step of this rank has."""
    optimize = loop.optimize
    step = loop.one_step

    def noted(run: loop.Training, batches: Any) -> Any:
        keys: list[str] = []

        def optimized(engine: Any, packs: Any, *others: Any) -> Any:
            keys.extend(key for pack in packs for key in pack.keys)
            return optimize(engine, packs, *others)

        patch.setattr(loop, "optimize", optimized)
        row = step(run, batches)
        with path.open("a") as file:
            file.write(json.dumps({"step": row["step"], "keys": keys}) + "\n")
        return row

    patch.setattr(loop, "one_step", noted)


def keys_of(job: Job) -> dict[int, list[str]]:
    """The samples of each step over all ranks, as the last start that took it had them."""
    found: dict[int, dict[int, list[str]]] = {}
    for path in sorted(job.out.parent.glob(f"{job.out.name}-keys-*.jsonl")):
        for row in map(json.loads, path.read_text().splitlines()):
            found.setdefault(row["step"], {})[hash(path.name)] = row["keys"]
    return {step: sorted(k for keys in each.values() for k in keys) for step, each in found.items()}


# Where strikes land ------------------------------------------------------------


def _lay(patch: pytest.MonkeyPatch, strike: Strike) -> None:
    """See that this process is struck."""
    if strike.site == "step":
        return _at_a_moment(patch, strike)
    place: dict[str, tuple[Any, str]] = {
        "begin": (checkpoint, "begin"),
        "write": (TensorFile, "add"),
        "sync": (StepLog, "sync"),
        "commit": (checkpoint, "commit"),
        "rename": (checkpoint, "fsync"),
        "prune": (checkpoint, "prune"),
        "remove": (shutil, "rmtree"),
    }
    owner, name = place[strike.site]
    counted = [0]
    original: Callable[..., Any] = getattr(owner, name)

    def struck(*given: Any, **named: Any) -> Any:
        # a folder that is not there is nothing to remove
        counted[0] += name != "rmtree" or Path(given[0]).is_dir()
        if counted[0] == strike.number:
            _half(strike.site, given)
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*given, **named)

    patch.setattr(owner, name, struck)
    return None


def _half(site: str, given: Sequence[Any]) -> None:
    """What a call that is cut off in the middle would have left."""
    if site == "write":
        given[0]._file.write(b"\0" * 100)
    if site == "remove":
        first = next(path for path in sorted(Path(given[0]).rglob("*")) if path.is_file())
        first.unlink()


def _at_a_moment(patch: pytest.MonkeyPatch, strike: Strike) -> None:
    drawn = Stream._handed_out

    def steps(stream: Stream, *given: Any) -> Iterator[Any]:
        for packs in drawn(stream, *given):
            if stream.step == strike.number:
                kill = (os.getpid(), signal.SIGKILL)
                threading.Timer(strike.moment, os.kill, kill).start()
            yield packs

    patch.setattr(Stream, "_handed_out", steps)


def dealt(kills: int, cells: int, draw: random.Random) -> list[list[str]]:
    """Where each of `cells` runs is struck, `kills` times in all, each run once if they suffice."""
    sites = [site for kind in SITES.values() for site in kind]
    # every other one inside a save or a prune, all sites in turn
    drawn = [sites[n // 2 % len(sites)] if n % 2 else "step" for n in range(kills)]
    draw.shuffle(drawn)
    runs: list[list[str]] = [[] for _ in range(cells)]
    for number, site in enumerate(drawn):
        runs[number % cells if number < cells else draw.randrange(cells)].append(site)
    return runs
