"""Decoders that a pack trains otherwise than a sample alone are refused by name, others are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig
from transformers.modeling_outputs import CausalLMOutput

from shards.errors import UserError
from train.weights.packed_check import check_packed, losses, small_copy

SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 300_000,
}


LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "long_factor": [2.0] * 8,
    "short_factor": [1.0] * 8,
    "original_max_position_embeddings": 2048,
}


def values(family: str, **more: object) -> dict[str, Any]:
    return AutoConfig.for_model(family, **(SIZES | more)).to_dict()


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
def test_a_family_that_packs_is_taken(family: str) -> None:
    check_packed(values(family))
    packed, alone = losses(small_copy(values(family)))
    assert packed == pytest.approx(alone, rel=1e-6) and alone > 400


@pytest.mark.parametrize(
    ("family", "more", "said"),
    [
        ("mistral", {"sliding_window": 4096}, "sliding_window: 4096"),
        (
            "qwen2",
            {"use_sliding_window": True, "sliding_window": 4096, "max_window_layers": 2},
            "sliding_window",
        ),
        ("granite", {"logits_scaling": 8.0}, "logits_scaling: 8.0"),
        ("cohere", {"logit_scale": 0.5}, "logit_scale: 0.5"),
        ("gemma2", {}, "gemma2 cannot be packed"),
        ("phi", {}, "phi with these values"),  # a bias of the head
        ("gpt2", {}, "gpt2 cannot be packed"),
        ("llama4_text", {}, "attention_chunk_size"),
        ("qwen2", {"attention_dropout": 0.1}, "attention_dropout: 0.1.* set it to 0"),
        ("starcoder2", {"residual_dropout": 0.1, "embedding_dropout": 0}, "residual_dropout: 0.1"),
        ("phi3", {"resid_pdrop": 0.1, "pad_token_id": None}, "resid_pdrop: 0.1"),
        ("mixtral", {"router_jitter_noise": 0.1}, "router_jitter_noise: 0.1"),
        (
            "llama",
            {"rope_parameters": LONGROPE},
            "rope_type: longrope",
        ),
    ],
)
def test_a_family_that_would_train_wrongly_is_refused_by_name(
    family: str, more: dict[str, object], said: str
) -> None:
    with pytest.raises(UserError, match=f"decoder: {family} .*") as raised:
        check_packed(values(family, **more))
    raised.match(said)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "broken",
    [
        lambda logits: 30 * torch.tanh(logits / 30),
        lambda logits: logits * 1.01,
        lambda logits: logits + torch.linspace(-0.1, 0.1, logits.shape[-1]),
    ],
    ids=["soft cap", "scale", "head bias"],
)
def test_what_a_head_does_to_logits_shows_at_the_size_of_the_copy(
    broken: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each change is one that real families make; here to a Qwen2, whose attention packs."""
    plain = AutoModelForCausalLM.from_config

    def changed(config: PreTrainedConfig, *, attn_implementation: str) -> Any:
        model = plain(config, attn_implementation=attn_implementation)
        forward = model.forward

        def with_change(labels: Tensor, **kwargs: Any) -> Any:
            logits = broken(forward(**kwargs).logits)[0, :-1]
            return CausalLMOutput(loss=cross_entropy(logits, labels[0, 1:]))

        if attn_implementation == "eager":
            model.forward = with_change
        return model

    monkeypatch.setattr(AutoModelForCausalLM, "from_config", changed)
    with pytest.raises(UserError, match="qwen2 with these values has a loss of"):
        check_packed(values("qwen2"))


def test_the_copy_has_one_period_of_the_layers_and_small_windows() -> None:
    kinds = ["sliding_attention", "full_attention"] * 3
    whole = values("qwen2", use_sliding_window=True, num_hidden_layers=6, layer_types=kinds)
    copy = small_copy(whole)
    assert copy.layer_types == kinds[:2] and copy.num_hidden_layers == 2
    assert (copy.sliding_window, copy.hidden_size, copy.vocab_size) == (4, 32, 64)
    assert copy.rope_parameters == AutoConfig.for_model(**whole).rope_parameters
    assert small_copy(values("qwen2")).num_hidden_layers == 1
