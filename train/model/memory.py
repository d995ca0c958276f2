"""Frames beyond the cap, summarised: any number of them becomes a fixed number of rows.

The tower sees them a few at a time, and of each only the average of its patches is kept: what is
held grows by one vector per frame, whatever the frame's size. Learned queries read those vectors,
each with its time. With a frozen tower nothing of it is kept for the backward pass; with a tuned
one every chunk is computed again there.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint

from train.model.resamplers import QFormer
from train.model.times import TimeEmbedding
from train.model.vision import normalised

CHUNK_FRAMES = 16


class MemoryTensors(NamedTuple):
    """`train.data.collate.MemoryFrames` as tensors on the CPU; the fields mean the same.

    A device holds the patches of one chunk at a time. The tower runs at least `calls` times, on no
    rows where there are fewer chunks: ranks that share its weights must run it equally often.
    """

    patches: Tensor
    grids: Tensor
    times: Tensor
    clip: Tensor
    position: Tensor
    calls: int = 1


class LongMemory(nn.Module):
    """Frame averages [F, C] with times [F] of some clips -> [clips * tokens, D]."""

    def __init__(self, width: int, hidden: int, tokens: int, heads: int) -> None:
        super().__init__()
        self.times = TimeEmbedding(width)
        self.reader = QFormer(width, tokens, heads)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden))

    def forward(self, frames: Tensor, seconds: Tensor, clip: Tensor) -> Tensor:
        """`clip` int64 [F], ascending from 0: which clip a frame is of."""
        counts = torch.bincount(clip).tolist()
        return checkpoint(
            self._read, frames, seconds, counts, use_reentrant=False, preserve_rng_state=False
        )

    def _read(self, frames: Tensor, seconds: Tensor, counts: list[int]) -> Tensor:
        rows = frames + self.times(seconds).to(frames.dtype)
        if not counts:
            return self.mlp(self.reader(rows.view(0, 1, rows.shape[1]))).flatten(0, 1)
        # [clips, most frames, C]: a mask hides what lies beyond a clip's own frames
        padded = pad_sequence(list(rows.split(counts)), batch_first=True)
        steps = torch.arange(padded.shape[1], device=rows.device)
        real = steps < torch.tensor(counts, device=rows.device)[:, None]
        return self.mlp(self.reader(padded, real[:, None, None])).flatten(0, 1)


def with_memory(
    rows: Tensor, memory: MemoryTensors, reader: LongMemory, tower: nn.Module
) -> Tensor:
    """Rows [T, D] of the language model, those of the frames beyond the cap put in place."""
    averages = frame_averages(tower, memory.patches, memory.grids, memory.calls)
    times, clip, position = (
        t.to(rows.device) for t in (memory.times, memory.clip, memory.position)
    )
    return rows.index_copy(0, position, reader(averages, times, clip).to(rows.dtype))


def memory_calls(frames: int) -> int:
    """How often the tower runs to see so many frames beyond the cap: at least once."""
    return max(1, -(-frames // CHUNK_FRAMES))


def frame_averages(tower: nn.Module, patches: Tensor, grids: Tensor, calls: int = 1) -> Tensor:
    """The tower's average feature of each frame [F, C], `CHUNK_FRAMES` at a time.

    patches uint8 or float [P, 768] of 0..255, grids int64 [F, 2]. The tower runs `calls` times or
    more, on zero rows where no frame is left.
    """
    tuned = any(parameter.requires_grad for parameter in tower.parameters())
    chunks = [
        grids[i * CHUNK_FRAMES :][:CHUNK_FRAMES]
        for i in range(max(calls, memory_calls(len(grids))))
    ]
    parts = patches.split([int(chunk.prod(1).sum()) for chunk in chunks])
    pairs = zip(parts, chunks, strict=True)
    if not tuned:
        with torch.no_grad():
            return torch.cat([_averages(tower, *pair) for pair in pairs])
    made = [
        checkpoint(_averages, tower, *pair, use_reentrant=False, preserve_rng_state=False)
        for pair in pairs
    ]
    return torch.cat(made)


def _averages(tower: nn.Module, patches: Tensor, grids: Tensor) -> Tensor:
    features = tower(normalised(patches, next(tower.parameters())), grids)
    # patch by patch the number of its frame, to sum by
    sizes = grids.prod(1).to(features.device)
    frame = torch.repeat_interleave(sizes)
    zeros = features.new_zeros(len(grids), features.shape[1])
    return zeros.index_add(0, frame, features) / sizes[:, None].to(features.dtype)
