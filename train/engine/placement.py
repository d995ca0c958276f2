"""Where parameters lie while a model is made: nobody holds a second copy of it.

One process, and every rank under ZeRO-1 and 2, holds one copy in the run's precision on its device;
a rank under ZeRO-3 holds its share of each parameter from the start (`deepspeed.zero.Init`).
The parameters hold nothing yet: `put` gives them their values one by one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from transformers.initialization import no_init_weights

from train.config import Config
from train.ranks import join_group


@contextmanager
def unfilled(config: Config) -> Iterator[None]:
    """What is made inside has its parameters where the config's engine wants them, unset."""
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    before = torch.get_default_dtype()
    with ExitStack() as stack:
        stack.enter_context(no_init_weights())
        if config.engine == "deepspeed" and config.zero_stage == 3:
            _enter_sharded(config, stack)
        elif torch.cuda.is_available():
            stack.enter_context(torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))))
        torch.set_default_dtype(dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


def _enter_sharded(config: Config, stack: ExitStack) -> None:
    """ZeRO-3: each parameter is parted among the ranks as soon as its module is made."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # or DeepSpeed warns
    from transformers.integrations.deepspeed import prevent_arange_dtype_change

    from train.engine.deepspeed_engine import deepspeed_config, import_deepspeed

    deepspeed = import_deepspeed()
    join_group()
    deepspeed.init_distributed(dist_init_required=False, auto_mpi_discovery=False)
    # rotary frequencies stay in fp32
    stack.enter_context(prevent_arange_dtype_change())
    stack.enter_context(deepspeed.zero.Init(config_dict_or_path=deepspeed_config(config, 1)))


def put(parameter: nn.Parameter, value: Tensor) -> None:
    """Take over a whole value, or this rank's share of it; under ZeRO-3 every rank calls."""
    with torch.no_grad():
        if not hasattr(parameter, "ds_id"):
            parameter.copy_(value)
            return
        from deepspeed.runtime.zero import GatheredParameters

        with GatheredParameters([parameter], modifier_rank=0):
            parameter.data.copy_(value)
