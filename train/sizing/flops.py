"""What a step costs on paper: floating-point operations of matrix products, and bytes of states.

A product of [m, k] and [k, n] is 2 m k n operations. Attention is billed per image, frame or
sample, the causal half of it for text. The tower is billed per patch, not per token of the language
model. What is computed again in the backward pass is told apart: it counts for HFU, not for MFU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from train.model.config import SlowFastConfig
from train.model.loss import rows_again
from train.model.vision import OryxVisionConfig

STATE_BYTES = {"weights": 2, "gradients": 2, "master weights": 4, "Adam moments": 8}
"""Bytes per parameter of mixed-precision training: 16 in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One forward pass: patches of each frame, tokens of each sample, tokens pooled from patches,
    and rows that carry a loss."""

    frames: Sequence[int]
    samples: Sequence[int]
    pooled: int
    supervised: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Recomputed:
    """Of a forward pass what is computed again in the backward pass: of the tower and the decoder
    where their blocks are checkpointed, of the head always."""

    vision: int
    text: int
    head: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Flops:
    """Operations of one forward pass, part by part, and what of them is computed again."""

    vision: int
    projector: int
    text: int
    head: int
    again: Recomputed

    def step(self, vision_share: float = 0.0) -> float:
        """Forward and backward: three times, but the tower's backward pass for this share of its
        frames only (0 frozen, 1 tuned, the keep ratio under stochastic back-propagation)."""
        trained = self.projector + self.text + self.head
        return 3 * trained + (1 + 2 * vision_share) * self.vision


def forward_flops(config: SlowFastConfig, work: Work) -> Flops:
    """Operations of one packed forward pass under `config` (averaging projectors)."""
    vision, text = config.vision_config, config.text_config
    # a row of logits over the whole vocabulary
    row = 2 * text.hidden_size * text.vocab_size
    return Flops(
        vision=vision_flops(vision, work.frames),
        projector=projector_flops(config, work.pooled),
        text=text_flops(text, work.samples),
        head=row * work.supervised,
        again=Recomputed(
            vision=_vision_again(vision, work.frames),
            text=text_flops(text, work.samples) - _last_products(text, sum(work.samples)),
            head=row * rows_again(work.supervised, text.vocab_size),
        ),
    )


def vision_flops(vision: OryxVisionConfig, frames: Sequence[int]) -> int:
    """The tower over frames of so many patches each."""
    width, layers = vision.hidden_size, vision.num_hidden_layers
    patches = sum(frames)
    pairs = sum(n * n for n in frames)
    # q, k, v and the way back are [D, D] each, the MLP is [D, M] and [M, D]
    block = 2 * patches * (4 * width * width + 2 * width * vision.intermediate_size)
    # scores and weighted values: 2 D operations each for a pair of patches
    return _embedding(vision, patches) + layers * (block + 4 * pairs * width)


def _embedding(vision: OryxVisionConfig, patches: int) -> int:
    """A patch is 3 x P x P values, embedded by one matrix."""
    return 2 * patches * 3 * vision.patch_size**2 * vision.hidden_size


def _vision_again(vision: OryxVisionConfig, frames: Sequence[int]) -> int:
    """Of the tower its blocks alone are checkpointed."""
    patches = sum(frames)
    blocks = vision_flops(vision, frames) - _embedding(vision, patches)
    return blocks - _last_products(vision, patches)


def _last_products(sizes: Any, rows: int) -> int:
    """The products by the last matrix [M, D] of each block: torch stops to compute again at the
    last tensor that is asked for, which is what that matrix is multiplied by."""
    layer: int = 2 * rows * sizes.intermediate_size * sizes.hidden_size
    return layer * int(sizes.num_hidden_layers)


def projector_flops(config: SlowFastConfig, pooled: int) -> int:
    """The two matrices of the MLP over pooled tokens."""
    width: int = config.vision_config.hidden_size
    hidden: int = config.text_config.hidden_size
    return 2 * pooled * hidden * (width + hidden)


def text_flops(text: Any, samples: Sequence[int]) -> int:
    """The decoder's layers over samples of so many tokens each; half of attention is masked."""
    width, heads = text.hidden_size, text.num_attention_heads
    head = getattr(text, "head_dim", None) or width // heads
    queries = heads * head
    keys = text.num_key_value_heads * head
    # q and o, k and v, and the three matrices of a gated MLP
    weights = width * (2 * queries + 2 * keys) + 3 * width * text.intermediate_size
    tokens = sum(samples)
    # a causal mask leaves n (n + 1) / 2 pairs
    pairs = sum(n * (n + 1) // 2 for n in samples)
    return int(text.num_hidden_layers * (2 * tokens * weights + 4 * pairs * queries))


def mfu(flops: float, seconds: float, peak: float) -> float:
    """Share of `peak` operations per second that useful work reached."""
    return flops / (seconds * peak)


def parameters(model: nn.Module) -> dict[str, int]:
    """Parameters per part, tied ones once."""
    parts = {name: part for name, part in model.named_children() if part is not None}
    return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
