"""Cross entropy of the supervised rows, without ever holding all logits.

The result is a sum: the caller divides by one denominator for all ranks and micro-steps.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear
from torch.utils.checkpoint import checkpoint

IGNORED = -100
CHUNK_BYTES = 256 << 20
"""Bound on one chunk of fp32 logits; all but the last are recomputed in the backward pass."""


def supervised_loss(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    chunk_bytes: int = CHUNK_BYTES,
    rows: Tensor | None = None,
) -> Tensor:
    """Summed cross entropy of `hidden [T, D] @ weight [V, D].T` against `labels` int64 [T].

    `labels[t]` is the target at row t; rows of -100 cost nothing. `rows` int64 [S] are the others;
    to find them here waits for the device. With none the result is 0 and still part of the graph.
    fp32 scalar.
    """
    # rows without a target never meet the vocabulary
    if rows is None:
        rows = torch.nonzero(labels != IGNORED).squeeze(1)
    hidden, targets = hidden.index_select(0, rows), labels.index_select(0, rows)
    # as many rows as fill a chunk of fp32 logits over the whole vocabulary
    step = max(1, chunk_bytes // (4 * weight.shape[0]))
    *chunks, last = zip(hidden.split(step), targets.split(step), strict=True)
    losses = [
        # recomputed in the backward pass (chunked cross entropy): logits of all rows never exist at
        # once
        checkpoint(_summed, rows_, weight, wanted, use_reentrant=False, preserve_rng_state=False)
        for rows_, wanted in chunks
    ]
    # the backward pass begins with the last chunk: kept, its logits are no more than recomputed
    losses.append(_summed(last[0], weight, last[1]))
    return torch.stack(losses).sum()


def _summed(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    # a sum in fp32: the caller divides by the supervised tokens of all ranks
    return cross_entropy(linear(hidden, weight).float(), targets, reduction="sum")
