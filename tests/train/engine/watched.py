"""What tests see of a run from inside: of one process, and of every rank of a launch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.full_depth.weighed import check_weight
from train import loop
from train.data.collate import Pack
from train.data.pack_stream import Stream
from train.engine.interface import Engine
from train.engine.trained import is_trained
from train.loop import Training
from train.model.modeling import SlowFastForConditionalGeneration


class NotANumber(torch.autograd.Function):
    """Losses as they are, and a gradient of NaN."""

    @staticmethod
    def forward(_: Any, loss: Tensor) -> Tensor:
        return loss.clone()

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return gradient * torch.nan


def plant(patch: pytest.MonkeyPatch, steps: set[int]) -> None:
    """On the last rank, the gradients of these steps (counted from 1) are NaN; losses are not."""
    drawn, packed_losses, now = (
        Stream.steps,
        SlowFastForConditionalGeneration.packed_losses,
        [False],
    )

    def marked(stream: Stream) -> Iterator[list[Pack]]:
        for packs in drawn(stream):
            last = stream.sampler.rank == stream.sampler.world_size - 1
            now[0] = last and stream.step in steps
            yield packs

    def planted(model: SlowFastForConditionalGeneration, row: Any) -> Tensor:
        losses = packed_losses(model, row)
        return NotANumber.apply(losses) if now[0] else losses  # type: ignore[no-any-return]

    patch.setattr(Stream, "steps", marked)
    patch.setattr(SlowFastForConditionalGeneration, "packed_losses", planted)


def watch(patch: pytest.MonkeyPatch) -> None:
    """Look at every engine before its first step, as it is wrapped, and after its last."""
    trained = loop.train

    def train(run: Training) -> str:
        look(run)
        check_weight(patch, run)
        signal = trained(run)
        look(run)
        return signal

    patch.setattr(loop, "train", train)


def look(run: Training) -> None:
    """The engine trains the config's parts and no others, and holds states of those alone."""
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[run.config.precision]
    model = getattr(run.engine, "engine", run.engine.model)  # as DeepSpeed wraps it
    wanted = 0
    for name, parameter in model.named_parameters():
        name = name.removeprefix("module.")
        assert parameter.requires_grad == is_trained(run.config, name), name
        assert parameter.dtype == dtype, name
        assert not getattr(parameter, "ds_persist", False), name
        wanted += getattr(parameter, "ds_shape", parameter.shape).numel() * parameter.requires_grad
    assert all(b.dtype == torch.float32 for b in model.buffers() if b.is_floating_point())
    held = moments(run.engine)
    assert all(moment.dtype == torch.float32 for moment in held)
    if run.config.offload != "none":
        zero = run.engine.engine._config.zero_config  # type: ignore[attr-defined]
        assert zero.offload_optimizer.device == "cpu"
        assert (zero.offload_param is not None) == (run.config.offload == "weights")
    # padding of flat partitions: a few elements a group and rank
    assert 0 <= sum(m.numel() for m in held) * run.engine.world_size - wanted <= 6 * 64


def moments(engine: Engine) -> list[Tensor]:
    """Adam's first moments on this rank."""
    optimizer = getattr(engine, "optimizer", None) or engine.engine.optimizer.optimizer  # type: ignore[attr-defined]
    return [state["exp_avg"] for state in optimizer.state.values()]
