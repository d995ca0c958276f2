"""Files of a model folder, written as tensors come: one file is held at a time."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from train.weights.tensor_files import INDEX, SINGLE

SHARD_BYTES = 2 << 30
"""Bound on a file, and on what is held at once, unless one tensor alone is larger."""


class Shards:
    """Files of a model folder, written as tensors come: one at a time is held."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parameters = 0
        self.held: dict[str, Tensor] = {}
        self.files: dict[str, Path] = {}

    def put(self, name: str, value: Tensor) -> None:
        """Take a tensor; where the file at hand would become too large, it is written first."""
        if self.held and value.nbytes + sum(t.nbytes for t in self.held.values()) > SHARD_BYTES:
            self._write()
        # a view would be written with its whole storage
        self.held[name] = value.contiguous().clone()
        self.parameters += value.numel()

    def close(self) -> None:
        """Write the last file, and the index where there are several."""
        self._write()
        if len(paths := set(self.files.values())) == 1:
            paths.pop().rename(self.folder / SINGLE)
            return
        places = {name: path.name for name, path in self.files.items()}
        value = {"metadata": {"total_parameters": self.parameters}, "weight_map": places}
        # the layout of transformers: tensors by file, under one index
        (self.folder / INDEX).write_text(json.dumps(value, indent=1))

    def _write(self) -> None:
        number = len(set(self.files.values())) + 1
        path = self.folder / f"model-{number:05d}.safetensors"
        save_file(self.held, path, {"format": "pt"})
        self.files |= dict.fromkeys(self.held, path)
        self.held = {}
