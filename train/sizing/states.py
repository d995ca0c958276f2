"""Bytes of weights, gradients and optimizer states that a rank holds, by the config's own rules."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from train.config import Config

BUCKET = 500_000_000
"""Elements that DeepSpeed reduces at once (`reduce_bucket_size`), unless there are fewer."""
LIVE = 1_000_000_000
"""Elements that ZeRO-3 keeps gathered at most (`stage3_max_live_parameters`)."""
NONE: Mapping[str, int] = MappingProxyType({})
"""No part has an adapter."""


def state_bytes(
    config: Config,
    parameters: Mapping[str, int],
    ranks: int = 1,
    adapters: Mapping[str, int] = NONE,
) -> dict[str, float]:
    """Kind of state -> bytes on the device of one of `ranks`; `parameters` counts a part's own,
    `adapters` those of its adapter.

    ZeRO-1 shares master weights and moments among the ranks, ZeRO-2 also gradients, ZeRO-3 weights
    too. `passing_bytes` come on top while a step runs.
    """
    # mixed precision costs 16 bytes a trained parameter (ZeRO, Rajbhandari et al., 2020, section 3)
    trained = _trained(config, parameters, adapters)
    is_half = config.precision == "bf16"
    stage = config.zero_stage
    if config.engine == "torch":
        ranks, stage = 1, 0
    copies = 4 if is_half and config.optimizer_state == "fp32" else 0
    if config.engine == "deepspeed":
        copies = 4  # ZeRO keeps master weights in fp32 runs too
    width = 2 if is_half else 4
    # they are added up in fp32: in the masters, or under ZeRO-2 and 3 by the config of the engine
    added = 4 if copies and stage != 1 else width
    # two of them, for the mean and for the mean of squares
    moments = 4 if config.optimizer_state == "bf16" else 8
    # what is offloaded lies in the memory of the host
    on_device = 0 if config.offload != "none" else 1
    weights = 0 if config.offload == "weights" else width
    # each stage shares one more kind of state among the ranks
    return {
        "weights": _all(parameters, adapters) * weights / (ranks if stage == 3 else 1),
        "gradients": trained * added / (ranks if stage >= 2 else 1),
        "master weights": trained * copies * on_device / ranks,
        "Adam moments": trained * moments * on_device / ranks,
    }


def passing_bytes(
    config: Config, parameters: Mapping[str, int], adapters: Mapping[str, int] = NONE
) -> dict[str, float]:
    """What DeepSpeed needs on every rank beside states and activations while a step runs: the
    bucket in which gradients are reduced, and under ZeRO-3 the weights that are gathered (its
    defaults bound both). ZeRO-3 holds its bucket between steps too."""
    if config.engine == "torch":
        return {"bucket": 0, "gathered": 0}
    trained = _trained(config, parameters, adapters)
    width = 2 if config.precision == "bf16" else 4
    # whole weights of the layers at hand, frozen ones too
    gathered = min(_all(parameters, adapters), LIVE) if config.zero_stage == 3 else 0
    return {"bucket": width * min(trained, BUCKET), "gathered": width * gathered}


def _all(parameters: Mapping[str, int], adapters: Mapping[str, int]) -> int:
    return sum(parameters.values()) + sum(adapters.get(part, 0) for part in parameters)


def _trained(config: Config, parameters: Mapping[str, int], adapters: Mapping[str, int]) -> int:
    """Adapters, and the weights of parts that have none and are trained."""
    own = sum(n for part, n in parameters.items() if getattr(config.parts, part).trains_own)
    return own + sum(adapters.get(part, 0) for part in parameters)
