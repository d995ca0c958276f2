"""The frames of a pack through the tower, call by call, as they were planned with the pack.

Of a frame beyond the cap only the average of its patches is kept: what is held grows by one vector
per frame, whatever the frame's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.utils.checkpoint import checkpoint

from train.data.feature_cache import FeatureCache
from train.data.tower_plan import Group, TowerCall, TowerPlan
from train.model.vision import normalised


class Encoded(NamedTuple):
    """Features of the patches shown [P, C], and averages of the frames beyond the cap [F, C]."""

    features: Tensor
    averages: Tensor


class ScaledGradient(torch.autograd.Function):
    """The same values; the gradient of each row is multiplied by `scale` [P, 1].

    What stochastic back-propagation learns from is 1 / its chance as strong, so that the mean
    over draws is the gradient of all frames.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(scale)
        return rows.view_as(rows)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Tensor, None]:
        (scale,) = ctx.saved_tensors  # type: ignore[attr-defined]
        # 1 / chance: importance weighting keeps the gradient's mean
        return gradients[0] * scale.to(gradients[0].dtype), None


def encode(
    tower: nn.Module,
    patches: Tensor,
    beyond: Tensor,
    plan: TowerPlan[Tensor],
    *,
    again: bool,
) -> Encoded:
    """uint8 or float patches [P, 768] of 0..255, of the frames shown and of those beyond the cap.

    The tower runs once per call of the plan. `again`: a call keeps nothing for the backward pass
    and is computed again there. A frozen tower keeps nothing at all.
    """
    # a tower that learns nothing builds no graph
    tuned = torch.is_grad_enabled() and any(p.requires_grad for p in tower.parameters())
    made = []
    for call in plan.calls:
        # calls of frames that are not learned from run without a graph
        given = (tower, patches, beyond, call)
        with torch.set_grad_enabled(tuned and call.learned):
            if again and torch.is_grad_enabled():
                made.append(
                    checkpoint(_encoded, *given, use_reentrant=False, preserve_rng_state=False)
                )
            else:
                # concatenated call by call, then back into the pack's order
                made.append(_encoded(*given))
    # calls sort frames by size: back to where the pack has them
    features, averages = (torch.cat(parts) for parts in zip(*made, strict=True))
    return Encoded(
        _back(features, [call.shown for call in plan.calls]),
        _back(averages, [call.frames for call in plan.calls]),
    )


def _encoded(
    tower: nn.Module,
    patches: Tensor,
    beyond: Tensor,
    call: TowerCall[Tensor],
) -> tuple[Tensor, Tensor]:
    # shown frames first, then those beyond the cap, as the plan counts them; bytes until here, so
    # that what travels to the device is a quarter of floats
    pixels = torch.cat([patches.index_select(0, call.shown), beyond.index_select(0, call.beyond)])
    groups = (*call.shown_groups, *call.beyond_groups)
    look = partial(_looked_at, tower)
    # a run whose tower is frozen may keep its features on disk
    cache: FeatureCache | None = getattr(tower, "feature_cache", None)
    x = look(pixels, groups) if cache is None else cache.features(pixels, groups, look)
    # a forward pass without a graph has no gradient to scale
    if call.scale is not None and torch.is_grad_enabled():
        x = ScaledGradient.apply(x, call.scale)
    shown, rest = x.split([len(call.shown), len(call.beyond)])
    if len(call.beyond):
        # a view would keep the features of the frames beyond alive until the backward pass
        shown = shown.clone()
    return shown, _averages(rest, call.beyond_groups)


def _looked_at(tower: nn.Module, pixels: Tensor, groups: Sequence[Group]) -> Tensor:
    """Features of patches [P, 768] of 0..255."""
    x: Tensor = tower(normalised(pixels, next(tower.parameters())), groups)
    return x


def _averages(x: Tensor, groups: Sequence[Group]) -> Tensor:
    """The average feature of each frame, [F, C]."""
    # frames of one grid are one batch; with none at all the same operations run on no rows
    parts = x.split([group.frames * group.height * group.width for group in groups] or [0])
    shapes = groups or [Group(0, 1, 1)]
    return torch.cat(
        [
            part.view(group.frames, group.height * group.width, x.shape[1]).mean(1)
            for part, group in zip(parts, shapes, strict=True)
        ]
    )


def _back(rows: Tensor, sources: Sequence[Tensor]) -> Tensor:
    # a scatter by the concatenated sources inverts the calls' gathers: each row is written once
    return torch.empty_like(rows).index_copy(0, torch.cat(list(sources)), rows)
