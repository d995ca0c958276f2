"""One process, or DeepSpeed ZeRO 1/2/3, behind one interface. The only `import deepspeed`.

Both take gradients of (summed loss / one global denominator): `backward` over the micro-batches of
a step gives this rank's summed loss, then `update` steps once. An engine sums over ranks, and saves
to and loads from a folder. DeepSpeed averages gradients over ranks: `backward` multiplies by the
world size, once.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from shards.errors import UserError
from train.config import Config, Optimizer
from train.model.modeling import pack_inputs
from train.packs import Pack

_TAG = "state"
_TIMEOUT = timedelta(minutes=10)


class Engine(Protocol):
    """What the loop needs of an engine; every method is called by all ranks alike."""

    rank: int
    world_size: int
    model: PreTrainedModel

    def total(self, value: float) -> float: ...
    def backward(self, packs: Sequence[Pack], denominator: int) -> float: ...
    def update(self, lr: float) -> float: ...
    def save(self, folder: Path) -> None: ...
    def load(self, folder: Path) -> None: ...
    def barrier(self) -> None: ...
    def weights(self) -> dict[str, Tensor]: ...
    def close(self) -> None: ...


def open_engine(config: Config, model: PreTrainedModel) -> Engine:
    """The engine the config asks for; UserError if the launch does not fit it."""
    # scattered sums (index_add, index_put) otherwise add in the order their threads arrive
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if config.engine == "deepspeed":
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
        save_file(self.weights(), folder / "model.safetensors")
        torch.save(self.optimizer.state_dict(), folder / "optimizer.pt")

    def load(self, folder: Path) -> None:
        """Only ever a folder whose digests `checkpoint.latest` has verified."""
        set_weights(self.model, load_file(folder / "model.safetensors"))
        state = torch.load(folder / "optimizer.pt", weights_only=True, map_location=self.device)
        self.optimizer.load_state_dict(state)

    def barrier(self) -> None:
        """One process waits for nobody."""

    def weights(self) -> dict[str, Tensor]:
        return distinct_weights(self.model)

    def close(self) -> None:
        """Nothing to take down."""


class DeepSpeedEngine:
    """Ranks started by torchrun (or one process alone); gloo on CPU, NCCL on GPUs."""

    def __init__(self, config: Config, model: PreTrainedModel) -> None:
        deepspeed = _import_deepspeed()
        self.device = _join_group()
        deepspeed.init_distributed(dist_init_required=False, auto_mpi_discovery=False)
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.model = model
        nn.Module.to(model, self.device)
        self.zero_stage = config.zero_stage
        self.deepspeed = deepspeed
        self.engine, *_ = deepspeed.initialize(
            model=self.model,
            optimizer=make_optimizer(config.optimizer, model),
            config=_deepspeed_config(config),
            dist_init_required=False,
        )

    def total(self, value: float) -> float:
        """The sum over ranks, in double precision, the same on every rank."""
        tensor = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return tensor.item()

    def backward(self, packs: Sequence[Pack], denominator: int) -> float:
        summed = 0.0
        for number, pack in enumerate(packs, 1):
            self.engine.set_gradient_accumulation_boundary(number == len(packs))
            loss = self.engine(**pack_inputs(pack, self.device)).loss
            self.engine.backward(loss * (self.world_size / denominator))
            summed += loss.item()
        return summed

    def update(self, lr: float) -> float:
        for group in self.engine.optimizer.param_groups:
            group["lr"] = lr
        self.engine.step()
        return float(self.engine.get_global_grad_norm())

    def save(self, folder: Path) -> None:
        self.engine.save_checkpoint(str(folder), tag=_TAG, save_latest=False)

    def load(self, folder: Path) -> None:
        """DeepSpeed unpickles: only a folder whose digests `checkpoint.latest` has verified."""
        self.engine.load_checkpoint(str(folder), tag=_TAG)

    def barrier(self) -> None:
        dist.barrier()

    def weights(self) -> dict[str, Tensor]:
        """The whole model's weights, on the CPU; ZeRO-3 gathers them on every rank."""
        if self.zero_stage < 3:
            return distinct_weights(self.model)
        with self.deepspeed.zero.GatheredParameters(list(self.model.parameters())):
            return {name: w.clone() for name, w in distinct_weights(self.model).items()}

    def close(self) -> None:
        """Without this a process may abort at its exit."""
        self.engine.destroy()
        dist.destroy_process_group()


def distinct_weights(model: nn.Module) -> dict[str, Tensor]:
    """Name -> tensor on the CPU; of tied weights the first name only."""
    named = model.named_parameters(remove_duplicate=True)
    return {name: weight.detach().cpu().contiguous() for name, weight in named}


def set_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """The inverse of `distinct_weights`; UserError where names or shapes differ."""
    own = dict(model.named_parameters(remove_duplicate=True))
    wrong = sorted(set(own) ^ set(weights))
    wrong += [name for name in own if name in weights and own[name].shape != weights[name].shape]
    if wrong:
        raise UserError(
            f"the weights do not fit this model at {wrong[0]!r}; check the config's sizes"
        )
    with torch.no_grad():
        for name, weight in weights.items():
            own[name].copy_(weight)


def _import_deepspeed() -> Any:
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        import deepspeed
    except ImportError as error:
        raise UserError(
            f"engine: deepspeed cannot be imported ({error}); pip install it"
        ) from error
    # Shared-memory collectives are compiled on first use, for minutes, with a compiler that a
    # user may not have: gloo does the same sums.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def _join_group() -> torch.device:
    """Join the process group that torchrun describes, alone where it does not."""
    alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    for name, value in alone.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("MASTER_PORT", "0" if os.environ["WORLD_SIZE"] == "1" else "29500")
    has_gpu = torch.cuda.is_available()
    if not dist.is_initialized():
        dist.init_process_group("nccl" if has_gpu else "gloo", timeout=_TIMEOUT)
    if not has_gpu:
        return torch.device("cpu")
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]))


def _deepspeed_config(config: Config) -> dict[str, Any]:
    """Batch sizes of 1: how packs become steps is the loop's business, not DeepSpeed's."""
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.optimizer.clip,
        "zero_optimization": {"stage": config.zero_stage},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 1 << 30,
    }
