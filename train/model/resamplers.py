"""Learned queries that look at all patches of a frame: a fixed number of rows for any grid.

Queries and patches have places in the frame, fixed sinusoids, as in the resampler of Qwen-VL
(arXiv 2308.12966, section 2.1), and asking starts as the same map as being asked: from the first
step a query looks around its own place. Without either all queries see the average of the frame,
and nothing tells them apart.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import initialization as init

from train.data.tower_plan import FrameGroups
from train.model.vision import NORM_EPS

DEPTH = 2
QUERY_STD = 0.02
PLACE_SCALE = 3.0
HIGHEST_WAVE = 8
"""Half periods of the fastest sinusoid along a frame; the slowest has half a one."""


class Places(NamedTuple):
    """What is added to each query [Q, C] and to each row of the context [L, C]."""

    queries: Tensor | float
    context: Tensor | float


NOWHERE = Places(0.0, 0.0)


def places_of(grid: tuple[int, int], queries: Tensor) -> Places:
    """For patches of this grid (rows, columns), and queries [Q, C] that share the frame evenly."""
    # queries share the frame as a grid, as near to a square as their number allows
    count, width = queries.shape
    # the largest divisor not above the square root
    rows = next(rows for rows in range(math.isqrt(count), 0, -1) if count % rows == 0)
    return Places(
        waves_at((rows, count // rows), width, queries.device).to(queries),
        waves_at(grid, width, queries.device).to(queries),
    )


def waves_at(grid: tuple[int, int], width: int, device: torch.device | None = None) -> Tensor:
    """[rows * columns, width]: sines and cosines of the cells' centres along both axes."""
    highest = math.log2(HIGHEST_WAVE)
    # geometric frequencies, half a period to HIGHEST_WAVE half periods a frame
    waves = torch.logspace(-1, highest, -(-width // 4), base=2, device=device) * math.pi
    down, right = ((torch.arange(size, device=device) + 0.5) / size for size in grid)
    angles = torch.cat(
        [
            down.repeat_interleave(grid[1])[:, None] * waves,
            right.repeat(grid[0])[:, None] * waves,
        ],
        dim=1,
    )
    return PLACE_SCALE * torch.cat([angles.sin(), angles.cos()], dim=1)[:, :width]


class Attention(nn.Module):
    """Multi-head attention of rows [F, Q, C] over context [F, L, C]; mask bool [F, 1, 1, L]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def ask_as_asked(self) -> None:
        """Queries are made by the map that makes keys."""
        init.copy_(self.query.weight, self.kv.weight[: len(self.query.weight)])

    def forward(self, rows: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """The answers [F, Q, C] to each row."""
        # one product for keys and values
        k, v = self.kv(context).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q = self.query(rows).unflatten(2, (self.heads, -1)).transpose(1, 2)
        answers = scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(answers.transpose(1, 2).flatten(2))


class Feed(nn.Module):
    """rows + mlp(norm(rows)), four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, rows: Tensor) -> Tensor:
        """Rows of the same shape."""
        return rows + self.mlp(self.norm(rows))


class PerceiverLayer(nn.Module):
    """The queries look at the context and at themselves at once, then a feed-forward."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm, self.about = (nn.LayerNorm(width, eps=NORM_EPS) for _ in range(2))
        self.cross = Attention(width, heads)
        self.feed = Feed(width)

    def forward(self, rows: Tensor, context: Tensor, places: Places) -> Tensor:
        """The queries after one look."""
        # Perceiver (Jaegle et al., arXiv 2103.03206): queries and context in one attention
        asking = self.norm(rows) + places.queries
        seen = torch.cat([self.about(context) + places.context, asking], dim=1)
        return self.feed(rows + self.cross(asking, seen))


class QFormerLayer(nn.Module):
    """The queries look at each other, then at the context, then a feed-forward."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=NORM_EPS) for _ in range(3))
        self.own, self.cross = Attention(width, heads), Attention(width, heads)
        self.feed = Feed(width)

    def forward(
        self, rows: Tensor, context: Tensor, places: Places, mask: Tensor | None = None
    ) -> Tensor:
        """The queries after one look."""
        norm_own, norm_asking, about = self.norms
        normed = norm_own(rows)
        # Q-Former (BLIP-2, arXiv 2301.12597): queries first attend to each other
        rows = rows + self.own(normed, normed)
        asking, seen = norm_asking(rows) + places.queries, about(context) + places.context
        return self.feed(rows + self.cross(asking, seen, mask))


class Perceiver(nn.Module):
    """Context [F, L, C], of frames of one grid if it is given -> [F, queries, C]."""

    Layer: type[PerceiverLayer] | type[QFormerLayer] = PerceiverLayer

    def __init__(self, width: int, queries: int, heads: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, width) * QUERY_STD)
        self.layers = nn.ModuleList(self.Layer(width, heads) for _ in range(DEPTH))

    def forward(
        self, context: Tensor, *mask: Tensor, grid: tuple[int, int] | None = None
    ) -> Tensor:
        """The queries after all looks."""
        # the same queries for every frame
        rows = self.queries.expand(len(context), -1, -1)
        places = NOWHERE if grid is None else places_of(grid, self.queries)
        for layer in self.layers:
            rows = layer(rows, context, places, *mask)
        return rows


class QFormer(Perceiver):
    """The same with self-attention among the queries in front of every look (BLIP-2)."""

    Layer = QFormerLayer


def resample(resampler: Perceiver, features: Tensor, frames: FrameGroups[Tensor]) -> Tensor:
    """Features [P, C] of N frames -> [N, queries, C], frame by frame.

    With no frame at all the resampler still runs, on an empty batch.
    """
    if not frames.groups:
        return resampler(features.view(0, 1, features.shape[1]))
    features = features.index_select(0, frames.patches)
    # a batch per grid: places depend on it
    parts = features.split([group.frames * group.height * group.width for group in frames.groups])
    made = [
        resampler(part.unflatten(0, (group.frames, -1)), grid=(group.height, group.width))
        for part, group in zip(parts, frames.groups, strict=True)
    ]
    # made group by group: back to the order in which the frames came
    rows = torch.cat(made)
    return torch.empty_like(rows).index_copy(0, frames.frames, rows)
