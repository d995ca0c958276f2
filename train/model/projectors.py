"""From patch features to the rows of the language model, by name: `PROJECTORS[name]`.

A projector owns the learned vectors (newline, frame, block switches) and the map from times: they
train with it, survive LoRA and change no vocabulary. Which tokens there are, and where, is the
layout's (`mixtures.tokens.token_plan`); a projector says what a token is made of.

P patches, C their width, D the language model's width, M pooled tokens, V visual rows, N frames.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mixtures.tokens.layout_types import FRAME, LEARNED, POOLED, SEPARATOR, SLOW, LayoutConfig
from shards.errors import UserError
from train.data.tower_plan import FrameGroups
from train.model.resamplers import Perceiver, QFormer, resample
from train.model.times import TimeEmbedding

LEARNED_STD = 0.02
_ENDS_OF_FRAMES = (LEARNED.index(FRAME), LEARNED.index(SEPARATOR))


class PatchIndexTensors(NamedTuple):
    """`train.data.collate.PatchIndex` as tensors; the fields mean the same."""

    position: Tensor
    feature: Tensor
    patch: Tensor
    segment: Tensor
    sizes: Tensor
    frame: Tensor
    kind: Tensor


def pool(features: Tensor, patch_index: PatchIndexTensors) -> Tensor:
    """Average of each pooled token's patches: [P, C] -> [M, C]."""
    # mean as a gather and a segmented sum: cells of any size in one call
    share = patch_index.sizes.reciprocal().to(features.dtype)
    return summed(features.index_select(0, patch_index.patch), patch_index) * share[:, None]


def summed(rows: Tensor, patch_index: PatchIndexTensors) -> Tensor:
    """Sum over each pooled token's patches: [K, ...] -> [M, ...]."""
    zeros = rows.new_zeros(len(patch_index.sizes), *rows.shape[1:])
    return zeros.index_add(0, patch_index.segment, rows)


def highest(rows: Tensor, patch_index: PatchIndexTensors) -> Tensor:
    """Maximum over each pooled token's patches: [K, ...] -> [M, ...]."""
    if not len(patch_index.sizes):  # the reduction refuses to reduce nothing
        return rows
    return torch.segment_reduce(
        rows, "max", lengths=patch_index.sizes, unsafe=True
    )  # unasked: no wait


def attend(scores: Tensor, patch_index: PatchIndexTensors) -> Tensor:
    """Softmax of scores [K, H] inside the patches of each pooled token."""
    with torch.no_grad():  # any constant per token cancels out: it needs no gradient
        shift = highest(scores.float(), patch_index).index_select(0, patch_index.segment)
    powers = (scores.float() - shift).exp()
    return (powers / summed(powers, patch_index).index_select(0, patch_index.segment)).to(
        scores.dtype
    )


class Projector(nn.Module, ABC):
    """Learned vectors and an MLP; a subclass says how patches become pooled tokens.

    `width` is C, `hidden` is D, `heads` those of a subclass that attends.
    """

    def __init__(self, width: int, hidden: int, layout: LayoutConfig, heads: int = 1) -> None:
        super().__init__()
        # learned vectors are drawn small, as word vectors are
        self.learned = nn.Parameter(torch.randn(len(LEARNED), hidden) * LEARNED_STD)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden))
        self.times = TimeEmbedding(hidden) if layout.timestamps == "learned" else None
        self.layout = layout
        self.width = width
        self.heads = heads

    @abstractmethod
    def tokens(
        self, features: Tensor, frames: FrameGroups[Tensor], patch_index: PatchIndexTensors
    ) -> Tensor:
        """Patch features [P, C] -> pooled tokens [M, D]."""

    def forward(
        self,
        features: Tensor,
        frames: FrameGroups[Tensor],
        patch_index: PatchIndexTensors,
        seconds: Tensor,
    ) -> Tensor:
        """Patch features [P, C] of frames, seconds [N] -> one row per visual token [V, D]."""
        features = features.to(self.learned.dtype)  # each part may be of another type
        # row i of the table: learned vectors first, then the pooled tokens
        rows = torch.cat([self.learned, self.tokens(features, frames, patch_index)])[
            patch_index.feature
        ]
        if self.times is None:
            return rows
        # a frame's time is added where the frame ends
        # a frame ends with its frame mark, or with the separator
        ends = (patch_index.feature == _ENDS_OF_FRAMES[0]) | (
            patch_index.feature == _ENDS_OF_FRAMES[1]
        )
        ends = ends & (patch_index.frame >= 0)
        times = self.times(seconds, rows.dtype).index_select(0, patch_index.frame.clamp(min=0))
        return rows + (times * ends[:, None]).to(rows.dtype)


class AveragePool(Projector):
    """Averages of patches through one MLP: group-based, interleaved, or one stream of frames.

    Pooling comes before the projection: eight times fewer rows pass the MLP.
    """

    def tokens(
        self, features: Tensor, _: FrameGroups[Tensor], patch_index: PatchIndexTensors
    ) -> Tensor:
        """Pool, then project."""
        return self.mlp(pool(features, patch_index))


class AveragePoolLate(AveragePool):
    """The same with the projection first: every patch passes the MLP."""

    def tokens(
        self, features: Tensor, _: FrameGroups[Tensor], patch_index: PatchIndexTensors
    ) -> Tensor:
        """Project, then pool."""
        return pool(self.mlp(features), patch_index)


class TrainingFree(Projector):
    """SlowFast-LLaVA (v1), pooled first: slow rows max-pooled along themselves, fast averaged."""

    def tokens(
        self, features: Tensor, _: FrameGroups[Tensor], patch_index: PatchIndexTensors
    ) -> Tensor:
        """Pool, then project."""
        return self.mlp(_slow_and_fast(features, patch_index))


class TrainingFreeLate(TrainingFree):
    """Apple's own order: every patch passes the MLP, what comes out is pooled."""

    def tokens(
        self, features: Tensor, _: FrameGroups[Tensor], patch_index: PatchIndexTensors
    ) -> Tensor:
        """Project, then pool."""
        return _slow_and_fast(self.mlp(features), patch_index)


# slow: maximum along a row, fast: average (SlowFast-LLaVA, arXiv 2407.15841)
def _slow_and_fast(features: Tensor, patch_index: PatchIndexTensors) -> Tensor:
    most = highest(features.index_select(0, patch_index.patch), patch_index)
    slow = (patch_index.kind == POOLED.index(SLOW))[:, None]
    return torch.where(slow, most, pool(features, patch_index))


class DynamicCompressor(Projector):
    """Oryx: the average of a cell asks the cell's patches, and the answer is added to it.

    An image's cell is one patch: its feature comes out doubled, as in the public model.
    """

    SIZE = 256

    def __init__(self, width: int, hidden: int, layout: LayoutConfig, heads: int = 1) -> None:
        super().__init__(width, hidden, layout, heads)
        self.query, self.key = nn.Linear(width, self.SIZE), nn.Linear(width, self.SIZE)

    def tokens(
        self, features: Tensor, _: FrameGroups[Tensor], patch_index: PatchIndexTensors
    ) -> Tensor:
        """The mean of each cell, plus what its patches answer; projected."""
        # the cell's mean asks, its patches answer (Oryx, arXiv 2409.12961)
        mean = pool(features, patch_index)
        patches = features.index_select(0, patch_index.patch)
        query = self.query(mean).index_select(0, patch_index.segment)
        key = self.key(features).index_select(0, patch_index.patch)
        shares = attend((query * key).sum(1, keepdim=True) * self.SIZE**-0.5, patch_index)
        return self.mlp(mean + summed(shares * patches, patch_index))


class AttentionPool(Projector):
    """Molmo: multi-head attention over a cell's patches, asked by their mean."""

    def __init__(self, width: int, hidden: int, layout: LayoutConfig, heads: int = 1) -> None:
        super().__init__(width, hidden, layout, heads)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)

    def tokens(
        self, features: Tensor, _: FrameGroups[Tensor], patch_index: PatchIndexTensors
    ) -> Tensor:
        """What the patches of each cell answer to their mean, over several heads; projected."""
        # asked by the mean, over several heads (Molmo, arXiv 2409.17146)
        query = self._heads(self.query(pool(features, patch_index))).index_select(
            0, patch_index.segment
        )
        key = self._heads(self.key(features)).index_select(0, patch_index.patch)
        value = self._heads(self.value(features)).index_select(0, patch_index.patch)
        shares = attend((query * key).sum(2) * (self.width // self.heads) ** -0.5, patch_index)
        answer = summed(shares[..., None] * value, patch_index).flatten(1)
        return self.mlp(self.out(answer))

    def _heads(self, rows: Tensor) -> Tensor:
        return rows.unflatten(1, (self.heads, -1))


class Resampled(Projector):
    """Learned queries look at each whole frame; `queries` tokens whatever its size."""

    Resampler: type[Perceiver] = Perceiver

    def __init__(self, width: int, hidden: int, layout: LayoutConfig, heads: int = 1) -> None:
        super().__init__(width, hidden, layout, heads)
        self.resampler = self.Resampler(width, layout.queries, heads)

    def tokens(
        self, features: Tensor, frames: FrameGroups[Tensor], patch_index: PatchIndexTensors
    ) -> Tensor:
        """The queries' answers, frame by frame; projected."""
        # frames of one grid run as one batch
        made = resample(self.resampler, features, frames).flatten(0, 1)
        if len(made) != len(patch_index.kind):
            raise ValueError(
                f"{len(made)} queries of {len(frames.frames)} frames, "
                f"{len(patch_index.kind)} tokens"
            )
        return self.mlp(made)


class ResampledByQFormer(Resampled):
    """Queries that also look at each other (BLIP-2)."""

    Resampler = QFormer


PROJECTORS: dict[str, type[Projector]] = {
    "gsf": AveragePool,
    "isf": AveragePool,
    "avgpool": AveragePool,
    "v1": TrainingFreeLate,
    "dynamic_compressor": DynamicCompressor,
    "attn_meanq": AttentionPool,
    "perceiver": Resampled,
    "qformer": ResampledByQFormer,
}
LATE = {AveragePool: AveragePoolLate, TrainingFree: TrainingFreeLate}
"""Projectors that pool before their MLP, and the same after it."""
ARRANGEMENTS = {
    "gsf": "gsf",
    "isf": "isf",
    "v1": "v1",
    "perceiver": "queries",
    "qformer": "queries",
}

IDLE: dict[str, tuple[str, ...]] = {
    "gsf": ("queries",),
    "isf": ("queries",),
    "v1": ("queries", "newlines"),
    "queries": (
        *("slow_frames", "slow_stride", "fast_mode", "fast_stride", "fast_frames"),
        *("newlines", "pathways"),
    ),
}
"""Arrangement -> keys of a layout that change nothing under it: only defaults are taken."""


def check_idle(layout: LayoutConfig) -> None:
    """UserError for keys of a layout that its arrangement forgets."""
    arrangement = layout.arrangement
    default = LayoutConfig()
    # a key that its arrangement forgets would be silent
    names = set(IDLE[arrangement])
    if layout.timestamps == "sentence":
        names.discard("slow_frames")  # the sentence tells the times of so many frames
    if layout.pathways == "none":
        names.discard("pathways")  # nothing is shown at all
    if layout.timestamps == "learned" and arrangement == "v1":
        names.add("timestamps")  # which are added where frames end: nowhere
    for name in sorted(names):
        value = getattr(layout, name)
        if value != getattr(default, name):
            raise UserError(
                f"layout: {name}: {value} changes nothing under `arrangement: {arrangement}`; "
                "leave it out"
            )


def build_projector(
    name: str,
    width: int,
    hidden: int,
    layout: LayoutConfig,
    *,
    heads: int,
    pool_first: bool | None = None,
) -> Projector:
    """The projector of this name; UserError where it is unknown or the layout is another's.

    `pool_first` says whether cells are pooled before the MLP or after it, None as its authors do.
    UserError for those whose pooling is learned: it has one place.
    """
    if name not in PROJECTORS:
        raise UserError(f"projector: unknown {name!r}; use one of {', '.join(PROJECTORS)}")
    wanted = ARRANGEMENTS.get(name)
    if layout.arrangement != wanted if wanted else layout.arrangement == "queries":
        raise UserError(
            f"projector: {name} does not fit a layout with `arrangement: {layout.arrangement}`; "
            f"plan a manifest with `arrangement: {wanted or 'gsf'}`, or use another projector"
        )
    check_idle(layout)
    kind = PROJECTORS[name]
    # the same pooling before or after the MLP, where it has no weights of its own
    if pool_first is None or pool_first == (kind not in LATE.values()):
        return kind(width, hidden, layout, heads)
    other = {**LATE, **{late: early for early, late in LATE.items()}}.get(kind)
    if other is None:
        orders = ", ".join(n for n, k in PROJECTORS.items() if k in (*LATE, *LATE.values()))
        raise UserError(
            f"pool_before_projection: false with projector {name}, whose pooling is learned; leave "
            f"it out, or use one of {orders}"
        )
    return other(width, hidden, layout, heads)
