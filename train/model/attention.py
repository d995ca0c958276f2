"""Block-diagonal causal attention of packed rows: every sample sees itself and nothing else.

The implementations are registered with transformers; a packed forward passes `blocks=`.

sdpa_blocks   any device. The row's segments are gathered into a few padded batches of similar
              length, each runs one causal SDPA call, and the results are scattered back. Padding
              lies behind a segment's end, where causality hides it, and repeats the segment's own
              last row: the content of another sample cannot reach this one.
flex          torch's flex attention under a mask of causality and segment; compiled on CUDA. On
              the CPU it has no backward pass.
varlen        torch's variable-length flash attention; half precision on CUDA only.
auto          varlen in half precision on CUDA, sdpa_blocks elsewhere.

Without `blocks` (generation) each is transformers' ordinary `sdpa`, with its masks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from shards.errors import UserError
from train.data.attention_blocks import Blocks


def _by_blocks(
    q: Tensor, k: Tensor, v: Tensor, blocks: Blocks[Tensor], scale: float | None
) -> Tensor:
    parts = []
    # [1, H, T, d] -> [T, H, d]
    rows = [x.squeeze(0).transpose(0, 1) for x in (q, k, v)]
    # equal masks in every batch: causal alone, so that SDPA takes its fast kernels
    for index in blocks.gather:
        query, key, value = (_batched(x, index) for x in rows)
        out = scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scale, enable_gqa=True
        )
        parts.append(out.transpose(1, 2).flatten(0, 1))
    # scattered back to the packed order
    return torch.cat(parts).index_select(0, blocks.scatter)[None]


def _batched(rows: Tensor, index: Tensor) -> Tensor:
    """Rows [T, H, d] at index [S, L] -> [S, H, L, d]; `index_select` has the cheap backward."""
    return rows.index_select(0, index.flatten()).unflatten(0, index.shape).transpose(1, 2)


def with_mask(blocks: Blocks[Tensor]) -> Blocks[Tensor]:
    """The same with flex attention's mask; made once per forward pass, used by every layer."""
    device = blocks.scatter.device
    length = len(blocks.scatter)
    rows = torch.arange(length, device=device)
    # the segment of each row, from the segments' ends
    segment = torch.searchsorted(blocks.starts[1:].contiguous(), rows, right=True)

    def visible(_b: Tensor, _h: Tensor, row: Tensor, column: Tensor) -> Tensor:
        return (row >= column) & (segment[row] == segment[column])

    # blocks of the score matrix that are all masked are skipped
    mask = create_block_mask(visible, None, None, length, length, device=str(device))
    return blocks._replace(mask=mask)


def _by_flex(
    q: Tensor, k: Tensor, v: Tensor, blocks: Blocks[Tensor], scale: float | None
) -> Tensor:
    attend: Any = _compiled_flex() if q.is_cuda else flex_attention
    out: Tensor = attend(q, k, v, block_mask=blocks.mask, scale=scale, enable_gqa=True)
    return out.transpose(1, 2)


@cache
def _compiled_flex() -> Callable[..., Any]:
    compiled: Callable[..., Any] = torch.compile(flex_attention)
    return compiled


def _by_varlen(
    q: Tensor, k: Tensor, v: Tensor, blocks: Blocks[Tensor], scale: float | None
) -> Tensor:
    if not _has_varlen(q):
        raise UserError(
            f"packed_attention: varlen runs in half precision on CUDA, this is {q.dtype} on "
            f"{q.device.type}; use sdpa_blocks"
        )
    # flash attention for sequences of unequal length (FlashAttention-2, Dao, 2023): no padding at
    # all
    query, key, value = (x.squeeze(0).transpose(0, 1).contiguous() for x in (q, k, v))
    out: Any = varlen_attn(
        query,
        key,
        value,
        cu_seq_q=blocks.starts,
        cu_seq_k=blocks.starts,
        max_q=blocks.longest,
        max_k=blocks.longest,
        scale=scale,
        # window (-1, 0): everything before, nothing behind: causal
        window_size=(-1, 0),
        enable_gqa=True,
    )
    return out[None]


def _has_varlen(q: Tensor) -> bool:
    return q.is_cuda and q.dtype in (torch.bfloat16, torch.float16)


def _by_what_fits(
    q: Tensor, k: Tensor, v: Tensor, blocks: Blocks[Tensor], scale: float | None
) -> Tensor:
    attend = _by_varlen if _has_varlen(q) else _by_blocks
    return attend(q, k, v, blocks, scale)


BACKENDS: dict[str, Callable[[Tensor, Tensor, Tensor, Blocks[Tensor], float | None], Tensor]] = {
    "auto": _by_what_fits,
    "sdpa_blocks": _by_blocks,
    "flex": _by_flex,
    "varlen": _by_varlen,
}
NAMES = tuple(BACKENDS)


def _attention(
    name: str,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    blocks: Blocks[Tensor] | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention [1, H, T, d] -> [1, T, H, d] inside each segment of `blocks`.

    ValueError for dropout in a packed row: no backend here draws it reproducibly.
    """
    # generation attends over a cache: transformers' own SDPA
    if blocks is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    if dropout:
        raise ValueError(f"attention dropout of {dropout} in a packed row; set it to 0")
    return BACKENDS[name](query, key, value, blocks, scaling), None


def register_attention() -> None:
    """Make every name of NAMES known to transformers as an `attn_implementation`."""
    for name in NAMES:
        # transformers builds the same masks for these names as for sdpa
        AttentionInterface.register(name, partial(_attention, name))
        AttentionMaskInterface.register(name, sdpa_mask)
