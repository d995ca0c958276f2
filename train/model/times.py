"""Presentation times as vectors: sinusoids (Vaswani et al., 2017) through an MLP."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

WAVES = 64


class TimeEmbedding(nn.Module):
    """Seconds [F] -> [F, D]: sinusoids of periods from 2π·0.1 s to 2π·10,000 s, through an MLP."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.waves = nn.Linear(WAVES, hidden)
        self.out = nn.Linear(hidden, hidden)

    def forward(self, seconds: Tensor, dtype: torch.dtype) -> Tensor:
        """Seconds [F] -> [F, D] of this type, that of the activations they are added to."""
        # geometric periods, as in Attention Is All You Need (2017), in fp32: seconds reach ten
        # thousands
        waves = torch.logspace(1, -4, WAVES // 2, device=seconds.device)
        angles = seconds.float()[:, None] * waves
        both = torch.cat([angles.sin(), angles.cos()], dim=1)
        return self.out(gelu(self.waves(both.to(dtype))))
