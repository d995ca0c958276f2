"""The published sizes: Oryx-ViT under Qwen2.5, named 1b, 3b and 7b after the video model.

"1b" is Qwen2.5-1.5B, as in the paper.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from mixtures.tokens.layout_types import LayoutConfig
from shards.errors import UserError
from train.model.config import SlowFastConfig
from train.model.modeling import SlowFastForConditionalGeneration

# as in the config.json of Qwen/Qwen2.5-*-Instruct
_QWEN25: dict[str, Any] = {
    "model_type": "qwen2",
    "vocab_size": 151_936,
    "max_position_embeddings": 32_768,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    "tie_word_embeddings": True,
}
TEXT: dict[str, dict[str, Any]] = {
    "1b": _QWEN25
    | {
        "hidden_size": 1536,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "intermediate_size": 8960,
    },
    "3b": _QWEN25
    | {
        "hidden_size": 2048,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "intermediate_size": 11_008,
    },
    "7b": _QWEN25
    | {
        "hidden_size": 3584,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "intermediate_size": 18_944,
        # padded further than the small ones: the tokenizer is the same
        "vocab_size": 152_064,
        "tie_word_embeddings": False,
    },
}


def published_config(size: str, layout: LayoutConfig | None = None) -> SlowFastConfig:
    """The configuration of a published size; UserError for another name."""
    if size not in TEXT:
        raise UserError(f"size: unknown {size!r}; use one of {', '.join(TEXT)}")
    return SlowFastConfig(
        vision_config={}, text_config=TEXT[size], layout=asdict(layout or LayoutConfig())
    )


def on_paper(config: SlowFastConfig) -> SlowFastForConditionalGeneration:
    """The model without memory: shapes only, on the meta device."""
    # meta tensors have shapes and no bytes
    with torch.device("meta"):
        return SlowFastForConditionalGeneration(config)
