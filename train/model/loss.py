"""Cross entropy of the supervised rows in chunks, without ever holding all logits.

The logits of a chunk are recomputed in the backward pass (Chen et al., arXiv 1604.06174).
The loss of a row is a sum: the caller divides by one denominator for all ranks and micro-steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear
from torch.utils.checkpoint import checkpoint
from transformers.utils import ModelOutput

IGNORED = -100
CHUNK_BYTES = 256 << 20
"""Bound on one chunk of fp32 logits; all but the last are recomputed in the backward pass."""


@dataclass
class PackedOutput(ModelOutput):
    """What a packed row comes to: `loss`, the sum, and without a graph its terms, `row_losses` [S],
    one for each supervised row, all fp32."""

    loss: Tensor | None = None
    row_losses: Tensor | None = None


def packed_output(losses: Tensor) -> PackedOutput:
    """Of the losses of its rows [S], with a graph."""
    return PackedOutput(loss=losses.sum(), row_losses=losses.detach())


def supervised_losses(
    hidden: Tensor,
    head: Tensor | nn.Module,
    labels: Tensor,
    chunk_bytes: int = CHUNK_BYTES,
    rows: Tensor | None = None,
) -> Tensor:
    """Cross entropies of `hidden [T, D] @ head [V, D].T` against `labels` int64 [T], fp32 [S].

    The head may come as its layer: one with an adapter, or of few bits, is more than a matrix.

    `labels[t]` is the target at row t; rows of -100 cost nothing. `rows` int64 [S] are the others;
    to find them here waits for the device. With none the result is empty and still part of the
    graph.
    """
    # rows without a target never meet the vocabulary
    if rows is None:
        rows = torch.nonzero(labels != IGNORED).squeeze(1)
    hidden, targets = hidden.index_select(0, rows), labels.index_select(0, rows)
    # looked at here and not earlier: ZeRO-3 lets go of a tied head where word vectors are done
    if type(head) is nn.Linear:
        head = head.weight
    size = head.shape[0] if isinstance(head, Tensor) else cast("nn.Linear", head).out_features
    step = chunk_rows(size, chunk_bytes)
    *chunks, last = zip(hidden.split(step), targets.split(step), strict=True)
    losses = [
        # recomputed in the backward pass (chunked cross entropy): logits of all rows never exist at
        # once
        checkpoint(_each, rows_, head, wanted, use_reentrant=False, preserve_rng_state=False)
        for rows_, wanted in chunks
    ]
    # the backward pass begins with the last chunk: kept, its logits are no more than recomputed
    losses.append(_each(last[0], head, last[1]))
    return torch.cat(losses)


def chunk_rows(vocabulary: int, chunk_bytes: int = CHUNK_BYTES) -> int:
    """As many rows as fill a chunk of fp32 logits over the whole vocabulary."""
    return max(1, chunk_bytes // (4 * vocabulary))


def rows_again(rows: int, vocabulary: int, chunk_bytes: int = CHUNK_BYTES) -> int:
    """Of so many supervised rows those whose logits are computed again: of all chunks but the
    last."""
    step = chunk_rows(vocabulary, chunk_bytes)
    return max(rows - 1, 0) // step * step


def _each(hidden: Tensor, head: Tensor | nn.Module, targets: Tensor) -> Tensor:
    logits = linear(hidden, head) if isinstance(head, Tensor) else head(hidden)
    return cross_entropy(logits.float(), targets, reduction="none")
