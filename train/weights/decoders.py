"""The tensors of a decoder by its config.json, for the families whose tables are written here.

A family that is not here is trained too (`train.weights.packed_check` judges it); its tensors are
compared with its file when the model is built, seconds later.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from shards.errors import UserError
from train.weights.published import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What tells decoders of one kind apart; a bias may also hang on the config's switch."""

    qkv_bias: bool = False
    head_norms: bool = False


# biases of the projections, or a norm of each head's queries and keys (QK norm, Henry et al.,
# 2020), are all that tells these families apart
FAMILIES = {
    "llama": Family(),
    "mistral": Family(),
    "qwen2": Family(qkv_bias=True),
    "qwen3": Family(head_norms=True),
}


def decoder_shapes(config: Mapping[str, Any], where: str) -> dict[str, Shape] | None:
    """Name -> shape of a decoder with this config; None for a family that has no table.

    UserError, naming `where`, for a size that is missing, or heads that do not fit.
    """
    family = FAMILIES.get(str(config.get("model_type")))
    if family is None:
        return None
    width, rows = size(config, "hidden_size", where), size(config, "vocab_size", where)
    shapes: dict[str, Shape] = {"model.embed_tokens.weight": (rows, width)}
    layer = dict(_layer(family, config, where))
    for number in range(size(config, "num_hidden_layers", where)):
        shapes |= {f"model.layers.{number}.{name}": shape for name, shape in layer.items()}
    shapes["model.norm.weight"] = (width,)
    if not config.get("tie_word_embeddings", False):
        shapes["lm_head.weight"] = (rows, width)
    return shapes


def _layer(family: Family, config: Mapping[str, Any], where: str) -> Iterator[tuple[str, Shape]]:
    width, mlp = size(config, "hidden_size", where), size(config, "intermediate_size", where)
    # grouped queries: several query heads share one of keys and values (GQA, Ainslie et al., 2023)
    heads, shared, head_dim = head_sizes(config, where)
    yield "input_layernorm.weight", (width,)
    yield "post_attention_layernorm.weight", (width,)
    # queries, keys and values, then the way back
    biased = family.qkv_bias or bool(config.get("attention_bias"))
    for name, count in (("q", heads), ("k", shared), ("v", shared)):
        yield f"self_attn.{name}_proj.weight", (count * head_dim, width)
        if biased:
            yield f"self_attn.{name}_proj.bias", (count * head_dim,)
    yield "self_attn.o_proj.weight", (width, heads * head_dim)
    if config.get("attention_bias"):
        # the switch of Llama biases the way back as well, the family of Qwen2 does not
        yield "self_attn.o_proj.bias", (width,)
    if family.head_norms:
        yield "self_attn.q_norm.weight", (head_dim,)
        yield "self_attn.k_norm.weight", (head_dim,)
    # gated MLP: down(silu(gate(x)) * up(x)) (SwiGLU, Shazeer, 2020)
    for name, shape in (("gate", (mlp, width)), ("up", (mlp, width)), ("down", (width, mlp))):
        yield f"mlp.{name}_proj.weight", shape
        if config.get("mlp_bias"):
            yield f"mlp.{name}_proj.bias", shape[:1]


def head_sizes(config: Mapping[str, Any], where: str) -> tuple[int, int, int]:
    """Heads of queries, heads of keys and values, and their width; UserError if they do not fit."""
    width, heads = size(config, "hidden_size", where), size(config, "num_attention_heads", where)
    shared = config.get("num_key_value_heads") or heads
    # the width of a head is free in newer families, so only a missing one must divide
    if not config.get("head_dim") and width % heads:
        raise UserError(
            f"{where}: num_attention_heads: {heads} does not divide hidden_size: {width}; correct "
            "one of them"
        )
    if heads % shared:
        raise UserError(
            f"{where}: num_key_value_heads: {shared} does not divide num_attention_heads: {heads}; "
            "correct one of them"
        )
    return heads, shared, config.get("head_dim") or width // heads


def size(config: Mapping[str, Any], key: str, where: str) -> int:
    """A size that the config must state; UserError names it and the file."""
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{where}: {key}: {value!r} is no size; fetch the file again")
    return value
