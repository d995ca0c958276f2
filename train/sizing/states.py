"""Bytes of weights, gradients and optimizer states that a rank holds, by the config's own rules."""

from __future__ import annotations

from collections.abc import Mapping

from train.config import Config


def state_bytes(config: Config, parameters: Mapping[str, int], ranks: int = 1) -> dict[str, float]:
    """Kind of state -> bytes on the device of one of `ranks`; `parameters` counts those of a part.

    ZeRO-1 shares master weights and moments among the ranks, ZeRO-2 also gradients, ZeRO-3 weights
    too. Buckets and what is gathered for a while come on top.
    """
    trained = sum(n for part, n in parameters.items() if getattr(config.parts, part).train)
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
    moments = 4 if config.optimizer_state == "bf16" else 8
    on_device = 0 if config.offload != "none" else 1
    weights = 0 if config.offload == "weights" else width
    return {
        "weights": sum(parameters.values()) * weights / (ranks if stage == 3 else 1),
        "gradients": trained * added / (ranks if stage >= 2 else 1),
        "master weights": trained * copies * on_device / ranks,
        "Adam moments": trained * moments * on_device / ranks,
    }
