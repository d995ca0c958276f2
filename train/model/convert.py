"""Published encoder weights <-> ours: tables of names, and reshapes.

    python -m train.model.convert oryx_vit.pth vision.safetensors

reads the published Oryx-ViT file without running what it may hold, and writes safetensors.
"""

from __future__ import annotations

import argparse
import pickle
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from shards.errors import UserError, run_command

PUBLISHED_LAYERS = 27
PREFIX = "model.vision_tower.vision_tower."
"""In front of every key where the tower was saved inside a whole model."""
UNUSED = ("norm.", "attn_pool.")
"""Parts of the original SigLIP that the public encoder never runs; a file may still hold them."""

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
_SIGLIP2_BLOCK = {
    "layer_norm1": "norm1",
    "self_attn.out_proj": "attn.proj",
    "layer_norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_SIGLIP2_STEM = {
    "embeddings.position_embedding.weight": "embeddings.position_embedding",
    "embeddings.patch_embedding.weight": "embeddings.patch_embedding.weight",
    "embeddings.patch_embedding.bias": "embeddings.patch_embedding.bias",
    "post_layernorm.weight": "norm.weight",
    "post_layernorm.bias": "norm.bias",
}


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


def from_siglip2(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of transformers' `Siglip2VisionModel` as a tower with the `SIGLIP2` switches loads
    them; its pooling head is left out. ValueError names keys that are missing or unknown."""
    given = {name: tensor for name, tensor in state_dict.items() if not name.startswith("head.")}
    layers = range(_depth(given, r"encoder\.layers\.(\d+)\."))
    table = dict(_SIGLIP2_STEM)
    fused: dict[str, list[str]] = {}
    for layer in layers:
        theirs = f"encoder.layers.{layer}"
        for kind in ("weight", "bias"):
            for part, own in _SIGLIP2_BLOCK.items():
                table[f"{theirs}.{part}.{kind}"] = f"layers.{layer}.{own}.{kind}"
            qkv = [f"{theirs}.self_attn.{part}_proj.{kind}" for part in "qkv"]
            fused[f"layers.{layer}.attn.qkv.{kind}"] = qkv
    parts = {name for names in fused.values() for name in names}
    _check(set(given), set(table) | parts, "Siglip2VisionModel")
    ours = {own: given[name] for name, own in table.items()}
    return ours | {own: torch.cat([given[n] for n in names]) for own, names in fused.items()}


def _depth(names: Mapping[str, Tensor], pattern: str) -> int:
    layers = [int(found[1]) for name in names if (found := re.match(pattern, name))]
    return max(layers, default=-1) + 1


def _check(found: set[str], wanted: set[str], what: str) -> None:
    if found != wanted:
        missing, unknown = sorted(wanted - found), sorted(found - wanted)
        raise ValueError(f"not the weights of a {what}: missing {missing}, unknown {unknown}")


def read_published(path: Path) -> dict[str, Tensor]:
    """The 327 tensors of a published Oryx-ViT file, under our names.

    UserError where the file is no plain dictionary of tensors (anything that would run code is
    refused), or not of this encoder.
    """
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise UserError(f"{path}: not a file of plain tensors ({error}); fetch it again") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{path}: not a dictionary of tensors; give the published oryx_vit.pth")
    state = {name.removeprefix(PREFIX): tensor for name, tensor in state.items()}
    state = {name: tensor for name, tensor in state.items() if not name.startswith(UNUSED)}
    try:
        ours = from_oryx(state)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    layers = _depth(state, r"blocks\.(\d+)\.")
    if layers != PUBLISHED_LAYERS:
        raise UserError(f"{path}: {layers} blocks, the published encoder has {PUBLISHED_LAYERS}")
    return ours


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m train.model.convert", description="Published Oryx-ViT -> safetensors."
    )
    parser.add_argument("source", type=Path, help="the published oryx_vit.pth")
    parser.add_argument("target", type=Path, help="the safetensors file to write")
    arguments = parser.parse_args()
    weights = {name: t.contiguous().clone() for name, t in read_published(arguments.source).items()}
    temporary = arguments.target.with_name(f".{arguments.target.name}.tmp")
    save_file(weights, temporary)
    temporary.replace(arguments.target)
    count = sum(tensor.numel() for tensor in weights.values())
    sys.stdout.write(f"{arguments.target}: {len(weights)} tensors, {count:,} parameters\n")


if __name__ == "__main__":
    run_command(main)
