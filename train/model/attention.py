"""Attention of packed rows: every sample sees itself and nothing else, on any device.

`sdpa_blocks` is registered with transformers. A packed forward passes `blocks=`; the row's segments
are gathered into a few padded batches of similar length, each runs one causal SDPA call, and the
results are scattered back. Padding lies behind a segment's end, where causality hides it, and
repeats the segment's own last row: the content of another sample cannot reach this one.
Without `blocks` (generation) it is transformers' ordinary `sdpa`, with its masks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "sdpa_blocks"
_LEAST_FILL = 0.75
"""A segment shorter than this share of its batch's longest starts a new batch."""


class Blocks(NamedTuple):
    """Where the segments of a row of T lie: the plan of its gathers and of its scatter.

    `gather`: per batch, int64 [S_b, L_b] rows of the packed row; `scatter`: int64 [T], for each row
    its place among the concatenated, flattened batches.
    """

    gather: tuple[Tensor, ...]
    scatter: Tensor


def plan_blocks(cu_seqlens: np.ndarray, device: torch.device | str = "cpu") -> Blocks:
    """The plan for segments that start and end at `cu_seqlens` int64 [S + 1]."""
    starts, lengths = cu_seqlens[:-1], np.diff(cu_seqlens)
    gather, at = [], 0
    scatter = np.zeros(int(cu_seqlens[-1]), np.int64)
    for members in _batches(lengths):
        length = lengths[members][:, None]
        steps = np.arange(length.max())
        rows = starts[members][:, None] + np.minimum(steps, length - 1)
        real = steps < length
        scatter[rows[real]] = at + np.flatnonzero(real)
        at += rows.size
        gather.append(torch.from_numpy(rows).to(device))
    return Blocks(tuple(gather), torch.from_numpy(scatter).to(device))


def _batches(lengths: np.ndarray) -> Iterator[np.ndarray]:
    """Segment numbers grouped by similar length, longest first; empty segments take no part."""
    order = np.argsort(-lengths, kind="stable")
    order = order[: np.count_nonzero(lengths)]
    while len(order):
        fits = lengths[order] >= _LEAST_FILL * lengths[order[0]]
        count = int(np.count_nonzero(fits))
        yield order[:count]
        order = order[count:]


def blocks_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    blocks: Blocks | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention [1, H, T, d] -> [1, T, H, d] inside each segment of `blocks`."""
    if blocks is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    rows = [x.squeeze(0).transpose(0, 1) for x in (query, key, value)]
    parts = []
    for index in blocks.gather:
        q, k, v = (_batched(x, index) for x in rows)
        out = scaled_dot_product_attention(
            q, k, v, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=True
        )
        parts.append(out.transpose(1, 2).flatten(0, 1))
    return torch.cat(parts).index_select(0, blocks.scatter)[None], None


def _batched(rows: Tensor, index: Tensor) -> Tensor:
    """Rows [T, H, d] at index [S, L] -> [S, H, L, d]; `index_select` has the cheap backward."""
    return rows.index_select(0, index.flatten()).unflatten(0, index.shape).transpose(1, 2)


def register_attention() -> None:
    """Make `attn_implementation="sdpa_blocks"` known to transformers."""
    AttentionInterface.register(NAME, blocks_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
