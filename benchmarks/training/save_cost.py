"""What digesting adds to a save, and what a rank holds while it saves: a made state on gloo ranks.

Each rank keeps its share of every parameter's weight and moments, as ZeRO does, and all gather one
parameter after the other, as a save does; only the disk and the digests are real work beside that.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from train.engine.state_files import KINDS, write_state

SIZES = (16_000_000, *(4_000_000,) * 36, *(100_000,) * 60)
"""Elements of each parameter: 2 GB of weights and moments in fp32."""
FILE_BYTES = 256 << 20
RANKS, ROUNDS = 4, 3


class Nothing:
    """Stands for a digest where none is taken."""

    def update(self, _data: object) -> None:
        """Look at nothing."""

    def hexdigest(self) -> str:
        return ""


def measure(folder: Path, rank: int, port: int) -> None:
    """One of RANKS: saves with digests and without in turn; rank 0 writes down what was seen."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=RANKS, timeout=timedelta(minutes=10))
    shapes = {f"p{n}": torch.Size([size]) for n, size in enumerate(SIZES)}
    own = {name: torch.full((len(KINDS), s.numel() // RANKS), 0.5) for name, s in shapes.items()}
    seconds: dict[str, list[float]] = {"with": [], "without": []}
    peak = 0
    for number in range(2 * ROUNDS):
        kind = ("with", "without")[number % 2]
        out = folder / f"save-{number}"
        if rank == 0:
            out.mkdir()
        dist.barrier()
        with _digesting(kind == "with"), _watched() as told:
            started = time.perf_counter()
            write_state(out, shapes, lambda name: _whole(own[name]), rank, RANKS, FILE_BYTES)
            dist.barrier()
        seconds[kind].append(time.perf_counter() - started)
        peak = max(peak, told[0])
        if rank == 0:
            shutil.rmtree(out)
    peaks: list[Any] = [None] * RANKS
    dist.all_gather_object(peaks, peak)
    if rank == 0:
        medians = {kind: statistics.median(each) for kind, each in seconds.items()}
        (folder / "cost.json").write_text(json.dumps(medians | {"peak": max(peaks)}))
    dist.destroy_process_group()


def _whole(share: Tensor) -> Sequence[Tensor]:
    """Weight and moments of one parameter, from the shares of all ranks."""
    parts = [torch.empty_like(share) for _ in range(RANKS)]
    dist.all_gather(parts, share)
    return list(torch.cat(parts, dim=1))


@contextmanager
def _digesting(wanted: bool) -> Iterator[None]:
    before = hashlib.sha256
    if not wanted:
        hashlib.sha256 = Nothing  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        hashlib.sha256 = before  # type: ignore[misc]


@contextmanager
def _watched() -> Iterator[list[int]]:
    """How far this process's memory rises above what it is at the start, in bytes."""
    told = [0]
    Path("/proc/self/clear_refs").write_text("5")
    rest = _memory("VmRSS")
    yield told
    told[0] = _memory("VmHWM") - rest


def _memory(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(field))
