"""What a person watches of a step: how fast, how full, how much of the device was put to use.

MFU counts the operations that the model asks for: the tower billed per patch and attention per
frame or sample (train.sizing.flops), a part that is not trained once for its forward pass and once
more where gradients pass through it. HFU counts what is computed again as well.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Sequence

import numpy as np
import torch

from train.config import Config
from train.data.collate import Pack
from train.model.config import SlowFastConfig
from train.sizing.flops import Work, forward_flops
from train.sizing.passes import billed

PEAKS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H800": 989e12,
    "A100": 312e12,
    "A800": 312e12,
    "L40S": 362e12,
    "RTX 4090": 165e12,
}
"""Dense bf16 operations per second by device name, as the makers publish them."""


def peak_of(device_name: str) -> float | None:
    """The peak of a device, if its name is known."""
    # longer names stand before their beginnings: "H100 PCIe" before "H100"
    return next((peak for name, peak in PEAKS.items() if name in device_name), None)


def operations(config: Config, model: SlowFastConfig, packs: Sequence[Pack]) -> tuple[float, float]:
    """(asked for, computed) in one step over these packs, forward and backward."""
    useful, computed = 0.0, 0.0
    for pack in packs:
        grids = np.concatenate([pack.grids, pack.memory.grids])
        work = Work(
            frames=(grids[:, 0] * grids[:, 1]).tolist(),
            samples=np.diff(pack.cu_seqlens).tolist(),
            pooled=len(pack.patch_index.sizes),
            supervised=pack.supervised,
        )
        asked, again = billed(config, forward_flops(model, work))
        useful += asked
        computed += asked + again
    return useful, computed


def figures(
    config: Config,
    pack_tokens: int,
    tokens: int,
    seconds: float,
    flops: Callable[[], tuple[float, float]],
) -> dict[str, float | None]:
    """What a line says of a step of all ranks that took so many seconds.

    `flops` counts those of this rank (see `operations`), where the device's peak is known.
    """
    line: dict[str, float | None] = {
        "tokens_per_second": tokens / seconds,
        "fill": tokens / (config.global_batch * pack_tokens),
        "memory_bytes": float(memory_bytes()),
        "mfu": None,
        "hfu": None,
    }
    cuda = torch.cuda.is_available() and config.precision == "bf16"
    if cuda and (peak := peak_of(torch.cuda.get_device_name())):
        model_flops, computed = flops()
        line |= {"mfu": model_flops / (seconds * peak), "hfu": computed / (seconds * peak)}
    return line


def memory_bytes() -> int:
    """The most that this process has held so far: of the GPU, or where there is none, of memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    # Linux counts it in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
