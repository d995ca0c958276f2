"""What training leaves behind, by parameter name: any engine goes on from what any other wrote.

    FOLDER/state-00000.safetensors ...    weight/NAME, exp_avg/NAME, exp_avg_sq/NAME

Tensors are whole and fp32, however many ranks held them, so a run saved by N processes goes on
with M; under bf16 the weights are the masters. Parts that are not trained are not among them, nor
is Adam's count, which is one number for all: every parameter takes part in every update.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from shards.errors import UserError
from train.model.finite import check_finite

MOMENTS = ("exp_avg", "exp_avg_sq")
KINDS = ("weight", *MOMENTS)
FILE_BYTES = 4 << 30
"""Bound on what a rank holds of the whole state at once, unless one parameter alone is larger."""


def write_state(
    folder: Path,
    shapes: Mapping[str, torch.Size],
    whole: Callable[[str], Sequence[Tensor]],
    rank: int = 0,
    world_size: int = 1,
    file_bytes: int = FILE_BYTES,
) -> None:
    """Write every parameter's KINDS; `whole(name)` gathers them, and all ranks call it alike.

    The ranks share the files: the i-th is written by rank i % world_size. UserError if anything is
    not finite, on every rank: all hold the whole tensors.
    """
    for number, names in enumerate(grouped(shapes, file_bytes)):
        held: dict[str, Tensor] = {}
        for name in names:
            tensors = whole(name)
            check_finite(zip(KINDS, tensors, strict=True), f"{folder.name}: {name}")
            if number % world_size == rank:
                pairs = zip(KINDS, tensors, strict=True)
                held |= {f"{kind}/{name}": _stored(tensor) for kind, tensor in pairs}
        if held:
            save_file(held, folder / f"state-{number:05d}.safetensors")


def read_state(
    folder: Path, shapes: Mapping[str, torch.Size]
) -> Iterator[tuple[str, tuple[Tensor, ...]]]:
    """Each parameter's name and KINDS, in one order everywhere; UserError if these are others'."""
    places = {
        name: path for path in sorted(folder.glob("state-*.safetensors")) for name in _names(path)
    }
    wrong = sorted(places.keys() ^ shapes.keys())
    for path, names in groupby(() if wrong else places, key=places.__getitem__):
        with safe_open(path, "pt") as file:
            for name in names:
                tensors = tuple(file.get_tensor(f"{kind}/{name}") for kind in KINDS)
                if any(tensor.shape != shapes[name] for tensor in tensors):
                    wrong.append(name)
                    break
                yield name, tensors
    if wrong:
        raise UserError(
            f"{folder}: the saved state does not fit this model at {wrong[0]!r}; check the "
            "config's sizes"
        )


def grouped(shapes: Mapping[str, torch.Size], most: int) -> list[list[str]]:
    """Names in order, in groups whose KINDS take at most `most` bytes; what is larger is alone."""
    groups: list[list[str]] = []
    held = 0
    for name, shape in shapes.items():
        size = shape.numel() * 4 * len(KINDS)
        if not groups or held + size > most:
            groups.append([])
            held = 0
        groups[-1].append(name)
        held += size
    return groups


def _stored(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32).contiguous()


def _names(path: Path) -> list[str]:
    prefix = f"{KINDS[0]}/"
    with safe_open(path, "pt") as file:
        return [key.removeprefix(prefix) for key in file.keys() if key.startswith(prefix)]
