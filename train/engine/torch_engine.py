"""One process on one device, with plain torch: an engine (train.engine.interface)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from train.config import Config
from train.data.collate import Pack
from train.engine.micro_batches import named_where_memory_ends, on_device, scored
from train.engine.state_files import MOMENTS, read_state, write_state
from train.engine.trained import check_trained, make_optimizer, prepare, trained
from train.model.pretrained import SlowFastPreTrainedModel


class TorchEngine:
    """One process on one device.

    The optimizer works on `masters`: in fp32 they are the model's own parameters; under bf16 they
    are fp32 copies, which take each gradient over as it is made and are rounded into the model
    after each update. With `optimizer_state: bf16` there are no copies.
    """

    rank, world_size = 0, 1

    def __init__(self, config: Config, model: SlowFastPreTrainedModel) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = model
        prepare(config, model)
        nn.Module.to(model, self.device)
        check_trained(config, model)
        self.parameters = trained(model)
        # bf16 weights lose small updates in rounding: an fp32 master keeps them (Micikevicius et
        # al., 2018)
        self.masters: dict[str, Tensor] = dict(self.parameters)
        if config.precision == "bf16" and config.optimizer_state == "fp32":
            self.masters = {name: p.detach().float() for name, p in self.parameters.items()}
            for name, parameter in self.parameters.items():
                parameter.register_post_accumulate_grad_hook(_handing_over(self.masters[name]))
        self.optimizer = make_optimizer(config, model, self.masters)
        self.clip = config.optimizer.clip
        # moments exist before the first step: a checkpoint of step 0 is like any other
        for master in self.masters.values():
            self._put_moments(master, *(torch.zeros_like(master) for _ in MOMENTS), updates=0)

    def totals(self, *values: float) -> list[float]:
        """One process is all there is to sum over."""
        return list(values)

    def backward(self, packs: Sequence[Pack], denominator: int) -> list[Tensor]:
        """One forward and one backward pass per pack; the losses of their rows."""
        losses = []
        for pack, inputs in on_device(packs, self.device):
            with named_where_memory_ends(pack):
                made = self.model(**inputs)
                (made.loss / denominator).backward()
            losses.append(made.row_losses)
        # looked at when all is done: a look waits for the device
        return [each.cpu() for each in losses]

    def score(self, pack: Pack) -> float:
        """The summed loss, without gradients."""
        return scored(self.model, pack, self.device)

    def norm(self) -> float:
        """The norm of all gradients before clipping."""
        # kept for `update`, which clips by it
        self._norm = nn.utils.get_total_norm(self._gradients())
        return self._norm.item()

    def update(self, share: float) -> None:
        """Clip by the last `norm`, step, clear."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * share
        nn.utils.clip_grads_with_norm_(self.masters.values(), self.clip, self._norm)
        self.optimizer.step()
        self._round()
        self.discard()

    def discard(self) -> None:
        """Clear the gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def save(self, folder: Path) -> dict[str, str]:
        """Weights and moments, by parameter name."""
        shapes = {name: master.shape for name, master in self.masters.items()}
        return write_state(folder, shapes, self._whole)

    def load(self, folder: Path, updates: int) -> None:
        """Every parameter has taken part in all updates: Adam's count is the same for all."""
        shapes = {name: master.shape for name, master in self.masters.items()}
        for name, (weight, *moments) in read_state(folder, shapes):
            master = self.masters[name]
            with torch.no_grad():
                master.copy_(weight)
            held = [moment.to(self.device, master.dtype) for moment in moments]
            self._put_moments(master, *held, updates=updates)
        self._round()

    def _gradients(self) -> list[Tensor]:
        return [master.grad for master in self.masters.values() if master.grad is not None]

    # only bf16 copies have to follow; in fp32 they are the same tensors
    def _round(self) -> None:
        """The masters into the model, where they are not the same tensors."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                if parameter is not self.masters[name]:
                    parameter.copy_(self.masters[name])

    def _put_moments(self, master: Tensor, *moments: Tensor, updates: int) -> None:
        state = dict(zip(MOMENTS, moments, strict=True))
        self.optimizer.state[master] = state | {
            "step": torch.tensor(float(updates), device=self.device)
        }

    def _whole(self, name: str) -> list[Tensor]:
        master = self.masters[name]
        return [master, *(self.optimizer.state[master][kind] for kind in MOMENTS)]

    def barrier(self) -> None:
        """One process waits for nobody."""

    def close(self) -> None:
        """Nothing to take down."""


def _handing_over(master: Tensor) -> Callable[[Tensor], None]:
    """What is called when a parameter has got a gradient: its fp32 master adds it up."""

    def hand_over(parameter: Tensor) -> None:
        assert parameter.grad is not None
        gradient = parameter.grad.float()
        master.grad = gradient if master.grad is None else master.grad.add_(gradient)
        parameter.grad = None

    return hand_over
