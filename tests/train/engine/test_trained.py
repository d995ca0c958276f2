"""Decay groups, digests and the cast, on models in memory; runs are in test_parts.py."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tests.support.tiny_model import LAYOUT, layout_of, mixed_samples, tiny_model
from train.config import Config, Part, Parts
from train.data.collate import build_pack
from train.engine.trained import (
    check_trained,
    decays,
    frozen_parts,
    make_optimizer,
    prepare,
    trained,
)
from train.model.inputs import pack_inputs
from train.model.parts import part_of
from train.model.projectors import ARRANGEMENTS, PROJECTORS

NEVER = ("learned", "queries", "position_embedding", "bias", "norm")
FROZEN_TOWER = Config(parts=Parts(tower=Part(train=False)))


def model_with(projector: str) -> PreTrainedModel:
    arrangement = ARRANGEMENTS.get(projector, "gsf")
    times = {} if arrangement == "v1" else {"timestamps": "learned"}  # v1 has no ends of frames
    layout = layout_of(arrangement, memory_tokens=2, **times)
    return tiny_model(projector=projector, layout=layout)


@pytest.mark.parametrize("projector", PROJECTORS)
def test_matrices_and_word_vectors_decay_and_nothing_else(projector: str) -> None:
    model = model_with(projector)
    named = dict(model.named_parameters())
    decayed = {name for name in named if decays(model, name)}
    for name, parameter in named.items():
        never = any(word in name.lower() for word in NEVER) or parameter.ndim < 2
        assert (name in decayed) != never or "about" in name, name
    assert "language_model.model.embed_tokens.weight" in decayed
    assert "vision_tower.embeddings.position_embedding" not in decayed
    assert "projector.learned" not in decayed and named["projector.learned"].ndim == 2


def test_a_position_table_of_a_decoder_never_decays_and_its_experts_do() -> None:
    small = {"vocab_size": 16, "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    gpt2 = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", n_inner=8, **small))
    experts = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(
            "qwen2_moe",
            **small,
            intermediate_size=8,
            moe_intermediate_size=8,
            shared_expert_intermediate_size=8,
            num_key_value_heads=1,
            num_experts=2,
            num_experts_per_tok=1,
            decoder_sparse_step=1,
        )
    )
    for decoder in (gpt2, experts):
        model = tiny_model()
        model.language_model = decoder
        named = dict(model.named_parameters())
        own = {name for name in named if part_of(name) == "decoder" and decays(model, name)}
        assert own
        for name in named.keys() - own:
            if part_of(name) == "decoder":
                assert named[name].ndim < 2 or "wpe" in name, name
        assert not [name for name in own if "wpe" in name or "norm" in name or "ln_" in name]


def test_groups_carry_the_rate_and_decay_of_their_part() -> None:
    model = tiny_model()
    parts = Parts(
        tower=Part(train=False),
        projector=Part(lr=1e-3, weight_decay=0.1),
        decoder=Part(lr=1e-5, weight_decay=0.2),
    )
    config = Config(parts=parts)
    prepare(config, model)
    groups = make_optimizer(config, model, trained(model)).param_groups
    found = [(g["part"], g["initial_lr"], g["weight_decay"]) for g in groups]
    assert found == [
        ("projector", 1e-3, 0.1),
        ("projector", 1e-3, 0.0),
        ("decoder", 1e-5, 0.2),
        ("decoder", 1e-5, 0.0),
    ]
    assert sum(len(g["params"]) for g in groups) == len(trained(model))


def test_freezing_after_the_fact_is_seen() -> None:
    model = tiny_model()
    prepare(FROZEN_TOWER, model)
    check_trained(FROZEN_TOWER, model)
    model.vision_tower.layers[0].mlp.fc1.weight.requires_grad_(True)
    with pytest.raises(RuntimeError, match=r"vision_tower\.layers\.0\.mlp\.fc1\.weight is trained"):
        check_trained(FROZEN_TOWER, model)


@pytest.mark.parametrize("is_trained", [True, False])
def test_a_frozen_tower_keeps_nothing_for_the_backward_pass(is_trained: bool) -> None:
    model, kept, features = tiny_model(), [], []
    prepare(Config(parts=Parts(tower=Part(train=is_trained))), model)
    tower = model.vision_tower.forward

    def forward(patches: Tensor, grids: Tensor) -> Tensor:
        with saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda t: t):
            features.append(tower(patches, grids))
        return features[0]

    model.vision_tower.forward = forward
    loss = model(**pack_inputs(build_pack(mixed_samples(), LAYOUT))).loss
    loss.backward()
    assert bool(kept) == features[0].requires_grad == is_trained
    grads = [p.grad is not None for p in model.vision_tower.parameters()]
    assert grads == [is_trained] * len(grads)


def test_the_digest_of_a_frozen_part_is_of_its_weights() -> None:
    found = [frozen_parts(FROZEN_TOWER, tiny_model(seed)) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    assert found[0].keys() == {"tower"}
    changed = tiny_model()
    with torch.no_grad():
        changed.language_model.model.norm.weight.add_(1)
    assert frozen_parts(FROZEN_TOWER, changed) == found[0]
    moved = replace(FROZEN_TOWER, parts=Parts(tower=Part(train=False, init="a/folder")))
    assert frozen_parts(moved, tiny_model())["tower"] == found[0]["tower"] | {"source": "a/folder"}


def test_the_cast_leaves_rotary_frequencies_in_fp32() -> None:
    model = tiny_model()
    prepare(Config(precision="bf16"), model)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert {b.dtype for b in model.buffers() if b.is_floating_point()} == {torch.float32}
    rotary = model.language_model.model.rotary_emb
    positions = torch.arange(29_000, 30_000)
    cos, sin = rotary(torch.zeros(1, 1, 8, dtype=torch.bfloat16), positions[None])
    config = model.config.text_config
    size = config.hidden_size // config.num_attention_heads
    theta = config.rope_parameters["rope_theta"]
    waves = theta ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    angles = torch.cat([positions[:, None] * waves] * 2, dim=1)
    # bf16 keeps eight bits: half a unit in the last place of 1, and fp32's angles at 30,000
    assert (cos[0] - angles.cos()).abs().max() < 2**-8
    assert (sin[0] - angles.sin()).abs().max() < 2**-8
    rounded = torch.cat([positions[:, None].bfloat16() * waves.bfloat16()] * 2, dim=1)
    assert (rounded.float().cos() - angles.cos()).abs().max() > 1  # what angles in bf16 would be
