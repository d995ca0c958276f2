"""Published weights -> ours, as tables: which of their tensors each of ours is made of.

Each of ours is one of theirs, or several one below the other, in another shape: nothing is
computed. So one rule reads every layout (`train.weights.stream`), and the table says all of it.

    oryx       oryx_vit.pth: 3 + 12 keys a block, fused qkv, a convolution for the patches
    siglip2    transformers' Siglip2VisionModel: q, k and v apart, a linear map for the patches
    ours       the same names and shapes, behind a prefix
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Shape = tuple[int, ...]

ORYX_LAYERS = 27
ORYX_HEADS = 16
ORYX_PREFIX = "model.vision_tower.vision_tower."
"""In front of every key where the tower was saved inside a whole model."""
ORYX_UNUSED = ("norm.", "attn_pool.")
"""Parts of the original SigLIP that the public encoder never runs; a file may still hold them."""
SIGLIP2_PREFIX = "vision_model."
SIGLIP2_UNUSED = ("vision_model.head.", "text_model.", "logit_scale", "logit_bias")
"""What a whole SigLIP 2 holds besides its encoder: its pooling head and its text side."""
DECODER_UNUSED = (".rotary_emb.inv_freq",)
"""Ends of names that older versions of transformers saved; they follow from the config."""

_KINDS = ("weight", "bias")
_BLOCK = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
# our names before theirs
_ORYX_STEM = {
    "embeddings.position_embedding": "pos_embed",
    "embeddings.patch_embedding.weight": "patch_embed.proj.weight",
    "embeddings.patch_embedding.bias": "patch_embed.proj.bias",
}
_SIGLIP2_STEM = {
    "embeddings.position_embedding": "embeddings.position_embedding.weight",
    "embeddings.patch_embedding.weight": "embeddings.patch_embedding.weight",
    "embeddings.patch_embedding.bias": "embeddings.patch_embedding.bias",
    "norm.weight": "post_layernorm.weight",
    "norm.bias": "post_layernorm.bias",
}
_SIGLIP2_BLOCK = {
    "norm1": ("layer_norm1",),
    "attn.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attn.proj": ("self_attn.out_proj",),
    "norm2": ("layer_norm2",),
    "mlp.fc1": ("mlp.fc1",),
    "mlp.fc2": ("mlp.fc2",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """One of our tensors of shape `shape`: the stored tensors `names`, of shapes `shapes`, joined
    along their first axis and reshaped."""

    names: tuple[str, ...]
    shapes: tuple[Shape, ...]
    shape: Shape


Table = dict[str, Origin]
"""Our name -> where it comes from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerSizes:
    """What decides the shapes of a vision tower; `side` is that of its square position table."""

    width: int
    layers: int
    mlp: int
    side: int
    patch: int
    final_norm: bool = False


def tower_shapes(sizes: TowerSizes) -> dict[str, Shape]:
    """Our names of a tower's tensors and their shapes, as `OryxVisionTower` holds them."""
    width = sizes.width
    shapes: dict[str, Shape] = {
        "embeddings.position_embedding": (sizes.side**2, width),
        "embeddings.patch_embedding.weight": (width, 3 * sizes.patch**2),
        "embeddings.patch_embedding.bias": (width,),
    }
    # rows of each weight: a block's q, k and v are one matrix of 3 x width
    outs = dict(zip(_BLOCK, (width, 3 * width, width, width, sizes.mlp, width), strict=True))
    ins = {"attn.qkv": width, "attn.proj": width, "mlp.fc1": width, "mlp.fc2": sizes.mlp}
    for layer in range(sizes.layers):
        # weights are [out, in] as in torch.nn.Linear, norms are [width]
        for part, out in outs.items():
            weight = (out, ins[part]) if part in ins else (out,)
            shapes |= {
                f"layers.{layer}.{part}.weight": weight,
                f"layers.{layer}.{part}.bias": (out,),
            }
    if sizes.final_norm:
        shapes |= {"norm.weight": (width,), "norm.bias": (width,)}
    return shapes


def oryx_names(layers: int) -> dict[str, str]:
    """Our name -> the published key, for a tower of this depth: 3 + 12 x layers of them."""
    names = dict(_ORYX_STEM)
    for layer in range(layers):
        for name in (f"{part}.{kind}" for part in _BLOCK for kind in _KINDS):
            # called as in timm's VisionTransformer
            names[f"layers.{layer}.{name}"] = f"blocks.{layer}.{name}"
    return names


def siglip2_names(layers: int) -> dict[str, tuple[str, ...]]:
    """Our name -> the names of `Siglip2VisionModel`, in the order in which they are joined."""
    names: dict[str, tuple[str, ...]] = {own: (name,) for own, name in _SIGLIP2_STEM.items()}
    for layer in range(layers):
        for part, theirs in _SIGLIP2_BLOCK.items():
            for kind in _KINDS:
                joined = tuple(f"encoder.layers.{layer}.{name}.{kind}" for name in theirs)
                names[f"layers.{layer}.{part}.{kind}"] = joined
    return names


def oryx_table(sizes: TowerSizes) -> Table:
    """A tower of Oryx-ViT's layout, at any size."""
    shapes = tower_shapes(sizes)
    names = oryx_names(sizes.layers)
    theirs = dict(shapes)
    # what is a leading axis of one, and a convolution kernel, over there
    theirs["embeddings.position_embedding"] = (1, sizes.side**2, sizes.width)
    theirs["embeddings.patch_embedding.weight"] = (sizes.width, 3, sizes.patch, sizes.patch)
    return {
        own: Origin(names=(names[own],), shapes=(theirs[own],), shape=shapes[own]) for own in shapes
    }


def siglip2_table(sizes: TowerSizes) -> Table:
    """A tower of transformers' `Siglip2VisionModel`, whose sizes have `final_norm`."""
    shapes = tower_shapes(sizes)
    names = siglip2_names(sizes.layers)
    table = {}
    for own, shape in shapes.items():
        count = len(names[own])
        # q, k and v have equal shares of our rows: these encoders have no grouped queries
        each = (shape[0] // count, *shape[1:])
        table[own] = Origin(names=names[own], shapes=(each,) * count, shape=shape)
    return table


def same_table(shapes: Mapping[str, Shape]) -> Table:
    """Tensors that are stored as they are."""
    return {
        name: Origin(names=(name,), shapes=(shape,), shape=shape) for name, shape in shapes.items()
    }


def moved(table: Table, our_prefix: str = "", stored_prefix: str = "") -> Table:
    """The table with a prefix before our names, and another before the stored ones."""
    return {
        f"{our_prefix}{own}": Origin(
            names=tuple(f"{stored_prefix}{name}" for name in origin.names),
            shapes=origin.shapes,
            shape=origin.shape,
        )
        for own, origin in table.items()
    }


def stored_shapes(table: Table) -> dict[str, Shape]:
    """Stored name -> shape, of all that the table reads."""
    return {
        name: shape
        for origin in table.values()
        for name, shape in zip(origin.names, origin.shapes, strict=True)
    }


def oryx_sizes(shapes: Mapping[str, Shape]) -> TowerSizes:
    """The sizes of published tensors with these shapes; KeyError for a key that is missing."""
    _, places, width = shapes["pos_embed"]
    return TowerSizes(
        width=width,
        layers=depth(shapes, r"blocks\.(\d+)\."),
        mlp=shapes["blocks.0.mlp.fc1.weight"][0],
        # the position table is square: side x side rows
        side=round(places**0.5),
        patch=shapes["patch_embed.proj.weight"][-1],
    )


def depth(names: Iterable[str], pattern: str) -> int:
    """How many blocks the names count, by the first group of the pattern."""
    # blocks are counted from 0
    layers = [int(found[1]) for name in names if (found := re.match(pattern, name))]
    return max(layers, default=-1) + 1
