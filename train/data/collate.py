"""Collate: rendered samples -> one flat row of tokens, labels, pixels, and where these stand.

Numpy only. A pack is whole samples back to back. Every count comes from
`mixtures.tokens.token_plan`; here it is only checked that placeholders, features and frames agree,
sample by sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixtures.tokens.layout_types import LEARNED, LayoutConfig, TokenPlan
from mixtures.tokens.text import Rendered
from mixtures.tokens.token_plan import frames_used
from train.data.attention_blocks import Blocks, plan_blocks
from train.data.jpeg_patches import PATCH_VALUES, Frames
from train.data.token_patches import TokenPatches, counts_of, token_patches
from train.data.tower_plan import (
    WHOLE_TOWER,
    FrameTable,
    TowerPlan,
    TowerRule,
    learned_frames,
    plan_tower,
    runs,
)

IGNORED = -100


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchIndex:
    """What stands at the visual rows: `V` of them, `M` pooled tokens over `K` patch uses.

    `position` int64 [V]: row of the pack. `feature` int64 [V]: below len(LEARNED) a learned vector,
    else len(LEARNED) + the number of a pooled token. `patch` int64 [K]: patch row; `segment`
    int64 [K], ascending: the pooled token that pools it; `sizes` int64 [M]: patches per token.
    `frame` int64 [V]: row of `grids`, -1 for what belongs to no frame; `kind` int64 [M]: index into
    mixtures.tokens.layout_types.POOLED.
    """

    position: NDArray[np.int64]
    feature: NDArray[np.int64]
    patch: NDArray[np.int64]
    segment: NDArray[np.int64]
    sizes: NDArray[np.int64]
    frame: NDArray[np.int64]
    kind: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFrames:
    """Frames beyond the cap: `patches` uint8 [P, 768], `grids` int64 [F, 2], `times` float32 [F]
    seconds, `clip` int64 [F], ascending: the clip of the pack that each belongs to. `position`
    int64 [R]: the rows of the pack that stand for them, as many for every such clip."""

    patches: NDArray[np.uint8]
    grids: NDArray[np.int64]
    times: NDArray[np.float32]
    clip: NDArray[np.int64]
    position: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """One flat row of whole samples.

    `labels[t]` is the target predicted at row t, that is the next token of the same sample, or -100
    where it is not supervised; the last row of a sample is always -100. `positions` restart at 0.
    `patches` uint8 [P, 768] in (ph, pw, c) order, `grids` int64 [N, 2] patches per frame (rows,
    columns), `times` float32 [N] seconds. `keys` names the samples in order, `sources` where each
    is from.

    What a forward pass must know of shapes beside these: `supervised_rows` int64 [S], the rows that
    carry a loss; `blocks`, how samples are kept apart; `tower`, its calls.
    """

    tokens: NDArray[np.int64]
    labels: NDArray[np.int64]
    positions: NDArray[np.int64]
    cu_seqlens: NDArray[np.int64]
    patches: NDArray[np.uint8]
    grids: NDArray[np.int64]
    patch_index: PatchIndex
    times: NDArray[np.float32]
    keys: tuple[str, ...]
    sources: tuple[str, ...]
    memory: MemoryFrames
    supervised_rows: NDArray[np.int64]
    blocks: Blocks[NDArray[Any]]
    tower: TowerPlan[NDArray[Any]]

    @property
    def supervised(self) -> int:
        """How many rows carry a loss."""
        return len(self.supervised_rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedSample:
    """A sample ready to pack; `layouts`, `frames` and `seconds` have one entry per clip.

    `frames[c]` is uint8 [F, gh, gw, 768]: the frames of `frames_used(layouts[c])` in that order, at
    the recipe's size, as gh x gw patches in (ph, pw, c) order; `seconds[c]` their presentation
    times. A clip whose layout is empty has none. `position` is the sample's place in the order, and
    `source` what it was drawn from.
    """

    key: str
    position: int = 0
    source: str = ""
    text: Rendered
    layouts: Sequence[TokenPlan]
    frames: Sequence[Frames]
    seconds: Sequence[Sequence[float]]


def build_pack(
    samples: Sequence[RenderedSample],
    config: LayoutConfig,
    rule: TowerRule = WHOLE_TOWER,
    calls: int = 1,
) -> Pack:
    """One pack of these samples, in order; the tower will run over it at least `calls` times.

    ValueError names the sample and the two numbers where placeholders and features, or frames and
    layout, disagree.
    """
    if not samples:
        # a rank without samples still runs its collectives
        return empty_pack(rule, calls)
    lengths = np.array([len(sample.text.ids) for sample in samples], np.int64)
    # where each sample begins in the row
    starts = _before(lengths)
    # every clip in reading order, its rows counted from the pack's first
    clips = [
        _placed(sample, number, start)
        for sample, start in zip(samples, starts.tolist(), strict=True)
        for number in range(_clips_in(sample))
    ]
    tokens = np.concatenate([sample.text.ids for sample in samples], dtype=np.int64)
    # row t predicts token t + 1, but the last row of a sample must not predict the next one's first
    supervised = np.concatenate([sample.text.supervised for sample in samples])
    labels = np.full(len(tokens), IGNORED, np.int64)
    labels[:-1] = np.where(supervised[1:], tokens[1:], IGNORED)
    labels[(starts + lengths - 1)[lengths > 0]] = IGNORED
    # cumulative lengths, which keep attention within a sample
    cu_seqlens = np.append(starts, len(tokens))
    return Pack(
        tokens=tokens,
        labels=labels,
        # position ids restart with each sample, so that packing changes no rotary phase
        positions=runs(np.zeros_like(starts), lengths),
        cu_seqlens=cu_seqlens,
        # patches lie in the pack's buffer already where every sample fitted
        patches=_stacked([clip.shown.reshape(-1, PATCH_VALUES) for clip in clips]),
        grids=_grids([clip.shown for clip in clips]),
        patch_index=_patch_index(clips, config),
        times=np.array([t for clip in clips for t in clip.times], np.float32),
        keys=tuple(sample.key for sample in samples),
        sources=tuple(sample.source for sample in samples),
        memory=_memory([clip for clip in clips if len(clip.beyond)]),
        supervised_rows=np.flatnonzero(labels != IGNORED),
        blocks=plan_blocks(cu_seqlens),
        tower=plan_tower(_frames(clips, rule), rule, calls),
    )


def empty_pack(rule: TowerRule = WHOLE_TOWER, calls: int = 1) -> Pack:
    """One unsupervised token and no pixels: a rank with nothing to do still takes its step."""
    return Pack(
        tokens=np.zeros(1, np.int64),
        labels=np.full(1, IGNORED, np.int64),
        positions=np.zeros(1, np.int64),
        cu_seqlens=np.array([0, 1]),
        patches=np.zeros((0, PATCH_VALUES), np.uint8),
        grids=np.zeros((0, 2), np.int64),
        patch_index=_EMPTY_INDEX,
        times=np.zeros(0, np.float32),
        keys=(),
        sources=(),
        memory=_NO_MEMORY,
        supervised_rows=np.zeros(0, np.int64),
        blocks=plan_blocks(np.array([0, 1])),
        tower=plan_tower(_frames((), rule), rule, calls),
    )


_EMPTY_INDEX = PatchIndex(
    **dict.fromkeys((field.name for field in fields(PatchIndex)), np.zeros(0, np.int64))
)
_NO_MEMORY = MemoryFrames(
    patches=np.zeros((0, PATCH_VALUES), np.uint8),
    grids=np.zeros((0, 2), np.int64),
    times=np.zeros(0, np.float32),
    clip=np.zeros(0, np.int64),
    position=np.zeros(0, np.int64),
)


class _Placed(NamedTuple):
    """A clip in its pack, called `name`: the frames shown, and those beyond the cap.

    `rows` int64 [S, 3] are those of `Rendered.visual` that mention it, in reading order, positions
    counted from the pack's first row. `images` is the number of images in its sample; `draw_key` is
    what its frames are drawn by: sample key, position in the order, number in the sample.
    """

    name: str
    draw_key: tuple[str, int, int]
    layout: TokenPlan
    rows: NDArray[np.int64]
    images: int
    shown: Frames
    times: Sequence[float]
    beyond: Frames
    times_beyond: Sequence[float]


def _clips_in(sample: RenderedSample) -> int:
    """How many clips a sample has; ValueError where layouts, frames and times disagree."""
    if not len(sample.layouts) == len(sample.frames) == len(sample.seconds):
        raise ValueError(
            f"sample {sample.key}: {len(sample.layouts)} clips laid out, "
            f"{len(sample.frames)} of frames, {len(sample.seconds)} of times"
        )
    return len(sample.layouts)


def _placed(sample: RenderedSample, number: int, first_row: int) -> _Placed:
    """A clip of the sample that starts at this row of the pack, checked against its layout."""
    layout, frames = sample.layouts[number], sample.frames[number]
    times = sample.seconds[number]
    name = f"sample {sample.key}, clip {number}"
    counts = counts_of(layout)
    visual = sample.text.visual
    # rows of Rendered.visual: (row of the text, clip, run of the token plan)
    rows = visual[visual[:, 1] == number]
    # a clip that is mentioned twice stands in the text twice
    mentions = max(np.count_nonzero(rows[:, 2] == 0), 1)
    places = counts.features[rows[:, 2]].sum()
    _agree(name, "placeholders", places, "features", counts.features.sum() * mentions)
    _agree(name, "frames", len(frames), "frames in the layout", len(frames_used(layout)))
    _agree(name, "frames", len(frames), "times", len(times))
    shown = len(frames) - counts.beyond
    return _Placed(
        name=name,
        draw_key=(sample.key, sample.position, number),
        layout=layout,
        rows=np.add(rows, (first_row, 0, 0)),
        images=sum(counts_of(each_layout).is_image for each_layout in sample.layouts),
        shown=frames[:shown],
        times=times[:shown],
        beyond=frames[shown:],
        times_beyond=times[shown:],
    )


# placeholders in the text, runs of the plan and decoded frames are three counts of one thing
def _agree(name: str, what: str, a: int, other: str, b: int) -> None:
    if a != b:
        raise ValueError(f"{name}: {a} {what}, {b} {other}")


def _stacked(patches_of: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """The rows of all parts: as they lie if they follow one another in one array, else a copy."""
    # the parts follow one another where each begins at the address at which the one before ends
    filled = [part for part in patches_of if len(part)] or [_NO_MEMORY.patches]
    room = filled[0].base
    start = filled[0].ctypes.data
    at = start
    # an empty part has no address to compare
    for part in filled:
        if part.base is not room or part.ctypes.data != at:
            return np.concatenate(filled)
        at += part.nbytes
    if room is None or room.shape[1:] != (PATCH_VALUES,):
        return np.concatenate(filled)
    # all of them are one stretch of that array: a view of it, no byte is copied
    first = (start - room.ctypes.data) // PATCH_VALUES
    rows: NDArray[np.uint8] = room[first : first + (at - start) // PATCH_VALUES]
    return rows


def _before(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sum of the sizes before each."""
    # an exclusive prefix sum
    return np.cumsum(sizes) - sizes


def _grids(frames_of_clips: Sequence[Frames]) -> NDArray[np.int64]:
    """[N, 2]: the grid of each frame."""
    # one grid per clip: all frames of a clip are shown at one size
    grids = np.array([frames.shape[1:3] for frames in frames_of_clips], np.int64).reshape(-1, 2)
    return np.repeat(grids, [len(frames) for frames in frames_of_clips], axis=0)


def _frames(clips: Sequence[_Placed], rule: TowerRule) -> FrameTable:
    """Every frame of the pack; of each video, those that the tower is to learn from."""
    learned = [_learned(clip, rule) for clip in clips]
    counts = [len(clip.shown) for clip in clips]
    # the table has all shown frames first, then all beyond the cap, each in order of clips
    shown = [part[:count] for part, count in zip(learned, counts, strict=True)]
    beyond = [part[count:] for part, count in zip(learned, counts, strict=True)]
    learned_and_scale = np.concatenate([np.zeros((0, 2), np.float32), *shown, *beyond])
    return FrameTable(
        grids=np.concatenate([_grids([c.shown for c in clips]), _grids([c.beyond for c in clips])]),
        learned=learned_and_scale[:, 0] > 0,
        scale=learned_and_scale[:, 1],
        shown=sum(counts),
    )


def _learned(clip: _Placed, rule: TowerRule) -> NDArray[np.float32]:
    """Of each frame, shown or beyond the cap: whether it is learned from, and 1 / its chance."""
    count = len(clip.shown) + len(clip.beyond)
    if rule.keep == 1 or counts_of(clip.layout).is_image:
        return np.ones((count, 2), np.float32)
    # the inverse chance makes the gradient's expectation that of the whole tower
    drawn = learned_frames(rule, count, *clip.draw_key)
    return np.stack([drawn, np.full(count, rule.keep)], axis=1, dtype=np.float32)


def _patch_index(clips: Sequence[_Placed], config: LayoutConfig) -> PatchIndex:
    if not clips:
        return _EMPTY_INDEX
    # rows that the projector fills; special tokens and stamps have embeddings of the text
    projected = [clip.rows[counts_of(clip.layout).projected[clip.rows[:, 2]]] for clip in clips]
    parts = [
        _token_patches(clip, rows, config) for clip, rows in zip(clips, projected, strict=True)
    ]
    # how many consecutive rows of the pack each run of a plan covers
    tokens = [
        counts_of(clip.layout).tokens[rows[:, 2]]
        for clip, rows in zip(clips, projected, strict=True)
    ]
    # what each clip counts from its own first one, the pack counts on from the clips before it
    pooled = _before(np.array([len(part.sizes) for part in parts]))
    patches = _before(np.array([len(clip.shown) * prod(clip.shown.shape[1:3]) for clip in clips]))
    frames = _before(np.array([len(clip.shown) for clip in clips]))
    # learned vectors are the same for all clips, and what belongs to no frame stays at -1
    rows_of = [len(part.feature) for part in parts]
    feature = np.concatenate([part.feature for part in parts])
    frame = np.concatenate([part.frame for part in parts])
    return PatchIndex(
        # each run of the plan covers consecutive rows of the pack
        position=runs(np.concatenate(projected)[:, 0], np.concatenate(tokens)),
        feature=feature + np.where(feature < len(LEARNED), 0, np.repeat(pooled, rows_of)),
        patch=np.concatenate([p.patch + at for p, at in zip(parts, patches, strict=True)]),
        segment=np.concatenate([p.segment + at for p, at in zip(parts, pooled, strict=True)]),
        sizes=np.concatenate([part.sizes for part in parts]),
        frame=frame + np.where(frame < 0, 0, np.repeat(frames, rows_of)),
        kind=np.concatenate([part.kind for part in parts]),
    )


def _token_patches(clip: _Placed, rows: NDArray[np.int64], config: LayoutConfig) -> TokenPatches:
    # as bytes: `token_patches` is cached by its arguments, which must hash
    numbers = rows[:, 2].tobytes()
    grid = clip.shown.shape[1:3]
    try:
        return token_patches(clip.layout, numbers, grid, config, clip.images)
    except ValueError as error:
        raise ValueError(f"{clip.name}: {error}") from error


def _memory(clips: Sequence[_Placed]) -> MemoryFrames:
    """The frames beyond the cap of these clips, and where they stand."""
    # frames that a long video has beyond the cap go into a memory of fixed size
    if not clips:
        return _NO_MEMORY
    counts = [len(clip.beyond) for clip in clips]
    return MemoryFrames(
        patches=np.concatenate([clip.beyond.reshape(-1, PATCH_VALUES) for clip in clips]),
        grids=_grids([clip.beyond for clip in clips]),
        times=np.array([t for clip in clips for t in clip.times_beyond], np.float32),
        clip=np.repeat(np.arange(len(clips)), counts),
        position=np.concatenate([_memory_rows(clip) for clip in clips]),
    )


def _memory_rows(clip: _Placed) -> NDArray[np.int64]:
    """The rows of the pack that stand for the frames beyond the cap."""
    counts = counts_of(clip.layout)
    # exactly one run of rows stands for the memory
    mentions = clip.rows[counts.memory[clip.rows[:, 2]]]
    if len(mentions) != 1:
        raise ValueError(f"{clip.name}: a memory that is mentioned {len(mentions)} times")
    ((start, _, run),) = mentions.tolist()
    return np.arange(start, start + counts.tokens[run])
