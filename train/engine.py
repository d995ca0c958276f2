"""One process, or DeepSpeed ZeRO 1/2/3 (train.zero), behind one interface.

Both take gradients of (summed loss / one global denominator): `backward` over the micro-batches of
a step gives this rank's summed loss, then `update` steps once. An engine sums over ranks, and saves
to and loads from a folder what any other engine, on any number of ranks, can go on from.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from shards.errors import UserError
from train.config import Config, Optimizer
from train.model.modeling import pack_inputs
from train.packs import Pack
from train.state import MOMENTS, read_state, write_state


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


def open_engine(config: Config, model: PreTrainedModel) -> Engine:
    """The engine the config asks for; UserError if the launch does not fit it."""
    # scattered sums (index_add, index_put) otherwise add in the order their threads arrive
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    if not torch.cuda.is_available():
        # transformers imports DeepSpeed where it is installed, which warns unless it is told
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if config.engine == "deepspeed":
        from train.zero import DeepSpeedEngine

        return DeepSpeedEngine(config, model)
    if world_size != 1:
        raise UserError(
            f"engine: torch trains one process, this launch has {world_size}; "
            "set `engine: deepspeed` in the config"
        )
    return TorchEngine(config, model)


def make_optimizer(rule: Optimizer, model: nn.Module) -> torch.optim.AdamW:
    """AdamW; matrices decay, vectors do not."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": rule.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rule.lr, betas=rule.betas, fused=True)


class TorchEngine:
    """One process on one device."""

    rank, world_size = 0, 1

    def __init__(self, config: Config, model: PreTrainedModel) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = model
        nn.Module.to(model, self.device)
        self.optimizer = make_optimizer(config.optimizer, model)
        self.clip = config.optimizer.clip

    def total(self, value: float) -> float:
        return value

    def backward(self, packs: Sequence[Pack], denominator: int) -> float:
        summed = 0.0
        for pack in packs:
            loss = self.model(**pack_inputs(pack, self.device)).loss
            (loss / denominator).backward()
            summed += loss.item()
        return summed

    def update(self, lr: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm.item()

    def save(self, folder: Path) -> None:
        write_state(folder, shapes_of(self.model), self._whole)

    def load(self, folder: Path, step: int) -> None:
        for name, (weight, *moments) in read_state(folder, shapes_of(self.model)):
            parameter = self.model.get_parameter(name)
            with torch.no_grad():
                parameter.copy_(weight)
            held = [moment.to(self.device) for moment in moments]
            self.optimizer.state[parameter] = dict(zip(MOMENTS, held, strict=True)) | {
                "step": torch.tensor(float(step), device=self.device)
            }

    def _whole(self, name: str) -> list[Tensor]:
        parameter = self.model.get_parameter(name)
        return [parameter, *(self.optimizer.state[parameter][kind] for kind in MOMENTS)]

    def barrier(self) -> None:
        """One process waits for nobody."""

    def weights(self) -> dict[str, Tensor]:
        return distinct_weights(self.model)

    def close(self) -> None:
        """Nothing to take down."""


def distinct_weights(model: nn.Module) -> dict[str, Tensor]:
    """Name -> tensor on the CPU; of tied weights the first name only."""
    named = model.named_parameters(remove_duplicate=True)
    return {name: weight.detach().cpu().contiguous() for name, weight in named}


def shapes_of(model: nn.Module) -> dict[str, torch.Size]:
    """Name -> shape, of tied weights the first name only."""
    return {name: weight.shape for name, weight in model.named_parameters(remove_duplicate=True)}
