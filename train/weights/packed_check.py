"""Whether a decoder of transformers trains in packed rows as it does alone: by trying it.

A decoder may cap its scores, scale its logits, look back over a window: what our packed forward
does not do, it would leave out in silence. So a small copy of the decoder sees three samples in one
pack and each alone, and must have the same loss. A copy has one period of the layer kinds, heads of
8, 64 tokens and windows of 4, so that within 40 tokens everything that the family does is done.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from mixtures.tokens.layout_types import LayoutConfig
from mixtures.tokens.text import Rendered
from shards.errors import UserError
from train.data.collate import Pack, RenderedSample, build_pack
from train.model.config import SlowFastConfig
from train.model.inputs import pack_inputs
from train.model.modeling import SlowFastForConditionalGeneration

SAMPLES, LENGTH = 3, 40
HEAD = 8
VOCABULARY = 64
WINDOW = 4
MLP = 32
TOLERANCE = 1e-5
SPREAD = 0.2
"""Of every weight: wide enough that caps, scales and biases show in the loss."""
_TINY_TOWER = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 8,
    "position_grid": 1,
}
_WINDOWS = ("sliding_window", "attention_window_size", "attention_chunk_size", "window_size")
_SIZES = {"vocab_size": VOCABULARY, "head_dim": HEAD, "intermediate_size": MLP}


def check_packed(text_config: Mapping[str, Any]) -> None:
    """Raise UserError, naming the family, where its packed loss is not its own unpacked one."""
    name = text_config.get("model_type", "")
    if by_length := _scaled_by_length(text_config):
        raise UserError(
            f"decoder: {name} has rope_type: {by_length}, whose frequencies hang on how long an "
            "input is: a pack is no input of its own; use one of Qwen2, Qwen3 or Llama"
        )
    try:
        copy = small_copy(text_config)
        packed, alone = losses(copy)
    except (AttributeError, ImportError, KeyError, RuntimeError, TypeError, ValueError) as error:
        # the first sentence of the first line: errors of torch go on for a page
        reason = (str(error).splitlines() or [type(error).__name__])[0].partition(". ")[0]
        raise UserError(
            f"decoder: {name} cannot be packed here ({reason}); use one of Qwen2, Qwen3 or Llama"
        ) from error
    # one in 100,000: both are fp32, and their sums run in different orders
    if not math.isclose(packed, alone, rel_tol=TOLERANCE):
        # named with the values of the file, not with the small ones of the copy
        why = _suspects(AutoConfig.for_model(**text_config))
        raise UserError(
            f"decoder: {name} with these values has a loss of {packed:.6f} in a pack and of "
            f"{alone:.6f} sample by sample: it would train wrongly in packs{why}; use one of "
            "Qwen2, Qwen3 or Llama"
        )
    # a loss without noise shows none of it, and recomputed activations would draw another
    if noise := _noise(text_config):
        told = ", ".join(f"{key}: {value}" for key, value in noise.items())
        raise UserError(
            f"decoder: {name} has {told}, which is drawn neither in packed attention nor "
            "again in checkpointing; set it to 0 in its config.json"
        )


def _noise(text_config: Mapping[str, Any]) -> dict[str, float]:
    """The values by which a forward pass of training is random: dropout under its many names
    (`resid_pdrop`, `hidden_dropout`, `layerdrop`), noise of a router. None of a classifier's."""
    return {
        key: value
        for key, value in text_config.items()
        if ("drop" in key or "jitter" in key) and "classifier" not in key
        if isinstance(value, int | float) and value
    }


def _scaled_by_length(text_config: Mapping[str, Any]) -> str:
    """The kind of its rotary positions, if it has others for long inputs than for short ones."""
    said = text_config.get("rope_parameters") or text_config.get("rope_scaling") or {}
    kind = said.get("rope_type") or said.get("type") or ""
    return kind if kind in ("longrope", "su") else ""


def small_copy(text_config: Mapping[str, Any]) -> PreTrainedConfig:
    """The decoder's config at a size that is tried in a moment; what it does stays."""
    whole = AutoConfig.for_model(**text_config)
    value = whole.to_dict()
    layers = whole.num_hidden_layers
    # lists with a value for each layer, such as `layer_types`
    per_layer = {k: v for k, v in value.items() if isinstance(v, list) and len(v) == layers}
    kept = _period(list(zip(*per_layer.values(), strict=True))) if per_layer else min(layers, 2)
    value |= {name: items[:kept] for name, items in per_layer.items()}
    value |= {name: size for name, size in _SIZES.items() if name in value}
    value |= {name: WINDOW for name in _WINDOWS if value.get(name)}
    # ids of the real vocabulary lie beyond the small one
    value |= {name: None for name in value if name.endswith("_token_id")}
    value |= {
        "num_hidden_layers": kept,
        "hidden_size": HEAD * whole.num_attention_heads,
        "max_position_embeddings": max(LENGTH, WINDOW),
    }
    return AutoConfig.for_model(**value)


def _period(kinds: list[Any]) -> int:
    """The length of the shortest start of the list that repeats to make the whole of it."""
    return next(
        n
        for n in range(1, len(kinds) + 1)
        if all(kind == kinds[i % n] for i, kind in enumerate(kinds))
    )


@torch.no_grad()
def losses(text_config: PreTrainedConfig) -> tuple[float, float]:
    """The summed loss of the samples in one pack of ours, and of each alone as transformers has it.

    Both in fp32 on the processor, with the same weights, drawn wide.
    """
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(0)
        ours = SlowFastForConditionalGeneration(
            SlowFastConfig(
                vision_config=_TINY_TOWER,
                text_config=text_config.to_dict(),
                layout=asdict(LayoutConfig()),
            )
        )
        reference = AutoModelForCausalLM.from_config(text_config, attn_implementation="eager")
        ids = torch.randint(VOCABULARY, (SAMPLES, LENGTH))
        # drawn as transformers draws, scores are so small that a cap on them changes nothing
        _widen(ours.language_model)
    ours.float().eval()
    reference.float().eval()
    reference.load_state_dict(ours.language_model.state_dict())
    alone = [reference(input_ids=row[None], labels=row[None], use_cache=False).loss for row in ids]
    packed = ours(**pack_inputs(_pack(ids))).loss
    return packed.item(), torch.stack(alone).sum().item() * (LENGTH - 1)


def _widen(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.data += torch.randn(parameter.shape) * SPREAD


def _pack(ids: Tensor) -> Pack:
    """Samples [S, L] of text, every token of which is learned but the first."""
    samples = [
        RenderedSample(
            key=str(number),
            text=Rendered(
                ids=row.numpy().astype(np.int32),
                supervised=np.ones(len(row), np.bool_),
                visual=np.empty((0, 3), np.int64),
            ),
            layouts=[],
            frames=[],
            seconds=[],
        )
        for number, row in enumerate(ids)
    ]
    return build_pack(samples, LayoutConfig())


def _suspects(config: PreTrainedConfig) -> str:
    """Values whose names say that they may be why."""
    words = ("window", "softcap", "chunk", "logit_scale", "logits_scaling", "lm_head_bias")
    suspects = [
        f"{name}: {value}"
        for name, value in config.to_dict().items()
        if value and any(word in name for word in words) and name != "max_window_layers"
    ]
    return f" (it has {', '.join(suspects)})" if suspects else ""
