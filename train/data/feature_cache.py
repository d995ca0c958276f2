"""Features of a frozen tower on disk: a frame that comes again, in this run or another, is read.

    FOLDER/<tower>.<precision>/<2 hex>/<frame>    checksum, then the features of its patches

`tower` is a digest of its weights and sizes, `frame` one of a frame's grid and pixels: of its clip
and its view as far as the tower sees them. Every frame is encoded by itself, whatever stands beside
it in a pack, so that all runs have the same features of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mixtures.manifest.manifest import Manifest
from shards.store import Store
from train.data.tower_plan import Group

Look = Callable[[Tensor, Sequence[Group]], Tensor]
"""(uint8 patches [P, 768] of 0..255, their frames by grid) -> the tower's features [P, C]."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""What features are in, by the precision of a config."""
_CHECKSUM = 16


class FeatureCache:
    """The features of one tower in one precision; runs may share the folder at the same time."""

    def __init__(self, folder: Path, tower_digest: str, precision: str) -> None:
        """`tower_digest` is the digest of its weights and sizes."""
        self._folder = folder / f"{tower_digest[:32]}.{precision}"
        self._dtype = DTYPES[precision]

    def features(self, patches: Tensor, groups: Sequence[Group], look: Look) -> Tensor:
        """The features of these frames: those that are there, the others as `look` makes them."""
        rows = list(self._frames(patches, groups, look))
        # of no frame the tower says how wide its nothing is
        return torch.cat(rows) if rows else look(patches, groups)

    def _frames(self, patches: Tensor, groups: Sequence[Group], look: Look) -> Iterator[Tensor]:
        start = 0
        for group in groups:
            size = group.height * group.width
            for _ in range(group.frames):
                yield self._frame(patches[start : start + size], group._replace(frames=1), look)
                start += size

    def _frame(self, patches: Tensor, grid: Group, look: Look) -> Tensor:
        pixels = patches.cpu().contiguous().numpy().tobytes()
        digest = hashlib.sha256(f"{grid.height}x{grid.width} ".encode() + pixels).hexdigest()
        path = self._folder / digest[:2] / digest
        made = self._read(path, len(patches))
        if made is not None:
            return made.to(patches.device)
        made = look(patches, (grid,))
        data = made.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
        # in one step: whoever reads at the same time finds all of it, or nothing
        Store(path.parent).put(path.name, _checksum(data) + data)
        return made

    def _read(self, path: Path, patches: int) -> Tensor | None:
        """The features in a file; None where there is none, or one not as it was written."""
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        if _checksum(data[_CHECKSUM:]) != data[:_CHECKSUM]:
            return None
        return torch.frombuffer(bytearray(data[_CHECKSUM:]), dtype=self._dtype).view(patches, -1)


def told(folder: str, manifest: Manifest, width: int, precision: str) -> str:
    """How large the features of a manifest's samples can get, of `width` values a patch."""
    size = most_bytes(manifest, width, precision)
    return (
        f"feature_cache: {folder}: at most {size / 1e9:,.3g} GB for the {patches_of(manifest):,} "
        "patches of its samples, those held out besides"
    )


def most_bytes(manifest: Manifest, width: int, precision: str) -> int:
    """The same as bytes."""
    return patches_of(manifest) * width * DTYPES[precision].itemsize


def patches_of(manifest: Manifest) -> int:
    """The patches of every kept sample once; samples that show the same frames share features."""
    return sum(int(table["patches"].sum(dtype=np.int64)) for table in manifest.tables)


def _checksum(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:_CHECKSUM]
