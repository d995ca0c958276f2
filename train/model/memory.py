"""Frames beyond the cap, summarised: any number of them becomes a fixed number of rows.

Of each frame the tower keeps only the average of its patches (train.model.encoding). The learned
queries of a Q-Former (BLIP-2, arXiv 2301.12597) read those vectors, each with its time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint

from train.model.resamplers import QFormer
from train.model.times import TimeEmbedding


class MemoryTensors(NamedTuple):
    """`train.data.collate.MemoryFrames` as tensors; the fields mean the same.

    `counts`: how many frames each clip has here; `real` bool [clips, most frames] marks them.
    """

    patches: Tensor
    grids: Tensor
    times: Tensor
    clip: Tensor
    position: Tensor
    counts: tuple[int, ...]
    real: Tensor


class LongMemory(nn.Module):
    """Frame averages [F, C] with times [F] of some clips -> [clips * tokens, D]."""

    def __init__(self, width: int, hidden: int, tokens: int, heads: int) -> None:
        super().__init__()
        self.times = TimeEmbedding(width)
        self.reader = QFormer(width, tokens, heads)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden))

    def forward(
        self, averages: Tensor, seconds: Tensor, counts: Sequence[int], real: Tensor
    ) -> Tensor:
        """Frames come clip by clip, so many of each as `counts` says and `real` marks."""
        # recomputed in the backward pass: frames beyond the cap may be thousands
        return checkpoint(
            self._read,
            averages,
            seconds,
            counts,
            real,
            use_reentrant=False,
            preserve_rng_state=False,
        )

    def _read(
        self, averages: Tensor, seconds: Tensor, counts: Sequence[int], real: Tensor
    ) -> Tensor:
        # the average forgets where a frame stood in time: its seconds are added
        rows = averages + self.times(seconds, averages.dtype)
        if not counts:
            return self.mlp(self.reader(rows.view(0, 1, rows.shape[1]))).flatten(0, 1)
        # [clips, most frames, C]: a mask hides what lies beyond a clip's own frames
        padded = pad_sequence(list(rows.split(list(counts))), batch_first=True)
        return self.mlp(self.reader(padded, real[:, None, None])).flatten(0, 1)


def with_memory(
    rows: Tensor, memory: MemoryTensors, averages: Tensor, reader: LongMemory
) -> Tensor:
    """Rows [T, D] of the language model, those of the frames beyond the cap put in place."""
    # each part may be of another precision
    averages = averages.to(reader.reader.queries.dtype)
    made = reader(averages, memory.times, memory.counts, memory.real)
    return rows.index_copy(0, memory.position, made.to(rows.dtype))
