"""What the loop needs of an engine, and what all engines share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from train.config import Optimizer
from train.data.collate import Pack


class Engine(Protocol):
    """What the loop needs of an engine; every method is called by all ranks alike."""

    rank: int
    world_size: int
    model: PreTrainedModel

    def total(self, value: float) -> float: ...
    def backward(self, packs: Sequence[Pack], denominator: int) -> float: ...
    def update(self, lr: float) -> float: ...
    def save(self, folder: Path) -> None: ...
    def load(self, folder: Path, step: int) -> None: ...
    def barrier(self) -> None: ...
    def weights(self) -> dict[str, Tensor]: ...
    def close(self) -> None: ...


def make_optimizer(rule: Optimizer, model: nn.Module) -> torch.optim.AdamW:
    """AdamW; matrices decay, vectors do not."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": rule.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rule.lr, betas=rule.betas, fused=True)


def distinct_weights(model: nn.Module) -> dict[str, Tensor]:
    """Name -> tensor on the CPU; of tied weights the first name only."""
    named = model.named_parameters(remove_duplicate=True)
    return {name: weight.detach().cpu().contiguous() for name, weight in named}


def shapes_of(model: nn.Module) -> dict[str, torch.Size]:
    """Name -> shape, of tied weights the first name only."""
    return {name: weight.shape for name, weight in model.named_parameters(remove_duplicate=True)}
