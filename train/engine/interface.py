"""What the loop needs of an engine, and what all engines share.

All take gradients of (summed loss / one global denominator): `backward` over the micro-batches of a
step, then `update` once. What one saves to a folder, any other goes on from, on any number of
ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from train.config import Config
from train.data.collate import Pack


class Engine(Protocol):
    """What the loop needs of an engine; every method is called by all ranks alike."""

    rank: int
    world_size: int
    model: PreTrainedModel

    def total(self, value: float) -> float:
        """The sum of `value` over ranks, the same on every rank."""
        ...

    def backward(self, packs: Sequence[Pack], denominator: int) -> float:
        """Add the gradients of all micro-batches of a step; this rank's summed loss."""
        ...

    def update(self, lr: float) -> float:
        """Clip, step once, clear; the norm of the gradients of all ranks before clipping."""
        ...

    def save(self, folder: Path) -> None:
        """Write weights and moments into `folder`, as train.engine.state_files lays them out."""
        ...

    def load(self, folder: Path, step: int) -> None:
        """Go on from what was saved after `step` steps; UserError if it is another model's."""
        ...

    def barrier(self) -> None:
        """Wait until every rank is here."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """Name -> whole tensor on the CPU; of tied weights the first name only."""
        ...

    def close(self) -> None:
        """Give back what the engine holds beside the model."""
        ...


def make_optimizer(config: Config, model: nn.Module) -> torch.optim.AdamW:
    """AdamW; matrices decay, vectors do not."""
    rule, betas = config.parts.decoder, config.optimizer.betas
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": rule.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rule.lr, betas=betas, fused=True)


def distinct_weights(model: nn.Module) -> dict[str, Tensor]:
    """Name -> tensor on the CPU; of tied weights the first name only."""
    named = model.named_parameters(remove_duplicate=True)
    return {name: weight.detach().cpu().contiguous() for name, weight in named}


def shapes_of(model: nn.Module) -> dict[str, torch.Size]:
    """Name -> shape, of tied weights the first name only."""
    return {name: weight.shape for name, weight in model.named_parameters(remove_duplicate=True)}
