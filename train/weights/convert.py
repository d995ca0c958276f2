"""Published encoder weights <-> ours: tables of names, and reshapes.

    python -m train.weights.convert oryx_vit.pth vision.safetensors

reads the published Oryx-ViT file without running what it may hold, and writes safetensors.
"""

from __future__ import annotations

import pickle
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from shards.errors import Parser, UserError, run_command
from train.weights.published import (
    ORYX_LAYERS,
    ORYX_PREFIX,
    ORYX_UNUSED,
    Origin,
    depth,
    oryx_names,
    oryx_sizes,
    oryx_table,
    siglip2_names,
)

PREFIX = ORYX_PREFIX


def from_oryx(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published weights as `OryxVisionTower` loads them, strictly, at any depth.

    ValueError names every key that is missing or unknown.
    """
    names = oryx_names(depth(state_dict, r"blocks\.(\d+)\."))
    _check(set(state_dict), set(names.values()), "Oryx-ViT")
    shapes = {name: tuple(tensor.shape) for name, tensor in state_dict.items()}
    table = oryx_table(oryx_sizes(shapes))
    # q, k and v are one matrix in both layouts: their rows are joined, nothing is computed
    return {own: joined(at, [state_dict[name] for name in at.names]) for own, at in table.items()}


def to_oryx(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `from_oryx`."""
    names = oryx_names(depth(state_dict, r"layers\.(\d+)\."))
    _check(set(state_dict), set(names), "vision tower")
    theirs = {name: state_dict[ours] for ours, name in names.items()}
    patch = theirs["patch_embed.proj.weight"]
    # a convolution of stride P over [3, P, P] is a linear map of a flattened patch (ViT,
    # Dosovitskiy et al., 2020)
    side = round((patch.shape[1] // 3) ** 0.5)
    theirs["patch_embed.proj.weight"] = patch.unflatten(1, (3, side, side))
    theirs["pos_embed"] = theirs["pos_embed"].unsqueeze(0)
    return theirs


def from_siglip2(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of transformers' `Siglip2VisionModel` as a tower with the `SIGLIP2` switches loads
    them; its pooling head is left out. ValueError names keys that are missing or unknown."""
    # our features are those of the patches: the head that pools an image to one vector has no use
    given = {name: tensor for name, tensor in state_dict.items() if not name.startswith("head.")}
    names = siglip2_names(depth(given, r"encoder\.layers\.(\d+)\."))
    _check(set(given), {name for parts in names.values() for name in parts}, "Siglip2VisionModel")
    return {own: torch.cat([given[name] for name in parts]) for own, parts in names.items()}


def joined(origin: Origin, tensors: Sequence[Tensor]) -> Tensor:
    """Our tensor, of the stored ones in the table's order; a single one is not copied."""
    whole = tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))
    return whole.reshape(origin.shape)


def _check(found: set[str], wanted: set[str], what: str) -> None:
    if found != wanted:
        missing = sorted(wanted - found)
        unknown = sorted(found - wanted)
        raise ValueError(f"not the weights of a {what}: missing {missing}, unknown {unknown}")


def read_pickle(path: Path) -> dict[str, Tensor]:
    """The tensors of a pickle by name, read without running anything that it may hold; UserError
    where it is no plain dictionary of tensors."""
    try:
        # only the newer of torch's two formats, a zip file, can be left on the disk
        state = torch.load(
            path, weights_only=True, map_location="cpu", mmap=zipfile.is_zipfile(path)
        )
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise UserError(f"{path}: not a file of plain tensors ({error}); fetch it again") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{path}: not a dictionary of tensors; give the published oryx_vit.pth")
    return state


def read_published(path: Path) -> dict[str, Tensor]:
    """The 327 tensors of a published Oryx-ViT file, under our names.

    UserError where the file is no plain dictionary of tensors (anything that would run code is
    refused), or not of this encoder.
    """
    state = read_pickle(path)
    state = {name.removeprefix(PREFIX): tensor for name, tensor in state.items()}
    state = {name: tensor for name, tensor in state.items() if not name.startswith(ORYX_UNUSED)}
    try:
        ours = from_oryx(state)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    layers = depth(state, r"blocks\.(\d+)\.")
    if layers != ORYX_LAYERS:
        raise UserError(f"{path}: {layers} blocks, the published encoder has {ORYX_LAYERS}")
    return ours


def main() -> None:
    parser = Parser(
        prog="python -m train.weights.convert", description="Published Oryx-ViT -> safetensors."
    )
    parser.add_argument("source", type=Path, help="the published oryx_vit.pth")
    parser.add_argument("target", type=Path, help="the safetensors file to write")
    arguments = parser.parse_args()
    # a tensor of a memory-mapped file, and one that shares storage, cannot be written as it is
    weights = {name: t.contiguous().clone() for name, t in read_published(arguments.source).items()}
    temporary = arguments.target.with_name(f".{arguments.target.name}.tmp")
    save_file(weights, temporary)
    temporary.replace(arguments.target)
    count = sum(tensor.numel() for tensor in weights.values())
    sys.stdout.write(f"{arguments.target}: {len(weights)} tensors, {count:,} parameters\n")


if __name__ == "__main__":
    run_command(main)
