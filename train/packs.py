"""Rendered samples -> one flat row of tokens, labels, pixels and their wiring. numpy only.

A pack is whole samples back to back. Every count comes from `mixtures.layout`; here it is only
checked that placeholders, features and frames agree, sample by sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from mixtures.layout import LEARNED, Layout, LayoutConfig, frames_used
from mixtures.text import Rendered
from train.frames import PATCH_VALUES, Frames
from train.wiring import counts_of, wire

IGNORED = -100


@dataclass(frozen=True, slots=True, kw_only=True)
class VisualSlots:
    """What stands at the visual rows: `V` of them, `M` pooled tokens over `K` patch uses.

    `position` int64 [V]: row of the pack. `feature` int64 [V]: below len(LEARNED) a learned vector,
    else len(LEARNED) + the number of a pooled token. `patch` int64 [K]: patch row; `segment`
    int64 [K], ascending: the pooled token that pools it; `sizes` int64 [M]: patches per token.
    `frame` int64 [V]: row of `grids`, -1 for what belongs to no frame; `kind` int64 [M]: index into
    mixtures.layout.POOLED.
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
    `patches` uint8 [P, 768] in (c, ph, pw) order, `grids` int64 [N, 2] patches per frame (rows,
    columns), `times` float32 [N] seconds. `keys` names the samples in order.
    """

    tokens: NDArray[np.int64]
    labels: NDArray[np.int64]
    positions: NDArray[np.int64]
    cu_seqlens: NDArray[np.int64]
    patches: NDArray[np.uint8]
    grids: NDArray[np.int64]
    slots: VisualSlots
    times: NDArray[np.float32]
    keys: tuple[str, ...]
    memory: MemoryFrames

    @property
    def supervised(self) -> int:
        """How many rows carry a loss."""
        return int(np.count_nonzero(self.labels != IGNORED))


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedSample:
    """A sample ready to pack; `layouts`, `frames` and `seconds` have one entry per clip.

    `frames[c]` is uint8 [F, gh, gw, 768]: the frames of `frames_used(layouts[c])` in that order, at
    the recipe's size, as gh x gw patches in (c, ph, pw) order; `seconds[c]` their presentation
    times. A clip whose layout is empty has none.
    """

    key: str
    text: Rendered
    layouts: Sequence[Layout]
    frames: Sequence[Frames]
    seconds: Sequence[Sequence[float]]


def build_pack(samples: Sequence[RenderedSample], config: LayoutConfig) -> Pack:
    """One pack of these samples, in order.

    ValueError names the sample and the two numbers where placeholders and features, or frames and
    layout, disagree.
    """
    return join([_sample_pack(sample, config) for sample in samples])


def empty_pack() -> Pack:
    """One unsupervised token and no pixels: a rank with nothing to do still takes its step."""
    nothing = np.zeros(0, np.int64)
    return Pack(
        tokens=np.zeros(1, np.int64),
        labels=np.full(1, IGNORED, np.int64),
        positions=np.zeros(1, np.int64),
        cu_seqlens=np.array([0, 1]),
        patches=np.zeros((0, PATCH_VALUES), np.uint8),
        grids=np.zeros((0, 2), np.int64),
        slots=VisualSlots(**dict.fromkeys((field.name for field in fields(VisualSlots)), nothing)),
        times=np.zeros(0, np.float32),
        keys=(),
        memory=_NO_MEMORY,
    )


_NO_MEMORY = MemoryFrames(
    patches=np.zeros((0, PATCH_VALUES), np.uint8),
    grids=np.zeros((0, 2), np.int64),
    times=np.zeros(0, np.float32),
    clip=np.zeros(0, np.int64),
    position=np.zeros(0, np.int64),
)


def join(packs: Sequence[Pack]) -> Pack:
    """Several packs as one flat row: every sample stays its own segment."""
    if not packs:
        return empty_pack()
    if len(packs) == 1:
        return packs[0]
    lengths = [np.diff(pack.cu_seqlens) for pack in packs]
    return Pack(
        tokens=np.concatenate([pack.tokens for pack in packs]),
        labels=np.concatenate([pack.labels for pack in packs]),
        positions=np.concatenate([pack.positions for pack in packs]),
        cu_seqlens=np.concatenate([[0], np.cumsum(np.concatenate(lengths))]),
        patches=_stacked([pack.patches for pack in packs]),
        grids=np.concatenate([pack.grids for pack in packs]),
        slots=_join_slots(packs),
        times=np.concatenate([pack.times for pack in packs]),
        keys=tuple(key for pack in packs for key in pack.keys),
        memory=_join_memory([pack.memory for pack in packs], [len(pack.tokens) for pack in packs]),
    )


def _join_memory(parts: Sequence[MemoryFrames], rows: Sequence[int]) -> MemoryFrames:
    clips = _offsets([len(np.unique(part.clip)) for part in parts])
    at = _offsets(rows)
    return MemoryFrames(
        patches=np.concatenate([part.patches for part in parts]),
        grids=np.concatenate([part.grids for part in parts]),
        times=np.concatenate([part.times for part in parts]),
        clip=np.concatenate([p.clip + before for p, before in zip(parts, clips, strict=True)]),
        position=np.concatenate([p.position + row for p, row in zip(parts, at, strict=True)]),
    )


def _join_slots(packs: Sequence[Pack]) -> VisualSlots:
    slots = [pack.slots for pack in packs]
    rows = _offsets([len(pack.tokens) for pack in packs])
    patches = _offsets([len(pack.patches) for pack in packs])
    pooled = _offsets([len(part.sizes) for part in slots])
    frames = [
        np.where(part.frame < 0, -1, part.frame + before)
        for part, before in zip(slots, _offsets([len(p.grids) for p in packs]), strict=True)
    ]
    features = [
        np.where(part.feature < len(LEARNED), part.feature, part.feature + before)
        for part, before in zip(slots, pooled, strict=True)
    ]
    return VisualSlots(
        position=np.concatenate([s.position + at for s, at in zip(slots, rows, strict=True)]),
        feature=np.concatenate(features),
        patch=np.concatenate([s.patch + at for s, at in zip(slots, patches, strict=True)]),
        segment=np.concatenate([s.segment + at for s, at in zip(slots, pooled, strict=True)]),
        sizes=np.concatenate([s.sizes for s in slots]),
        frame=np.concatenate(frames),
        kind=np.concatenate([s.kind for s in slots]),
    )


def _offsets(sizes: Sequence[int]) -> list[int]:
    return [0, *np.cumsum(sizes[:-1]).tolist()]


def _sample_pack(sample: RenderedSample, config: LayoutConfig) -> Pack:
    ids = np.asarray(sample.text.ids, np.int64)
    wanted = np.asarray(sample.text.supervised, bool)
    labels = np.full(len(ids), IGNORED, np.int64)
    labels[:-1] = np.where(wanted[1:], ids[1:], IGNORED)
    _check(sample)
    beyond = [counts_of(layout).beyond for layout in sample.layouts]
    pairs = list(zip(sample.frames, sample.seconds, beyond, strict=True))
    shown = [(frames[: len(frames) - n], times[: len(times) - n]) for frames, times, n in pairs]
    rest = [(frames[len(frames) - n :], times[len(times) - n :]) for frames, times, n in pairs]
    clips = [_rows(frames) for frames, _ in shown]
    return Pack(
        tokens=ids,
        labels=labels,
        positions=np.arange(len(ids)),
        cu_seqlens=np.array([0, len(ids)]),
        patches=_stacked([patches for patches, _ in clips]),
        grids=_frame_grids(clips, [len(frames) for frames, _ in shown]),
        slots=_sample_slots(sample, clips, config),
        times=np.array([t for _, times in shown for t in times], np.float32),
        keys=(sample.key,),
        memory=_sample_memory(sample, rest) if any(beyond) else _NO_MEMORY,
    )


def _rows(frames: Frames) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Frames as patch rows [P, 768], and the grid of each."""
    return frames.reshape(-1, PATCH_VALUES), (frames.shape[1], frames.shape[2])


def _stacked(parts: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """The rows of all parts: as they lie if they follow one another in one array, else a copy."""
    filled = [part for part in parts if len(part)] or [_NO_MEMORY.patches]
    room, start = filled[0].base, filled[0].ctypes.data
    at = start
    for part in filled:
        if part.base is not room or part.ctypes.data != at:
            return np.concatenate(filled)
        at += part.nbytes
    if room is None or room.shape[1:] != (PATCH_VALUES,):
        return np.concatenate(filled)
    first = (start - room.ctypes.data) // PATCH_VALUES
    rows: NDArray[np.uint8] = room[first : first + (at - start) // PATCH_VALUES]
    return rows


def _check(sample: RenderedSample) -> None:
    if not len(sample.layouts) == len(sample.frames) == len(sample.seconds):
        raise ValueError(
            f"sample {sample.key}: {len(sample.layouts)} clips laid out, "
            f"{len(sample.frames)} of frames, {len(sample.seconds)} of times"
        )
    for clip, layout in enumerate(sample.layouts):
        counts, placed = counts_of(layout), _placed(sample, clip)
        mentions = np.count_nonzero(_mentioned(sample, clip)[:, 2] == 0)
        places = counts.tokens[placed[:, 2]].sum()
        features = counts.tokens[counts.visual].sum() * max(mentions, 1)
        _agree(sample.key, clip, "placeholders", places, "features", features)
        used, given = len(frames_used(layout)), len(sample.frames[clip])
        _agree(sample.key, clip, "frames", given, "frames in the layout", used)
        _agree(sample.key, clip, "frames", given, "times", len(sample.seconds[clip]))


def _mentioned(sample: RenderedSample, clip: int) -> NDArray[np.int64]:
    """The rows of `visual` of one clip, in reading order."""
    return sample.text.visual[sample.text.visual[:, 1] == clip]


def _placed(sample: RenderedSample, clip: int) -> NDArray[np.int64]:
    """Those whose slots are visual."""
    rows = _mentioned(sample, clip)
    return rows[counts_of(sample.layouts[clip]).visual[rows[:, 2]]]


def _runs(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """start, start + 1, ... of each run, one after the other."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(lengths.sum())


def _frame_grids(
    clips: Sequence[tuple[NDArray[np.uint8], tuple[int, int]]], frames: Sequence[int]
) -> NDArray[np.int64]:
    grids = np.array([grid for _, grid in clips], np.int64).reshape(-1, 2)
    return np.repeat(grids, np.array(frames, np.int64), axis=0)


def _sample_memory(
    sample: RenderedSample, rest: Sequence[tuple[NDArray[np.uint8], Sequence[float]]]
) -> MemoryFrames:
    """The frames beyond the cap of every clip that has some, and where they stand."""
    clips = [_rows(frames) for frames, _ in rest]
    counts = np.array([len(frames) for frames, _ in rest], np.int64)
    kept = np.flatnonzero(counts)
    position = [
        np.arange(at, at + counts_of(sample.layouts[clip]).tokens[slot])
        for clip in kept.tolist()
        for at, _, slot in _placed(sample, clip)
        if counts_of(sample.layouts[clip]).memory[slot]
    ]
    if len(position) != len(kept):
        raise ValueError(
            f"sample {sample.key}: {len(kept)} clips with a memory, mentioned {len(position)} times"
        )
    return MemoryFrames(
        patches=np.concatenate([patches for patches, _ in clips]),
        grids=_frame_grids(clips, counts.tolist()),
        times=np.array([t for _, times in rest for t in times], np.float32),
        clip=np.repeat(np.arange(len(kept)), counts[kept]),
        position=np.concatenate(position),
    )


def _agree(key: str, clip: int, what: str, a: int, other: str, b: int) -> None:
    if a != b:
        raise ValueError(f"sample {key}, clip {clip}: {a} {what}, {b} {other}")


def _sample_slots(
    sample: RenderedSample,
    clips: Sequence[tuple[NDArray[np.uint8], tuple[int, int]]],
    config: LayoutConfig,
) -> VisualSlots:
    images = sum(counts_of(layout).is_image for layout in sample.layouts)
    columns: dict[str, list[NDArray[np.int64]]] = {
        field.name: [np.zeros(0, np.int64)] for field in fields(VisualSlots)
    }
    patches = pooled = frames = 0
    for clip, (own, grid) in enumerate(clips):
        layout, rows = sample.layouts[clip], _mentioned(sample, clip)
        rows = rows[counts_of(layout).wired[rows[:, 2]]]
        try:
            wiring = wire(layout, rows[:, 2].tobytes(), grid, config, images)
        except ValueError as error:
            raise ValueError(f"sample {sample.key}, clip {clip}: {error}") from error
        learned = wiring.feature < len(LEARNED)
        columns["position"].append(_runs(rows[:, 0], counts_of(layout).tokens[rows[:, 2]]))
        columns["feature"].append(np.where(learned, wiring.feature, wiring.feature + pooled))
        columns["patch"].append(wiring.patch + patches)
        columns["sizes"].append(wiring.sizes)
        columns["frame"].append(np.where(wiring.frame < 0, -1, wiring.frame + frames))
        columns["kind"].append(wiring.kind)
        patches += len(own)
        pooled += len(wiring.sizes)
        frames += len(own) // max(grid[0] * grid[1], 1)
    found = {name: np.concatenate(parts) for name, parts in columns.items()}
    found["segment"] = np.repeat(np.arange(len(found["sizes"])), found["sizes"])
    return VisualSlots(**found)
