"""How many visual tokens a clip takes, and where: the only place that counts them.

Sizes are in pixels, grids in patches (rows, columns). A recipe's view of a clip picks frames
and a size; `visual_layout` lists the slots of a clip in order; `pool_cells` says which patches a
token averages. Everything is integer arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from math import isqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixtures.selection import SCORED, at_rate, select, spread
from shards.sample import Clip

LAYOUT_VERSION = "slowfast-layout/1"

START, END = "start", "end"
SLOW, FAST, IMAGE = "slow", "fast", "image"
NEWLINE, FRAME, TIME, MEMORY = "newline", "frame", "time", "memory"
SLOW_BEGIN, SEPARATOR, FAST_BEGIN = "slow_begin", "separator", "fast_begin"
POOLED = (SLOW, FAST, IMAGE)
"""Kinds whose tokens are pooled patches; START and END are special tokens, TIME is text, MEMORY
stands for the frames beyond the cap."""
LEARNED = (NEWLINE, FRAME, SLOW_BEGIN, SEPARATOR, FAST_BEGIN)
"""Kinds whose one token is a learned vector of the projector. In an interleaved video FRAME ends a
slow frame and SEPARATOR a fast one."""

VIDEO_MULTIPLE, IMAGE_MULTIPLE = 64, 32
IMAGE_AREA, IMAGE_AREA_FLOOR = 1536 * 1536, 256 * 256
FAST_STAMP_EVERY = 8

ARRANGEMENTS = ("gsf", "isf", "v1", "queries")
TIMESTAMPS = ("none", "sentence", "per_frame_text", "learned")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutConfig:
    """The token rule of a recipe (model spec 8.3-8.5).

    The slow path pools `slow_stride`² patches of up to `slow_frames` frames. The fast path shows
    every frame (`fast_frames` "all"), or those that are not slow ("complement"): `fast_mode`
    "stride" pools `fast_stride`² patches, "tokens" gives `fast_stride`² tokens per frame.
    `pathways` chooses the blocks: both, slow, fast, or none (no visual token).

    `arrangement`: "gsf" a slow block, then a fast block; "isf" slow and fast frames interleaved in
    time; "v1" both blocks bare, slow rows at full height; "queries" `queries` tokens for every
    frame or image, whatever its size. `newlines` end the rows of slow frames, of "all", of "none".
    `memory_tokens` stand for the frames beyond the view's cap, all together.
    """

    patch: int = 16
    slow_frames: int = 32
    slow_stride: int = 2
    fast_mode: str = "stride"
    fast_stride: int = 4
    timestamps: str = "per_frame_text"
    pathways: str = "both"
    image_token_budget: int = 12_288
    arrangement: str = "gsf"
    fast_frames: str = "all"
    newlines: str = "slow"
    queries: int = 16
    memory_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a recipe shows of stored videos: frames per second, at most `cap`, area in pixels.

    `selection` (mixtures.selection) chooses where there are more; at most `memory` of the others go
    to the memory, where the layout has one.
    """

    fps: int = 1
    cap: int = 128
    area: int = 384 * 384
    selection: str = "uniform"
    memory: int = 1024


class Slot(NamedTuple):
    """`n` adjacent tokens of one kind; frame and row are -1 where they mean nothing.

    `frame` counts the frames of the view, not the stored ones; MEMORY stands for `frames` of them
    from `frame` on. `text` is set for TIME only.
    """

    kind: str
    n: int = 1
    frame: int = -1
    row: int = -1
    text: str = ""
    frames: int = 1


class Layout(tuple[Slot, ...]):
    """The slots of one clip in order. Its hash is computed once, so that caches find it at once."""

    @cached_property
    def _hash(self) -> int:
        return super().__hash__()

    def __hash__(self) -> int:
        return self._hash


def fit_size(width: int, height: int, *, area: int, multiple: int) -> tuple[int, int]:
    """(width, height) scaled down to `area` if larger, each side floored to the multiple.

    Never enlarges, but for a side that would floor to 0: it becomes one multiple.
    """
    if width * height > area:
        width, height = isqrt(width * area // height), isqrt(height * area // width)
    return max(width // multiple, 1) * multiple, max(height // multiple, 1) * multiple


def view_frames(clip: Clip, view: View, scores: Sequence[int] = ()) -> list[int]:
    """Which stored frames the view shows: those of its rate, then at most `cap` by `selection`.

    `scores` are per stored frame, for "query"; "scene" and "difference" read the clip's own.
    """
    if clip.kind == "image":
        return [0]
    shown = at_rate(clip, view.fps)
    per_frame: Sequence[int] = ()
    if view.selection in SCORED and len(shown) > view.cap:
        own = scores if view.selection == "query" else clip.differences
        if len(own) != len(clip.pts):
            raise ValueError(
                f"clip {clip.clip_id}: selection {view.selection} needs {len(clip.pts)} scores, "
                f"one per stored frame, has {len(own)}"
            )
        first = [0, *(frame + 1 for frame in shown[:-1])]
        per_frame = [max(own[a : b + 1]) for a, b in zip(first, shown, strict=True)]
    return [shown[i] for i in select(len(shown), view.cap, view.selection, per_frame)]


def view_size(clip: Clip, view: View, cfg: LayoutConfig, images: int = 1) -> tuple[int, int]:
    """(width, height) of the clip's frames as the model sees them.

    `images` is the number of images in the sample: they share `image_token_budget`.
    """
    if clip.kind == "image":
        share = cfg.image_token_budget * cfg.patch**2 // max(images, 1)
        area = min(IMAGE_AREA, max(IMAGE_AREA_FLOOR, share))
        return fit_size(clip.width, clip.height, area=area, multiple=IMAGE_MULTIPLE)
    return fit_size(clip.width, clip.height, area=view.area, multiple=VIDEO_MULTIPLE)


def grid_of(width: int, height: int, patch: int = 16) -> tuple[int, int]:
    """Patches of a frame: (rows, columns)."""
    return height // patch, width // patch


def image_stride(grid: tuple[int, int], cfg: LayoutConfig, images: int) -> int:
    """2 where an image outgrows its share of the token budget even at the area floor, else 1."""
    return 2 if grid[0] * grid[1] * images > cfg.image_token_budget else 1


def slow_indices(frames: int, cfg: LayoutConfig) -> list[int]:
    """Which frames of the view the slow path shows; all of them where there are too few."""
    return spread(frames, cfg.slow_frames)


def tenths_of(numerator: Any, denominator: Any) -> Any:
    """What a timestamp shows of seconds (integers, or arrays): tenths, halves rounded up."""
    return (20 * numerator + denominator) // (2 * denominator)


def time_text(seconds: Fraction | float) -> str:
    """A timestamp as text: `12.5s` under an hour, `h:mm:ss` from there on."""
    tenths = int(tenths_of(*Fraction(seconds).as_integer_ratio()))
    if tenths < 36_000:
        return f"{tenths // 10}.{tenths % 10}s"
    minutes, rest = divmod(tenths // 10, 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def visual_layout(
    grids: Sequence[tuple[int, int]],
    seconds: Sequence[Fraction | float],
    kind: str,
    cfg: LayoutConfig,
    count_text: Callable[[str], int],
    images: int = 1,
) -> Layout:
    """The slots of one clip in order; `grids` and `seconds` have one entry per frame of the view.

    A video with fewer than `slow_frames` frames shows them all in the slow block; the fast block
    always shows all. ValueError for a video without frames.
    """
    if cfg.pathways == "none":
        return Layout()
    if kind == "image":
        rows = _rows(IMAGE, 0, grids[0], cfg, images)
        return Layout([Slot(kind=START), *rows, Slot(kind=END)])
    if not grids:
        raise ValueError("a video of 0 frames, at least 1 is needed")
    shown = _Shown(grids, seconds, cfg, count_text, images)
    body = {"gsf": _grouped, "isf": _interleaved, "v1": _bare, "queries": _queried}
    slots = [*_sentence(shown), Slot(kind=START), *body[cfg.arrangement](shown), Slot(kind=END)]
    return Layout(slots)


class _Shown(NamedTuple):
    """The arguments of `visual_layout` that every arrangement of a video takes."""

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
        left_out = set(self.slow()) if self.cfg.fast_frames == "complement" else set()
        return [i for i in range(len(self.grids)) if i not in left_out]

    def stamp(self, frame: int) -> list[Slot]:
        if self.cfg.timestamps != "per_frame_text":
            return []
        text = time_text(self.seconds[frame])
        return [Slot(kind=TIME, n=self.count_text(text), frame=frame, text=text)]

    def rows(self, kind: str, frame: int) -> list[Slot]:
        return _rows(kind, frame, self.grids[frame], self.cfg, self.images)


def _grouped(shown: _Shown) -> list[Slot]:
    slots = []
    if shown.cfg.pathways in ("both", "slow"):
        slots.append(Slot(kind=SLOW_BEGIN))
        for i in shown.slow():
            slots += [*shown.stamp(i), *shown.rows(SLOW, i), Slot(kind=FRAME, frame=i)]
    if shown.cfg.pathways == "both":
        slots.append(Slot(kind=SEPARATOR))
    if shown.cfg.pathways in ("both", "fast"):
        slots.append(Slot(kind=FAST_BEGIN))
        for i in shown.fast():
            slots += shown.stamp(i) if i % FAST_STAMP_EVERY == 0 else []
            slots += [*shown.rows(FAST, i), Slot(kind=FRAME, frame=i)]
    return slots


def _interleaved(shown: _Shown) -> list[Slot]:
    slots, slow, fast = [], set(shown.slow()), set(shown.fast())
    for i in sorted(slow | fast):
        if i in slow:
            slots += [*shown.stamp(i), *shown.rows(SLOW, i), Slot(kind=FRAME, frame=i)]
        if i in fast:
            slots += [*shown.rows(FAST, i), Slot(kind=SEPARATOR, frame=i)]
    return slots


def _bare(shown: _Shown) -> list[Slot]:
    slow = [slot for i in shown.slow() for slot in shown.rows(SLOW, i)]
    return slow + [slot for i in shown.fast() for slot in shown.rows(FAST, i)]


def _queried(shown: _Shown) -> list[Slot]:
    slots = []
    for i in range(len(shown.grids)):
        slots += shown.stamp(i) if i % FAST_STAMP_EVERY == 0 else []
        slots += [*shown.rows(FAST, i), Slot(kind=FRAME, frame=i)]
    return slots


def _sentence(shown: _Shown) -> list[Slot]:
    if shown.cfg.timestamps != "sentence":
        return []
    times = [time_text(shown.seconds[i]) for i in shown.slow() or range(len(shown.grids))]
    text = f"A video of {len(shown.grids)} frames; seen at {', '.join(times)}.\n"
    return [Slot(kind=TIME, n=shown.count_text(text), text=text)]


def _rows(
    kind: str, frame: int, grid: tuple[int, int], cfg: LayoutConfig, images: int
) -> list[Slot]:
    rows, columns = pooled_grid(grid, kind, cfg, images)
    with_newline = {"none": (), "slow": (SLOW, IMAGE), "all": POOLED}[cfg.newlines]
    newlines = kind in with_newline and cfg.arrangement in ("gsf", "isf")
    found = [Slot(kind, columns, frame, row) for row in range(rows)]
    if not newlines:
        return found
    return [slot for row in found for slot in (row, Slot(NEWLINE, 1, frame, row.row))]


def pooled_grid(
    grid: tuple[int, int], kind: str, cfg: LayoutConfig, images: int = 1
) -> tuple[int, int]:
    """Tokens of one frame after pooling: (rows, columns); `kind` is one of POOLED.

    ValueError where the grid does not divide by the stride.
    """
    if cfg.arrangement == "queries":
        return 1, cfg.queries
    if kind == FAST and cfg.fast_mode == "tokens":
        return cfg.fast_stride, cfg.fast_stride
    stride = {SLOW: cfg.slow_stride, FAST: cfg.fast_stride, IMAGE: image_stride(grid, cfg, images)}[
        kind
    ]
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
    down = np.arange(row * grid[0] // rows, -(-(row + 1) * grid[0] // rows))
    cells = []
    for column in range(columns):
        across = np.arange(column * grid[1] // columns, -(-(column + 1) * grid[1] // columns))
        cells.append((down[:, None] * grid[1] + across).ravel())
    return cells


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One clip as a recipe shows it: stored frame indices, their `pts` in units of `time_base`.

    The last `memory` of the frames are those beyond the cap, for the memory alone.
    """

    frames: tuple[int, ...]
    pts: tuple[int, ...]
    time_base: tuple[int, int]
    width: int
    height: int
    grid: tuple[int, int]
    memory: int = 0

    @property
    def seconds(self) -> tuple[Fraction, ...]:
        numerator, denominator = self.time_base
        return tuple(Fraction(ticks * numerator, denominator) for ticks in self.pts)


def look_at(
    clip: Clip, view: View, cfg: LayoutConfig, images: int = 1, scores: Sequence[int] = ()
) -> Look:
    """The view of one stored clip, before any token is counted; `scores` as in `view_frames`."""
    frames = view_frames(clip, view, scores)
    cap = len(frames)
    if clip.kind == "video" and cfg.memory_tokens and cfg.pathways != "none":
        others = sorted(set(at_rate(clip, view.fps)) - set(frames))
        frames += [others[i] for i in spread(len(others), view.memory)]
    width, height = view_size(clip, view, cfg, images)
    return Look(
        frames=tuple(frames),
        pts=tuple([clip.pts[i] for i in frames]),
        time_base=clip.time_base,
        width=width,
        height=height,
        grid=grid_of(width, height, cfg.patch),
        memory=len(frames) - cap,
    )


def layout_of(
    look: Look, kind: str, cfg: LayoutConfig, count_text: Callable[[str], int], images: int = 1
) -> Layout:
    """`visual_layout` of a clip as it is looked at; the memory comes first."""
    shown, beyond = len(look.frames) - look.memory, look.memory
    seconds = look.seconds[:shown]
    slots = visual_layout([look.grid] * shown, seconds, kind, cfg, count_text, images)
    memory = [Slot(kind=MEMORY, n=cfg.memory_tokens, frame=shown, frames=beyond)] * (beyond > 0)
    start = [slot.kind for slot in slots].index(START) + 1 if beyond else 0
    return Layout([*slots[:start], *memory, *slots[start:]])


@lru_cache(maxsize=256)
def frames_used(layout: Layout) -> tuple[int, ...]:
    """Frames of the view that the vision tower has to see, ascending."""
    kinds = (*POOLED, MEMORY)
    seen = (range(s.frame, s.frame + s.frames) for s in layout if s.kind in kinds)
    return tuple(sorted({frame for frames in seen for frame in frames}))
