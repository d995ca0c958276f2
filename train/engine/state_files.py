"""What training leaves behind, by parameter name: any engine goes on from what any other wrote.

    FOLDER/state-00000.safetensors ...    weight/NAME, exp_avg/NAME, exp_avg_sq/NAME

Tensors are whole and fp32, however many ranks held them, so a run saved by N processes goes on
with M; under bf16 the weights are the masters. Parts that are not trained are not among them, nor
is Adam's count, which is one number for all: every parameter takes part in every update.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from shards.errors import UserError
from train.engine.tensor_file import TensorFile
from train.model.finite import check_finite

MOMENTS = ("exp_avg", "exp_avg_sq")
KINDS = ("weight", *MOMENTS)
FILE_BYTES = 4 << 30
"""Bound on a file, unless one parameter alone is larger."""


def write_state(
    folder: Path,
    shapes: Mapping[str, torch.Size],
    whole: Callable[[str], Sequence[Tensor]],
    rank: int = 0,
    world_size: int = 1,
    file_bytes: int = FILE_BYTES,
) -> dict[str, str]:
    """Write every parameter's KINDS; `whole(name)` gathers them, and all ranks call it alike.

    The ranks share the files: the i-th is written by rank i % world_size, one tensor after the
    other. The sha256 of those that this rank wrote, by name. UserError if anything is not finite,
    on every rank: all have seen it.
    """
    digests: dict[str, str] = {}
    for number, names in enumerate(grouped(shapes, file_bytes)):
        path = folder / f"state-{number:05d}.safetensors"
        tensors = _gathered(names, whole, folder.name)
        if number % world_size != rank:
            deque(tensors, maxlen=0)  # the others need this rank's share of each
            continue
        specs = {
            f"{kind}/{name}": (torch.float32, tuple(shapes[name]))
            for name in names
            for kind in KINDS
        }
        with TensorFile(path, specs) as file:
            for tensor in tensors:
                file.add(tensor)
        digests[path.name] = file.digest
    return digests


def _gathered(
    names: Sequence[str], whole: Callable[[str], Sequence[Tensor]], where: str
) -> Iterator[Tensor]:
    """The KINDS of each name in turn, all of them finite."""
    for name in names:
        tensors = whole(name)
        check_finite(zip(KINDS, tensors, strict=True), f"{where}: {name}")
        yield from tensors


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


def read_weights(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Name and fp32 weight of everything that was trained, one at a time."""
    for path in sorted(folder.glob("state-*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in _names(path):
                yield name, file.get_tensor(f"{KINDS[0]}/{name}")


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


def _names(path: Path) -> list[str]:
    prefix = f"{KINDS[0]}/"
    with safe_open(path, "pt") as file:
        return [key.removeprefix(prefix) for key in file.keys() if key.startswith(prefix)]
