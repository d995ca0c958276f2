"""The patch index of visual tokens: which patches stand behind each token of a token plan.

It follows from the plan alone, which clips of one size share, and is kept.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixtures.tokens.layout_types import (
    IMAGE,
    LEARNED,
    MEMORY,
    POOLED,
    LayoutConfig,
    TokenPlan,
    TokenRun,
)
from mixtures.tokens.token_plan import frames_used, pool_cells

PROJECTED = frozenset((*POOLED, *LEARNED))
"""Runs whose tokens the projector makes."""
VISUAL = PROJECTED | {MEMORY}


class Counts(NamedTuple):
    """What the runs of a plan are: their tokens and those that stand for features, int64 [S],
    and which are of which kind."""

    tokens: NDArray[np.int64]
    features: NDArray[np.int64]
    projected: NDArray[np.bool_]
    memory: NDArray[np.bool_]
    beyond: int
    is_image: bool


@lru_cache(maxsize=256)
def counts_of(layout: TokenPlan) -> Counts:
    """The counts of a plan."""
    kinds = [run.kind for run in layout]
    return Counts(
        np.array([run.n for run in layout], np.int64),
        np.array([run.n * (run.kind in VISUAL) for run in layout], np.int64),
        np.array([kind in PROJECTED for kind in kinds], bool),
        np.array([kind == MEMORY for kind in kinds], bool),
        sum(run.frames for run in layout if run.kind == MEMORY),
        IMAGE in kinds,
    )


class TokenPatches(NamedTuple):
    """The PatchIndex of one clip, counted from its own first row, patch and pooled token."""

    feature: NDArray[np.int64]
    patch: NDArray[np.int64]
    segment: NDArray[np.int64]
    sizes: NDArray[np.int64]
    frame: NDArray[np.int64]
    kind: NDArray[np.int64]


@lru_cache(maxsize=256)
def token_patches(
    layout: TokenPlan, numbers: bytes, grid: tuple[int, int], config: LayoutConfig, images: int
) -> TokenPatches:
    """The patches behind the runs with these numbers (int64) over frames of one grid.

    Frames are numbered as encoded.
    """
    # the runs of the plan that the text mentions, in the order of mention
    runs = [layout[number] for number in np.frombuffer(numbers, np.int64)]
    # a frame's number among those that are encoded
    encoded_index = {frame: i for i, frame in enumerate(frames_used(layout))}
    pooled = [run for run in runs if run.kind not in LEARNED]
    rows = [_cells(grid, run, config, images) for run in pooled]
    # the first patch of each run's frame
    starts = [encoded_index[run.frame] * grid[0] * grid[1] for run in pooled]
    sizes = np.concatenate([_NOTHING, *(sizes for _, sizes in rows)])
    tokens = [run.n for run in runs]
    # every row that shows no learned vector shows the next pooled token
    feature = _repeated([_learned(run.kind) for run in runs], tokens)
    # pooled tokens are numbered in reading order, behind the learned vectors
    feature[feature < 0] = len(LEARNED) + np.arange(len(sizes))
    return TokenPatches(
        feature=feature,
        patch=np.concatenate(
            [_NOTHING, *(cells + at for (cells, _), at in zip(rows, starts, strict=True))]
        ),
        segment=np.repeat(np.arange(len(sizes)), sizes),
        sizes=sizes,
        frame=_repeated([encoded_index.get(run.frame, -1) for run in runs], tokens),
        kind=_repeated([POOLED.index(run.kind) for run in pooled], [run.n for run in pooled]),
    )


_NOTHING = np.zeros(0, np.int64)


def _learned(kind: str) -> int:
    return LEARNED.index(kind) if kind in LEARNED else -1


def _repeated(numbers: list[int], times: list[int]) -> NDArray[np.int64]:
    return np.repeat(np.array(numbers, np.int64), times)


def _cells(
    grid: tuple[int, int], token_run: TokenRun, config: LayoutConfig, images: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The patches behind a row of pooled tokens, and how many each token pools."""
    patches, sizes = _cells_of(grid, token_run.kind, token_run.row, config, images)
    # the plan counts a row's tokens without patches: both counts must agree
    if len(sizes) != token_run.n:
        raise ValueError(
            f"a {token_run.kind} row of {token_run.n} tokens over {len(sizes)} pooled cells"
        )
    return patches, sizes


@lru_cache(maxsize=4096)
def _cells_of(
    grid: tuple[int, int], kind: str, row: int, config: LayoutConfig, images: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Kept, as clips of other times have the same rows."""
    # pooling windows of one row of tokens, by patch number within the frame
    cells = pool_cells(grid, kind, row, config, images)
    return np.concatenate(cells), np.array([len(cell) for cell in cells], np.int64)
