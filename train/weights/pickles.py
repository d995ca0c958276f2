"""A published pickle of tensors, read without running anything that it may hold."""

from __future__ import annotations

import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from shards.errors import UserError
from train.weights.source import Source
from train.weights.tensor_files import Stored


def read_pickle(path: Path) -> dict[str, Tensor]:
    """The tensors by name; UserError where the file is no plain dictionary of tensors."""
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


def with_names(source: Source) -> Source:
    """The source with the names and shapes of its pickle, if that is what it is."""
    if source.stored or source.path.is_dir():
        return source
    stored = {
        name: Stored(
            file=source.path, name=name, shape=tuple(tensor.shape), dtype=str(tensor.dtype)
        )
        for name, tensor in read_pickle(source.path).items()
    }
    return replace(source, stored=stored)
