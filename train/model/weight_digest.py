"""Weights are named by their content: the same digest in whatever order the tensors come."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


class WeightDigest:
    """The sha256 over name, shape, type and bytes of tensors, each of which is seen once."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, name: str, tensor: Tensor) -> None:
        """Take a whole tensor into account."""
        data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
        shape = tuple(tensor.shape)
        self._lines.append(f"{name} {shape} {tensor.dtype} {hashlib.sha256(data).hexdigest()}\n")

    def hexdigest(self) -> str:
        """Of all that were added."""
        return hashlib.sha256("".join(sorted(self._lines)).encode()).hexdigest()
