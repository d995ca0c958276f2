"""bf16: what is computed in fp32 all the same, against references in fp64."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from tests.support.tiny_model import layout_of, tiny_model
from tests.train.model.test_projectors import mixed
from train.config import Config
from train.data.attention_blocks import plan_blocks
from train.data.collate import build_pack
from train.engine.trained import prepare
from train.model.attention import BACKENDS
from train.model.inputs import moved, pack_inputs
from train.model.projectors import ARRANGEMENTS, PROJECTORS
from train.model.vision import Attention, OryxVisionConfig

BF16 = Config(precision="bf16")
LENGTHS = (1500, 1, 700)
"""Sums of more than 256 like terms stand still in bf16: what adds them so is far off."""


def model_of(projector: str) -> PreTrainedModel:
    arrangement = ARRANGEMENTS.get(projector, "gsf")
    times = {} if arrangement == "v1" else {"timestamps": "learned"}  # v1 has no ends of frames
    layout = layout_of(arrangement, memory_tokens=2, **times)
    return tiny_model(projector=projector, layout=layout)


@pytest.mark.parametrize("projector", PROJECTORS)
def test_every_projector_trains_in_bf16_near_fp32(projector: str) -> None:
    half, whole = model_of(projector), model_of(projector)
    prepare(BF16, half)
    with torch.no_grad():
        for name, parameter in whole.named_parameters():
            parameter.copy_(half.get_parameter(name))
    layout = half.config.layout_config()
    inputs = pack_inputs(build_pack(mixed(layout), layout))
    losses = [model(**inputs).loss for model in (half, whole)]
    assert losses[0].dtype == torch.float32
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=0.02)
    losses[0].backward()
    for name, parameter in half.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def reference(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """Attention [..., T, d] in fp64."""
    q, k, v = (x.double() for x in (q, k, v))
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    return scores.softmax(-1) @ v


@pytest.mark.parametrize("name", ["auto", "sdpa_blocks"])
def test_packed_attention_adds_up_its_softmax_in_fp32(name: str) -> None:
    torch.manual_seed(0)
    total, starts = sum(LENGTHS), np.cumsum([0, *LENGTHS])
    q, k, v = (torch.randn(1, heads, total, 8).bfloat16() for heads in (2, 1, 1))
    v += 1
    out = BACKENDS[name](q, k, v, moved(plan_blocks(starts), torch.device("cpu")), None)
    for start, stop in pairwise(starts):
        part = (x[0, :, start:stop] for x in (q, k, v))
        wanted = reference(*part, causal=True).transpose(0, 1)
        # values are near 1: one unit in the last place of bf16 is 2^-7
        assert (out[0, start:stop] - wanted).abs().max() < 2**-6


def test_the_tower_adds_up_its_softmax_in_fp32() -> None:
    torch.manual_seed(0)
    config = OryxVisionConfig(hidden_size=16, num_attention_heads=2, intermediate_size=8)
    attention = Attention(config).bfloat16()
    x = torch.randn(1200, 16).bfloat16()
    out = attention(x, [(1, 1200)])
    q, k, v = attention.qkv(x).view(1200, 3, 2, 8).permute(1, 2, 0, 3)
    wanted = reference(q, k, v, causal=False).transpose(0, 1).flatten(1)
    wanted = wanted @ attention.proj.weight.double().T + attention.proj.bias.double()
    assert (out - wanted).abs().max() < 2**-8


def test_a_sum_in_bf16_would_be_seen() -> None:
    powers = torch.ones(1200).bfloat16()
    added = torch.zeros((), dtype=torch.bfloat16)
    for power in powers:
        added = added + power
    assert added < 300
