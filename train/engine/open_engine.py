"""The config's engine: one process, or DeepSpeed ZeRO 1/2/3, behind one interface.

train.engine.deepspeed_engine is imported where a config asks for it: that takes seconds.
"""

from __future__ import annotations

import os
from dataclasses import replace

import torch

from shards.errors import UserError
from train.config import PARTS, Config
from train.engine.interface import Engine
from train.engine.recompute import checkpoint_parts
from train.engine.torch_engine import TorchEngine
from train.model.pretrained import SlowFastPreTrainedModel


def open_engine(config: Config, model: SlowFastPreTrainedModel) -> Engine:
    """The engine the config asks for; UserError if the launch does not fit it."""
    # scattered sums (index_add, index_put) otherwise add in the order their threads arrive
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(is_deterministic(config))
    # it fills all new memory with NaN besides, to find reads of what nothing wrote: 7 % of a step
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if not torch.cuda.is_available():
        # transformers imports DeepSpeed where it is installed, which warns unless it is told
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    checkpoint_parts(model, [name for name in PARTS if getattr(config.parts, name).checkpoint])
    check_launch(config)
    # imported only where it is asked for
    if config.engine == "deepspeed":
        from train.engine.deepspeed_engine import DeepSpeedEngine

        return DeepSpeedEngine(config, model)
    return TorchEngine(config, model)


def for_launch(config: Config) -> Config:
    """The config under an engine that trains as many processes as this launch has: which one it is
    decides no more than the order of additions."""
    # `optimizer_state: bf16` is of one process: `check_launch` refuses it
    if _processes() > 1 and config.engine == "torch" and config.optimizer_state == "fp32":
        return replace(config, engine="deepspeed")
    return config


def check_launch(config: Config) -> None:
    """Raise UserError where there are more processes than the config's engine trains with."""
    if config.engine == "torch" and _processes() != 1:
        raise UserError(
            f"engine: torch trains one process, this launch has {_processes()}; "
            "set `engine: deepspeed` in the config"
        )


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_deterministic(config: Config) -> bool:
    """What `deterministic` says; `auto` is what costs little: yes, but for bf16 on a GPU."""
    # in bf16 on a GPU the deterministic kernels cost much, in all other cases little
    if config.deterministic == "auto":
        return not (torch.cuda.is_available() and config.precision == "bf16")
    return bool(config.deterministic)
