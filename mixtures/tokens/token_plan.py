"""The token plan of a clip: how many visual tokens it takes, and where; counted here only.

Slow and fast blocks are arranged as GSF or ISF of SlowFast-LLaVA-1.5 (arXiv 2503.18943), or as in
SlowFast-LLaVA (arXiv 2407.15841).
Grids are in patches (rows, columns). A recipe's view of a clip picks frames and a size
(`mixtures.tokens.frame_view`); `plan_frames` lists the runs of a clip in order; `pool_cells`
says which patches a token averages. Everything is integer arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixtures.tokens.frame_selection import spread
from mixtures.tokens.frame_view import ClipView
from mixtures.tokens.layout_types import (
    END,
    FAST,
    FAST_BEGIN,
    FRAME,
    IMAGE,
    MEMORY,
    NEWLINE,
    POOLED,
    SEPARATOR,
    SLOW,
    SLOW_BEGIN,
    START,
    TIME,
    LayoutConfig,
    TokenPlan,
    TokenRun,
)

FAST_STAMP_EVERY = 8
"""Frames of the fast block, or of queries, from one timestamp to the next."""


def image_stride(grid: tuple[int, int], cfg: LayoutConfig, images: int) -> int:
    """2 where an image outgrows its share of the token budget even at the area floor, else 1."""
    return 2 if grid[0] * grid[1] * images > cfg.image_token_budget else 1


def slow_indices(frames: int, cfg: LayoutConfig) -> list[int]:
    """Which frames of the view the slow path shows; all of them where there are too few.

    SlowFast-LLaVA (`arrangement: v1`) always shows so many: of a short video some more than once.
    """
    if cfg.arrangement == "v1":
        return [i * frames // cfg.slow_frames for i in range(cfg.slow_frames)]
    return spread(frames, cfg.slow_frames)


def tenths_of(numerator: Any, denominator: Any) -> Any:
    """What a timestamp shows of seconds (integers, or arrays): tenths, halves rounded up."""
    return (20 * numerator + denominator) // (2 * denominator)


def time_text(seconds: Fraction | float) -> str:
    """A timestamp as text: `12.5s` under an hour, `h:mm:ss` from there on."""
    # an exact fraction, so that no machine rounds a time otherwise
    tenths = int(tenths_of(*Fraction(seconds).as_integer_ratio()))
    if tenths < 36_000:
        return f"{tenths // 10}.{tenths % 10}s"
    minutes, rest = divmod(tenths // 10, 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def plan_frames(
    grids: Sequence[tuple[int, int]],
    seconds: Sequence[Fraction | float],
    kind: str,
    cfg: LayoutConfig,
    count_text: Callable[[str], int],
    images: int = 1,
) -> TokenPlan:
    """The runs of one clip in order; `grids` and `seconds` have one entry per frame of the view.

    A video with fewer than `slow_frames` frames shows them all in the slow block (v1 repeats some:
    `slow_indices`); the fast block
    always shows all. ValueError for a video without frames.
    """
    if cfg.pathways == "none":
        return TokenPlan()
    if kind == "image":
        rows = _rows(IMAGE, 0, grids[0], cfg, images)
        return TokenPlan([TokenRun(kind=START), *rows, TokenRun(kind=END)])
    if not grids:
        raise ValueError("a video of 0 frames, at least 1 is needed")
    shown = _Shown(grids, seconds, cfg, count_text, images)
    # how slow and fast frames follow each other; the sentence and the two ends are alike for all
    body = {"gsf": _grouped, "isf": _interleaved, "v1": _bare, "queries": _queried}
    runs = [
        *_sentence(shown),
        TokenRun(kind=START),
        *body[cfg.arrangement](shown),
        TokenRun(kind=END),
    ]
    return TokenPlan(runs)


class _Shown(NamedTuple):
    """The arguments of `plan_frames` that every arrangement of a video takes."""

    grids: Sequence[tuple[int, int]]
    seconds: Sequence[Fraction | float]
    cfg: LayoutConfig
    count_text: Callable[[str], int]
    images: int

    def slow(self) -> list[int]:
        wanted = self.cfg.pathways in ("both", "slow")
        return slow_indices(len(self.grids), self.cfg) if wanted else []

    def fast(self) -> list[int]:
        if self.cfg.pathways not in ("both", "fast"):
            return []
        # SlowFast-LLaVA-1.5 shows every frame in the fast path; `complement` only the others
        left_out = set(self.slow()) if self.cfg.fast_frames == "complement" else set()
        return [i for i in range(len(self.grids)) if i not in left_out]

    def stamp(self, frame: int) -> list[TokenRun]:
        if self.cfg.timestamps != "per_frame_text":
            return []
        text = time_text(self.seconds[frame])
        return [TokenRun(kind=TIME, n=self.count_text(text), frame=frame, text=text)]

    def rows(self, kind: str, frame: int) -> list[TokenRun]:
        return _rows(kind, frame, self.grids[frame], self.cfg, self.images)


def _grouped(shown: _Shown) -> list[TokenRun]:
    runs = []
    if shown.cfg.pathways in ("both", "slow"):
        # slow block: few frames at much detail, each after its timestamp (arXiv 2503.18943)
        runs.append(TokenRun(kind=SLOW_BEGIN))
        for i in shown.slow():
            runs += [*shown.stamp(i), *shown.rows(SLOW, i), TokenRun(kind=FRAME, frame=i)]
    if shown.cfg.pathways == "both":
        # a learned token between the two blocks
        runs.append(TokenRun(kind=SEPARATOR))
    if shown.cfg.pathways in ("both", "fast"):
        # fast block: all frames in few tokens, a timestamp before every eighth
        runs.append(TokenRun(kind=FAST_BEGIN))
        for i in shown.fast():
            runs += shown.stamp(i) if i % FAST_STAMP_EVERY == 0 else []
            runs += [*shown.rows(FAST, i), TokenRun(kind=FRAME, frame=i)]
    return runs


def _interleaved(shown: _Shown) -> list[TokenRun]:
    runs = []
    slow = set(shown.slow())
    fast = set(shown.fast())
    # in time: both paths of a frame beside each other
    for i in sorted(slow | fast):
        if i in slow:
            runs += [*shown.stamp(i), *shown.rows(SLOW, i), TokenRun(kind=FRAME, frame=i)]
        if i in fast:
            runs += [*shown.rows(FAST, i), TokenRun(kind=SEPARATOR, frame=i)]
    return runs


def _bare(shown: _Shown) -> list[TokenRun]:
    # as SlowFast-LLaVA 1 does: no learned token and no timestamp (arXiv 2407.15841)
    slow = [run for i in shown.slow() for run in shown.rows(SLOW, i)]
    return slow + [run for i in shown.fast() for run in shown.rows(FAST, i)]


def _queried(shown: _Shown) -> list[TokenRun]:
    runs = []
    # so many tokens for every frame, by a resampler with learned queries
    for i in range(len(shown.grids)):
        runs += shown.stamp(i) if i % FAST_STAMP_EVERY == 0 else []
        runs += [*shown.rows(FAST, i), TokenRun(kind=FRAME, frame=i)]
    return runs


def _sentence(shown: _Shown) -> list[TokenRun]:
    if shown.cfg.timestamps != "sentence":
        return []
    # as LLaVA-Video's time instruction does: one sentence before the video
    times = [time_text(shown.seconds[i]) for i in shown.slow() or range(len(shown.grids))]
    text = f"A video of {len(shown.grids)} frames; seen at {', '.join(times)}.\n"
    return [TokenRun(kind=TIME, n=shown.count_text(text), text=text)]


def _rows(
    kind: str, frame: int, grid: tuple[int, int], cfg: LayoutConfig, images: int
) -> list[TokenRun]:
    rows, columns = pooled_grid(grid, kind, cfg, images)
    with_newline = {"none": (), "slow": (SLOW, IMAGE), "all": POOLED}[cfg.newlines]
    newlines = kind in with_newline and cfg.arrangement in ("gsf", "isf")
    # one run of tokens for every row that is left after pooling
    found = [TokenRun(kind, columns, frame, row) for row in range(rows)]
    if not newlines:
        return found
    return [run for row in found for run in (row, TokenRun(NEWLINE, 1, frame, row.row))]


def pooled_grid(
    grid: tuple[int, int], kind: str, cfg: LayoutConfig, images: int = 1
) -> tuple[int, int]:
    """Tokens of one frame after pooling: (rows, columns); `kind` is one of POOLED.

    ValueError where the grid does not divide by the stride.
    """
    if cfg.arrangement == "queries":
        return 1, cfg.queries
    # `fast_stride` may be the side of the tokens or that of the cells: both have been published
    if kind == FAST and cfg.fast_mode == "tokens":
        return cfg.fast_stride, cfg.fast_stride
    stride = {SLOW: cfg.slow_stride, FAST: cfg.fast_stride, IMAGE: image_stride(grid, cfg, images)}[
        kind
    ]
    # arrangement v1 pools slow frames across only
    down = 1 if (cfg.arrangement, kind) == ("v1", SLOW) else stride
    if grid[0] % down or grid[1] % stride:
        raise ValueError(f"a {grid} grid does not divide by the {kind} stride {stride}")
    return grid[0] // down, grid[1] // stride


def pool_cells(
    grid: tuple[int, int], kind: str, row: int, cfg: LayoutConfig, images: int = 1
) -> list[NDArray[np.int64]]:
    """For each token of a pooled row: the flat patch indices (row-major) that it pools.

    Cells are those of adaptive average pooling; where the strides divide they do not overlap. A
    query has no cell of its own: it looks at the whole frame.
    """
    if cfg.arrangement == "queries":
        return [np.zeros(0, np.int64)] * cfg.queries
    rows, columns = pooled_grid(grid, kind, cfg, images)
    # cell i of n over a side of s patches is floor(i s / n) to ceil((i + 1) s / n), as in
    # torch's AdaptiveAvgPool2d
    down = np.arange(row * grid[0] // rows, -(-(row + 1) * grid[0] // rows))
    cells = []
    for column in range(columns):
        across = np.arange(column * grid[1] // columns, -(-(column + 1) * grid[1] // columns))
        cells.append((down[:, None] * grid[1] + across).ravel())
    return cells


def plan_clip(
    clip_view: ClipView,
    kind: str,
    cfg: LayoutConfig,
    count_text: Callable[[str], int],
    images: int = 1,
) -> TokenPlan:
    """`plan_frames` of a clip as it is looked at; the memory comes first."""
    shown = len(clip_view.frames) - clip_view.memory
    beyond = clip_view.memory
    seconds = clip_view.seconds[:shown]
    runs = plan_frames([clip_view.grid] * shown, seconds, kind, cfg, count_text, images)
    # the frames beyond the view's cap stand for themselves in one run right after the start
    memory = [TokenRun(kind=MEMORY, n=cfg.memory_tokens, frame=shown, frames=beyond)] * (beyond > 0)
    start = [run.kind for run in runs].index(START) + 1 if beyond else 0
    return TokenPlan([*runs[:start], *memory, *runs[start:]])


@lru_cache(maxsize=256)
def frames_used(layout: TokenPlan) -> tuple[int, ...]:
    """Frames of the view that the vision tower has to see, ascending."""
    kinds = (*POOLED, MEMORY)
    # frames that no run names need not pass the tower
    seen = (range(s.frame, s.frame + s.frames) for s in layout if s.kind in kinds)
    return tuple(sorted({frame for frames in seen for frame in frames}))
