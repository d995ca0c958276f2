"""Activation checkpointing, part by part (Chen et al., arXiv 1604.06174)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from train.model.parts import PARTS


def checkpoint_parts(model: nn.Module, parts: Iterable[str]) -> None:
    """Let the blocks of these parts, and of no others, keep nothing of the forward pass but their
    input; the rest is computed again in the backward pass.

    Blocks look at it in train mode only, so the model is put there: no part of it has dropout.
    """
    # use_reentrant=False keeps hooks and frozen inputs right; no dropout, so no random state to
    # keep
    again = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
    wanted = {module for part in parts for module in PARTS[part]}
    model.train()
    for name, child in model.named_children():
        for block in child.modules():
            if isinstance(block, GradientCheckpointingLayer):
                block.gradient_checkpointing = name in wanted
                block._gradient_checkpointing_func = again  # type: ignore[assignment]
