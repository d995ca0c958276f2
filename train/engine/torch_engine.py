"""One process on one device, with plain torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from train.config import Config
from train.data.collate import Pack
from train.engine.interface import distinct_weights, make_optimizer, shapes_of
from train.engine.micro_batches import named_where_memory_ends, on_device
from train.engine.state_files import MOMENTS, read_state, write_state


class TorchEngine:
    """One process on one device."""

    rank, world_size = 0, 1

    def __init__(self, config: Config, model: PreTrainedModel) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = model
        nn.Module.to(model, self.device)
        self.optimizer = make_optimizer(config, model)
        self.clip = config.optimizer.clip

    def total(self, value: float) -> float:
        """One process is all there is to sum over."""
        return value

    def backward(self, packs: Sequence[Pack], denominator: int) -> float:
        """One forward and one backward pass per pack; the summed loss."""
        summed = torch.zeros((), dtype=torch.float64, device=self.device)
        for pack, inputs in on_device(packs, self.device):
            with named_where_memory_ends(pack):
                loss = self.model(**inputs).loss
                (loss / denominator).backward()
            summed += loss.detach()
        return summed.item()

    def update(self, lr: float) -> float:
        """Clip, step, clear; the norm before clipping."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm.item()

    def save(self, folder: Path) -> None:
        """Weights and moments, by parameter name."""
        write_state(folder, shapes_of(self.model), self._whole)

    def load(self, folder: Path, step: int) -> None:
        """Every parameter has taken part in all `step` steps: Adam's count is the same for all."""
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
        """Name -> tensor on the CPU."""
        return distinct_weights(self.model)

    def close(self) -> None:
        """Nothing to take down."""
