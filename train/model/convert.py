"""The published Oryx-ViT weights <-> ours: a table of names, and two reshapes."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_STEM = {
    "pos_embed": "embeddings.position_embedding",
    "patch_embed.proj.weight": "embeddings.patch_embedding.weight",
    "patch_embed.proj.bias": "embeddings.patch_embedding.bias",
}
_BLOCK = tuple(
    f"{part}.{kind}"
    for part in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    for kind in ("weight", "bias")
)


def oryx_to_ours(layers: int) -> dict[str, str]:
    """Published key -> our key, for a tower of this depth: 3 + 12 x layers keys."""
    blocks = {
        f"blocks.{layer}.{name}": f"layers.{layer}.{name}"
        for layer in range(layers)
        for name in _BLOCK
    }
    return _STEM | blocks


def from_oryx(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published weights as `OryxVisionTower` loads them, strictly, at any depth.

    ValueError names every key that is missing or unknown.
    """
    table = oryx_to_ours(_depth(state_dict, r"blocks\.(\d+)\."))
    _check(set(state_dict), set(table), "Oryx-ViT")
    ours = {table[name]: tensor for name, tensor in state_dict.items()}
    position, patch = _STEM["pos_embed"], _STEM["patch_embed.proj.weight"]
    ours[position] = ours[position].squeeze(0)
    ours[patch] = ours[patch].flatten(1)
    return ours


def to_oryx(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `from_oryx`."""
    table = oryx_to_ours(_depth(state_dict, r"layers\.(\d+)\."))
    _check(set(state_dict), set(table.values()), "vision tower")
    theirs = {name: state_dict[ours] for name, ours in table.items()}
    patch = theirs["patch_embed.proj.weight"]
    side = round((patch.shape[1] // 3) ** 0.5)
    theirs["patch_embed.proj.weight"] = patch.unflatten(1, (3, side, side))
    theirs["pos_embed"] = theirs["pos_embed"].unsqueeze(0)
    return theirs


def _depth(names: Mapping[str, Tensor], pattern: str) -> int:
    layers = [int(found[1]) for name in names if (found := re.match(pattern, name))]
    return max(layers, default=-1) + 1


def _check(found: set[str], wanted: set[str], what: str) -> None:
    if found != wanted:
        missing, unknown = sorted(wanted - found), sorted(found - wanted)
        raise ValueError(f"not the weights of a {what}: missing {missing}, unknown {unknown}")
