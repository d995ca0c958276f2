"""Weights are numbers: what is not finite is neither written nor read."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from shards.errors import UserError


def check_finite(named: Iterable[tuple[str, Tensor]], where: str) -> None:
    """Raise UserError that names the first tensor with a value that is no finite number."""
    for name, tensor in named:
        if not torch.isfinite(tensor).all():
            raise UserError(
                f"{where}: {name} is not finite; go on from a checkpoint or model of before, with "
                "a lower rate or `guard: {policy: skip}`"
            )
