"""From patch features to the rows of the language model, by name: `PROJECTORS[name]`.

A projector owns the learned vectors (newline, frame, block switches): they train with it, survive
LoRA and change no vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mixtures.layout import LEARNED

LEARNED_STD = 0.02


class SlotTensors(NamedTuple):
    """`train.packs.VisualSlots` as tensors; the fields mean the same."""

    position: Tensor
    feature: Tensor
    patch: Tensor
    segment: Tensor
    sizes: Tensor


def pool(features: Tensor, slots: SlotTensors) -> Tensor:
    """Average of each pooled token's patches: [P, C] -> [M, C]."""
    share = slots.sizes.reciprocal().to(features.dtype)
    zeros = features.new_zeros(len(slots.sizes), features.shape[1])
    summed = zeros.index_add(0, slots.segment, features.index_select(0, slots.patch))
    return summed * share[:, None]


class GroupSlowFast(nn.Module):
    """Group-based SlowFast: averages of patches through one MLP for slow, fast and image tokens.

    Pooling comes before the projection: eight times fewer rows pass the MLP.
    """

    def __init__(self, vision_size: int, hidden_size: int) -> None:
        super().__init__()
        self.learned = nn.Parameter(torch.randn(len(LEARNED), hidden_size) * LEARNED_STD)
        self.mlp = nn.Sequential(
            nn.Linear(vision_size, hidden_size), nn.GELU(), nn.Linear(hidden_size, hidden_size)
        )

    def forward(self, features: Tensor, slots: SlotTensors) -> Tensor:
        """Patch features [P, C] -> one row per visual slot [V, D]."""
        tokens = self.mlp(pool(features, slots))
        return torch.cat([self.learned, tokens])[slots.feature]


PROJECTORS: dict[str, type[nn.Module]] = {"gsf": GroupSlowFast}
