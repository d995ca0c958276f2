"""A safetensors file that is written tensor by tensor, and digested on the way to the disk.

safetensors' own writer wants all tensors at once and leaves the hashing to a second reading. The
format: the header's length (8 bytes, little-endian), a JSON header, the bytes of all tensors.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from shards.errors import UserError

NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
Spec = tuple[torch.dtype, tuple[int, ...]]
"""Type and shape of a tensor."""


class TensorFile:
    """Takes the tensors of `specs` in their order; at its end it is synced, and `digest` is known.

    One tensor is held at a time. UserError names the file where the disk is full.
    """

    def __init__(self, path: Path, specs: Mapping[str, Spec]) -> None:
        self.path = path
        self._specs = list(specs.values())
        self._sha256 = hashlib.sha256()
        self._file = path.open("wb", buffering=0)
        self._hashing = ThreadPoolExecutor(1)
        self._put(memoryview(header(specs)))

    def add(self, tensor: Tensor) -> None:
        """Write the next tensor, as the header promised it."""
        dtype, shape = self._specs.pop(0)
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{self.path}: shape {tuple(tensor.shape)}, promised {shape}")
        whole = tensor.detach().to("cpu", dtype).contiguous().flatten()
        self._put(memoryview(whole.view(torch.uint8).numpy().data))

    @property
    def digest(self) -> str:
        """The sha256 of what was written."""
        return self._sha256.hexdigest()

    def _put(self, data: memoryview) -> None:
        # both let go of the interpreter's lock, so that one core hashes while another writes
        hashed = self._hashing.submit(self._sha256.update, data)
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            raise self._full(error) from error
        finally:
            hashed.result()

    def _full(self, error: OSError) -> Exception:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return error
        return UserError(
            f"{self.path}: the disk is full; make room and run the same command again, what was "
            "committed before is whole"
        )

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: object, _trace: TracebackType | None
    ) -> None:
        self._hashing.shutdown()
        if kind is None and self._specs:
            raise ValueError(f"{self.path}: {len(self._specs)} tensors are missing")
        if kind is None:
            os.fsync(self._file.fileno())
        self._file.close()


def header(specs: Mapping[str, Spec]) -> bytes:
    """The first bytes of a file of these tensors, padded to a multiple of 8."""
    told: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in specs.items():
        start, end = end, end + math.prod(shape) * dtype.itemsize
        told[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(told, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
