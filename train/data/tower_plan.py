"""Which frames of a pack the tower sees in which call, and which of them it learns from.

Planned in numpy with the pack, so that the forward pass asks no device for a shape. A call takes
the frames that begin within `chunk` patches of each other: no frame is split, a call exceeds the
chunk by less than one frame, and P patches need ceil(P / chunk) calls however they are cut into
frames. So every rank knows the calls of every other from the plan's count of patches alone.

Stochastic back-propagation (Cheng et al., "Stochastic Backpropagation", CVPR 2022) keeps one frame
in `keep` for the backward pass; `uniform_jitter` draws one from each run of `keep` frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from mixtures.order.permutation import key_of, splitmix

Array = TypeVar("Array")
"""numpy's while a pack is planned, torch's in the model."""
CHUNK = 16_384
"""Patches of a call unless a config says otherwise: 28 frames of 384x384."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerRule:
    """How the tower runs: calls of about `chunk` patches, the backward pass for one video frame in
    `keep`; `seed` keys the draws."""

    chunk: int = CHUNK
    keep: int = 1
    seed: int = 0


WHOLE_TOWER = TowerRule()
"""Every frame in calls of the usual size, all of them learned from."""


class Group(NamedTuple):
    """Frames of one grid, adjacent in the tower's order: how many, rows and columns."""

    frames: int
    height: int
    width: int


class FrameGroups(NamedTuple, Generic[Array]):
    """Frames sorted by grid: the groups; the patches [P] and the frames [N] in that order."""

    groups: tuple[Group, ...]
    patches: Array
    frames: Array


class TowerCall(NamedTuple, Generic[Array]):
    """One call of the tower: whole frames, first those shown, then those beyond the cap.

    `shown`, `beyond`: their rows among the pack's patches, and among its memory's; `frames`: which
    of the memory's frames. `scale` float32 [P, 1]: 1 / the chance that a patch is learned from
    (None: every one is); `learned`: whether the backward pass sees the call.
    """

    shown: Array
    beyond: Array
    frames: Array
    shown_groups: tuple[Group, ...]
    beyond_groups: tuple[Group, ...]
    scale: Array | None
    learned: bool


class TowerPlan(NamedTuple, Generic[Array]):
    """The calls of a pack, and its shown frames by grid, for projectors that look at frames."""

    calls: tuple[TowerCall[Array], ...]
    frames: FrameGroups[Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameTable:
    """Of every frame of a pack, those shown before those beyond the cap: its grid int64 [N, 2],
    whether it is learned from, and 1 / the chance that it was. `shown` counts the first."""

    grids: NDArray[np.int64]
    learned: NDArray[np.bool_]
    scale: NDArray[np.float32]
    shown: int


def calls_for(patches: int, chunk: int) -> int:
    """Calls of the tower over so many patches, however they are cut into frames; at least one."""
    # ceiling division
    return max(1, -(-patches // chunk))


def learned_frames(rule: TowerRule, count: int, *draw_key: str | int) -> NDArray[np.bool_]:
    """Which frames of a video are learned from: one of every `keep` in a row, by a keyed draw.

    `draw_key` names the video: sample key, position in the order, number among the sample's clips.
    Of a last run that is cut short none may be drawn: each frame's chance is 1 / keep exactly.
    """
    runs = np.arange(-(-count // rule.keep))
    # counter-based: the run's number hashed with the key (SplitMix64), no generator's state
    drawn = splitmix(
        np.uint64(key_of(rule.seed, "learned frames", *draw_key)) ^ splitmix(_u64(runs))
    )
    learned = np.zeros(len(runs) * rule.keep, bool)
    # one frame of each run of `keep`, at a jittered place
    learned[runs * rule.keep + (drawn % np.uint64(rule.keep)).astype(np.int64)] = True
    return learned[:count]


def plan_tower(frames: FrameTable, rule: TowerRule, calls: int = 1) -> TowerPlan[NDArray[Any]]:
    """At least `calls` calls for the frames learned from, and as many for the others where
    frames are drawn at all; those that find nothing to do run on no rows."""
    sizes = frames.grids.prod(axis=1)
    # shown ones first; then frames of one size, and of one grid, stand together
    # lexsort: the last key sorts first
    height, width = frames.grids.T
    beyond = np.arange(len(sizes)) >= frames.shown
    order = np.lexsort((width, height, sizes, beyond))
    num_calls = max(calls, calls_for(int(sizes.sum()), rule.chunk))
    planned = []
    # frames without a backward pass have calls of their own, run without a graph
    for learned in (True, False)[: 1 + (rule.keep > 1)]:
        frame_numbers = order[frames.learned[order] == learned]
        # by the patches before it: a frame belongs to the call in which it begins
        call_of = _before(sizes[frame_numbers]) // rule.chunk
        # searchsorted cuts where the call's number grows; calls without frames stay empty
        parts = np.split(frame_numbers, np.searchsorted(call_of, np.arange(1, num_calls)))
        planned += [_call(part, frames, sizes, rule, learned) for part in parts]
    return TowerPlan(tuple(planned), frame_groups(frames.grids[: frames.shown]))


def plan_all(grids: NDArray[np.int64], beyond: NDArray[np.int64]) -> TowerPlan[NDArray[Any]]:
    """The plan where nothing is drawn: frames [N, 2] that are shown, and those beyond the cap."""
    both = np.concatenate([grids, beyond])
    everything = np.ones(len(both), bool)
    frames = FrameTable(
        grids=both, learned=everything, scale=everything.astype(np.float32), shown=len(grids)
    )
    return plan_tower(frames, WHOLE_TOWER)


def frame_groups(grids: NDArray[np.int64]) -> FrameGroups[NDArray[Any]]:
    """Frames [N, 2] sorted by patches, then rows, then columns."""
    sizes = grids.prod(axis=1)
    order = np.lexsort((grids[:, 1], grids[:, 0], sizes))
    return FrameGroups(groups_of(grids[order]), runs(_before(sizes)[order], sizes[order]), order)


def groups_of(grids: NDArray[np.int64]) -> tuple[Group, ...]:
    """Runs of equal grids [N, 2]."""
    # run-length encoding of the grids
    changes = np.flatnonzero((grids[1:] != grids[:-1]).any(axis=1)) + 1
    parts = [part for part in np.split(grids, changes) if len(part)]
    return tuple(Group(len(part), int(part[0, 0]), int(part[0, 1])) for part in parts)


def runs(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """start, start + 1, ... of each run, one after the other."""
    # the standard trick: repeat each run's offset, add one global counter
    return np.repeat(starts - _before(lengths), lengths) + np.arange(lengths.sum())


def _call(
    members: NDArray[np.int64],
    frames: FrameTable,
    sizes: NDArray[np.int64],
    rule: TowerRule,
    learned: bool,
) -> TowerCall[NDArray[Any]]:
    shown = members[members < frames.shown]
    beyond = members[members >= frames.shown]
    # rows among the shown patches and rows among those beyond count from 0 each
    starts = np.concatenate([_before(sizes[: frames.shown]), _before(sizes[frames.shown :])])
    scale = None
    if learned and rule.keep > 1:
        scale = np.repeat(frames.scale[members], sizes[members])[:, None]
    return TowerCall(
        shown=runs(starts[shown], sizes[shown]),
        beyond=runs(starts[beyond], sizes[beyond]),
        frames=beyond - frames.shown,
        shown_groups=groups_of(frames.grids[shown]),
        beyond_groups=groups_of(frames.grids[beyond]),
        scale=scale,
        learned=learned,
    )


def _before(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sum of the sizes before each."""
    return np.cumsum(sizes) - sizes


def _u64(numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    return numbers.astype(np.uint64)
