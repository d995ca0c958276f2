"""DeepSpeed ZeRO 1/2/3 as an engine (train.engine.interface). The only `import deepspeed`.

DeepSpeed averages gradients over ranks: `backward` multiplies by the world size, once. What it
saves is written by parameter name (train.engine.state_files), not as DeepSpeed's own partitions, so
that another number of ranks, another stage or a single process goes on from it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import pad

from shards.errors import UserError
from train.config import Config
from train.data.collate import Pack
from train.engine.interface import whole_shape
from train.engine.micro_batches import named_where_memory_ends, on_device, scored
from train.engine.state_files import MOMENTS, read_state, write_state
from train.engine.trained import check_trained, make_optimizer, prepare, trained
from train.model.pretrained import SlowFastPreTrainedModel
from train.ranks import join_group

_BUCKET = 500_000_000  # elements: DeepSpeed's default
_NORMS = {1: "scaled_global_norm", 2: "scaled_global_norm", 3: "_get_norm_groups"}
"""The method by which a ZeRO stage learns the norm that it clips by, and refuses to step by."""


class DeepSpeedEngine:
    """Ranks started by torchrun (or one process alone); gloo on CPU, NCCL on GPUs."""

    def __init__(self, config: Config, model: SlowFastPreTrainedModel) -> None:
        deepspeed = import_deepspeed()
        self.device = join_group()
        deepspeed.init_distributed(dist_init_required=False, auto_mpi_discovery=False)
        # one process group for all: DeepSpeed's own start would look for MPI
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.model = model
        prepare(config, model)
        nn.Module.to(model, self.device)
        parameters = trained(model)
        # shapes before DeepSpeed shards the parameters
        self.shapes = {name: whole_shape(parameter) for name, parameter in parameters.items()}
        self.zero_stage = config.zero_stage
        self.deepspeed = deepspeed
        self.combined = deepspeed.runtime.utils.combine_grad_norm_groups
        self.engine, *_ = deepspeed.initialize(
            model=self.model,
            optimizer=make_optimizer(config, model, parameters),
            config=deepspeed_config(config, sum(shape.numel() for shape in self.shapes.values())),
            dist_init_required=False,
        )
        check_trained(config, self.engine.module)
        self.moments = self._start_moments()

    def totals(self, *values: float) -> list[float]:
        """The sums over ranks, in double precision, the same on every rank."""
        # double precision: sums of counts and losses over many ranks lose nothing
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return tensor.tolist()

    def backward(self, packs: Sequence[Pack], denominator: int) -> list[Tensor]:
        """One forward and one backward pass per pack; the last one ends the accumulation."""
        losses = []
        for number, (pack, inputs) in enumerate(on_device(packs, self.device), 1):
            self.engine.set_gradient_accumulation_boundary(number == len(packs))
            with named_where_memory_ends(pack):
                made = self.engine(**inputs)
                # DeepSpeed averages gradients over ranks, our denominator is already that of all of
                # them
                self.engine.backward(made.loss * (self.world_size / denominator))
            losses.append(made.row_losses)
        return [each.cpu() for each in losses]

    def score(self, pack: Pack) -> float:
        """The summed loss, without gradients; under ZeRO-3 every rank takes part."""
        return scored(self.engine, pack, self.device)

    def norm(self) -> float:
        """What DeepSpeed is about to clip by; infinite if a gradient is not finite."""
        # the norm that DeepSpeed itself clips by, so that the guard sees the same number
        zero = self.engine.optimizer
        if self.zero_stage < 3:
            return float(zero.scaled_global_norm())
        return float(self.combined(zero._get_norm_groups()))

    def update(self, share: float) -> None:
        """DeepSpeed clips as its configuration says."""
        # `initial_lr` is each part's highest rate; the schedule is a share of it
        for group in self.engine.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * share
        self.engine.step()

    def discard(self) -> None:
        """A step whose norm is infinite is one that DeepSpeed does not take."""
        zero = self.engine.optimizer
        name = _NORMS[self.zero_stage]
        infinite = torch.tensor(math.inf, device=self.device)
        # only its own way of skipping a step clears all of its buffers
        setattr(zero, name, lambda: [infinite] if self.zero_stage == 3 else infinite)
        self.engine.step()
        delattr(zero, name)

    def save(self, folder: Path) -> dict[str, str]:
        """Every rank gathers each parameter, one at a time; they share the files."""
        return write_state(folder, self.shapes, self._whole, self.rank, self.world_size)

    def load(self, folder: Path, updates: int) -> None:
        """Of tensors that are mapped, not read, each rank takes its parts."""
        for state in self.moments:
            # Adam's count is one number for all
            state["step"].fill_(updates)
        put = self._put_sharded if self.zero_stage == 3 else self._put
        for name, tensors in read_state(folder, self.shapes):
            put(self.model.get_parameter(name), *tensors)
        # bf16 parameters follow from the fp32 masters
        if self.zero_stage < 3:
            self.engine.optimizer.update_lp_params()

    def _whole(self, name: str) -> list[Tensor]:
        parameter = self.model.get_parameter(name)
        tools = self.deepspeed.utils
        moments = [tools.safe_get_full_optimizer_state(parameter, kind) for kind in MOMENTS]
        return [tools.safe_get_full_fp32_param(parameter), *moments]

    def _start_moments(self) -> list[dict[str, Tensor]]:
        """Moments of zeros, before any step. Left alone, ZeRO 1 and 2 find those of the first of
        our groups of parameters only."""
        zero = self.engine.optimizer
        sharded = self.zero_stage == 3
        # ZeRO-3 shards each parameter, ZeRO 1 and 2 one flat buffer a group
        flats = (
            zero.fp32_partitioned_groups_flat if sharded else zero.single_partition_of_fp32_groups
        )
        for flat in flats:
            zero.optimizer.state[flat] = {
                "step": torch.zeros((), device=flat.device),
                **{kind: torch.zeros_like(flat) for kind in MOMENTS},
            }
        if not sharded:
            zero._lazy_init_hp_params_optimizer_state()
        return [zero.optimizer.state[flat] for flat in flats]

    def _put(self, parameter: nn.Parameter, weight: Tensor, *moments: Tensor) -> None:
        """Each rank keeps its part of whole tensors; ZeRO 1 and 2."""
        tools = self.deepspeed.utils
        tools.safe_set_full_fp32_param(parameter, weight)
        for kind, moment in zip(MOMENTS, moments, strict=True):
            tools.safe_set_full_optimizer_state(parameter, moment, kind)

    def _put_sharded(self, parameter: nn.Parameter, weight: Tensor, *moments: Tensor) -> None:
        """The same for ZeRO-3, whose parts are all of one size, the last padded with zeros."""
        tools = self.deepspeed.utils
        with self.deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
            if self.rank == 0:
                parameter.data.copy_(weight)
        tools.safe_set_local_fp32_param(parameter, self._part(weight))
        for kind, moment in zip(MOMENTS, moments, strict=True):
            tools.safe_set_local_optimizer_state(parameter, self._part(moment), kind)

    def _part(self, whole: Tensor) -> Tensor:
        # equal shares, the last one padded: as DeepSpeed partitions (ZeRO, Rajbhandari et al.,
        # 2020)
        size = -(-whole.numel() // self.world_size)
        share = whole.flatten()[self.rank * size :][:size]
        return pad(share, (0, size - share.numel())).to(self.device)

    def barrier(self) -> None:
        """Wait until every rank is here."""
        dist.barrier()

    def close(self) -> None:
        """Let go of DeepSpeed's hooks and buffers."""
        self.engine.destroy()


def import_deepspeed() -> Any:
    """DeepSpeed as a module, told what it need not warn of; UserError where it is missing."""
    try:
        import deepspeed
    except ImportError as error:
        raise UserError(
            f"engine: deepspeed cannot be imported ({error}); pip install it"
        ) from error
    # DeepSpeed's calls, not a user's: torch 2.13 would say so on every one of them.
    warnings.filterwarnings("ignore", "`torch.distributed.*is deprecated", FutureWarning)
    # Shared-memory collectives are compiled on first use, for minutes, with a compiler that a
    # user may not have: gloo does the same sums.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def deepspeed_config(config: Config, parameters: int) -> dict[str, Any]:
    """Batch sizes of 1: how packs become steps is the loop's business, not DeepSpeed's.

    A bucket is a buffer that every step clears: none is larger than what may lie in it.
    """
    bucket = min(parameters, _BUCKET)
    # page-locked memory: copies to the device overlap with computing
    on_cpu = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    zero: dict[str, Any] = {
        "stage": config.zero_stage,
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket,
    }
    if config.offload != "none":
        zero["offload_optimizer"] = on_cpu
    if config.offload == "weights":
        zero["offload_param"] = on_cpu
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.optimizer.clip,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": config.precision == "bf16"},
        "steps_per_print": 1 << 30,
    }
    # gradients of many micro-batches are summed in fp32
    if config.zero_stage > 1:  # under ZeRO-1 this would be another optimizer, without our hooks
        settings["data_types"] = {"grad_accum_dtype": "fp32"}
    return settings
