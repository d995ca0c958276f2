"""How many visual tokens a clip takes, and where: the only place that counts them.

Sizes are in pixels, grids in patches (rows, columns). A recipe's view of a clip picks frames
and a size; `visual_layout` lists the slots of a clip in order; `pool_cells` says which patches a
token averages. Everything is integer arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from shards.sample import Clip

LAYOUT_VERSION = "slowfast-layout/1"

START, END = "start", "end"
SLOW, FAST, IMAGE = "slow", "fast", "image"
NEWLINE, FRAME = "newline", "frame"
SLOW_BEGIN, SEPARATOR, FAST_BEGIN = "slow_begin", "separator", "fast_begin"
TIME = "time"
POOLED = (SLOW, FAST, IMAGE)
"""Kinds whose tokens are averaged patches; START and END are special tokens, TIME is text."""
LEARNED = (NEWLINE, FRAME, SLOW_BEGIN, SEPARATOR, FAST_BEGIN)
"""Kinds whose one token is a learned vector of the projector."""

VIDEO_MULTIPLE, IMAGE_MULTIPLE = 64, 32
IMAGE_AREA, IMAGE_AREA_FLOOR = 1536 * 1536, 256 * 256
FAST_STAMP_EVERY = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutConfig:
    """The token rule of a recipe (model spec 8.4: grouped slow and fast blocks).

    The slow path averages `slow_stride`² patches of up to `slow_frames` frames. The fast path shows
    every frame: `fast_mode` "stride" averages `fast_stride`² patches, "tokens" gives `fast_stride`²
    tokens per frame. `pathways` chooses the blocks: both, slow, fast, or none (no visual token).
    """

    patch: int = 16
    slow_frames: int = 32
    slow_stride: int = 2
    fast_mode: str = "stride"
    fast_stride: int = 4
    timestamps: str = "none"
    pathways: str = "both"
    image_token_budget: int = 12_288


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a recipe shows of stored videos: frames per second, at most `cap`, area in pixels."""

    fps: int = 1
    cap: int = 128
    area: int = 384 * 384
    selection: str = "uniform"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """`n` adjacent tokens of one kind; frame and row are -1 where they mean nothing.

    `frame` counts the frames of the view, not the stored ones; `text` is set for TIME only.
    """

    kind: str
    n: int = 1
    frame: int = -1
    row: int = -1
    text: str = ""


def fit_size(width: int, height: int, *, area: int, multiple: int) -> tuple[int, int]:
    """(width, height) scaled down to `area` if larger, each side floored to the multiple.

    Never enlarges, but for a side that would floor to 0: it becomes one multiple.
    """
    if width * height > area:
        width, height = isqrt(width * area // height), isqrt(height * area // width)
    return max(width // multiple, 1) * multiple, max(height // multiple, 1) * multiple


def view_frames(clip: Clip, view: View) -> list[int]:
    """Which stored frames the view shows: nearest to each k / fps, then at most `cap`, spread."""
    if clip.kind == "image":
        return [0]
    numerator, denominator = clip.time_base
    times = np.array(clip.pts, np.int64) * (numerator * view.fps)  # in 1 / (fps * denominator) s
    steps = np.arange((2 * int(times[-1]) + denominator - 1) // (2 * denominator) + 1)
    targets = steps.astype(np.int64) * denominator
    after = np.searchsorted(times, targets).clip(0, len(times) - 1)
    before = (after - 1).clip(0)
    nearest = np.where(abs(targets - times[before]) <= abs(times[after] - targets), before, after)
    shown = sorted(set(nearest.tolist()))
    return [shown[i] for i in spread(len(shown), view.cap)]


def spread(count: int, most: int) -> list[int]:
    """At most `most` of `count` indices, evenly: i * count // most."""
    kept = min(count, most)
    return [i * count // kept for i in range(kept)]


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


def time_text(seconds: Fraction | float) -> str:
    """A timestamp as text: `12.5s` under an hour, `h:mm:ss` from there on."""
    tenths = (Fraction(seconds) * 20 + 1) // 2
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
) -> list[Slot]:
    """The slots of one clip in order; `grids` and `seconds` have one entry per frame of the view.

    A video with fewer than `slow_frames` frames shows them all in the slow block; the fast block
    always shows all. Frames have one newline per row in the slow block and none in the fast one.
    """
    if cfg.pathways == "none":
        return []
    if kind == "image":
        rows = _rows(IMAGE, 0, grids[0], cfg, images, newlines=True)
        return [Slot(kind=START), *rows, Slot(kind=END)]
    slots = [Slot(kind=START)]
    if cfg.pathways in ("both", "slow"):
        slots.append(Slot(kind=SLOW_BEGIN))
        for i in slow_indices(len(grids), cfg):
            slots += _stamp(seconds[i], cfg, count_text)
            slots += _rows(SLOW, i, grids[i], cfg, images, newlines=True)
            slots.append(Slot(kind=FRAME, frame=i))
    if cfg.pathways == "both":
        slots.append(Slot(kind=SEPARATOR))
    if cfg.pathways in ("both", "fast"):
        slots.append(Slot(kind=FAST_BEGIN))
        for i, grid in enumerate(grids):
            slots += _stamp(seconds[i], cfg, count_text) if i % FAST_STAMP_EVERY == 0 else []
            slots += _rows(FAST, i, grid, cfg, images, newlines=False)
            slots.append(Slot(kind=FRAME, frame=i))
    return [*slots, Slot(kind=END)]


def _stamp(
    seconds: Fraction | float, cfg: LayoutConfig, count_text: Callable[[str], int]
) -> list[Slot]:
    if cfg.timestamps == "none":
        return []
    text = time_text(seconds)
    return [Slot(kind=TIME, n=count_text(text), text=text)]


def _rows(
    kind: str, frame: int, grid: tuple[int, int], cfg: LayoutConfig, images: int, *, newlines: bool
) -> list[Slot]:
    rows, columns = pooled_grid(grid, kind, cfg, images)
    slots = []
    for row in range(rows):
        slots.append(Slot(kind=kind, n=columns, frame=frame, row=row))
        if newlines:
            slots.append(Slot(kind=NEWLINE, frame=frame, row=row))
    return slots


def pooled_grid(
    grid: tuple[int, int], kind: str, cfg: LayoutConfig, images: int = 1
) -> tuple[int, int]:
    """Tokens of one frame after pooling: (rows, columns); `kind` is one of POOLED."""
    if kind == FAST and cfg.fast_mode == "tokens":
        return cfg.fast_stride, cfg.fast_stride
    stride = {SLOW: cfg.slow_stride, FAST: cfg.fast_stride, IMAGE: image_stride(grid, cfg, images)}[
        kind
    ]
    if grid[0] % stride or grid[1] % stride:
        raise AssertionError(f"a {grid} grid does not divide by the {kind} stride {stride}")
    return grid[0] // stride, grid[1] // stride


def pool_cells(
    grid: tuple[int, int], kind: str, row: int, cfg: LayoutConfig, images: int = 1
) -> list[NDArray[np.int64]]:
    """For each token of a pooled row: the flat patch indices (row-major) that it averages.

    Cells are those of adaptive average pooling; where the strides divide they do not overlap.
    """
    rows, columns = pooled_grid(grid, kind, cfg, images)
    down = np.arange(row * grid[0] // rows, -(-(row + 1) * grid[0] // rows))
    cells = []
    for column in range(columns):
        across = np.arange(column * grid[1] // columns, -(-(column + 1) * grid[1] // columns))
        cells.append((down[:, None] * grid[1] + across).ravel())
    return cells


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One clip as a recipe shows it: stored frame indices, their times, size and grid."""

    frames: tuple[int, ...]
    seconds: tuple[Fraction, ...]
    width: int
    height: int
    grid: tuple[int, int]


def look_at(clip: Clip, view: View, cfg: LayoutConfig, images: int = 1) -> Look:
    """The view of one stored clip, before any token is counted."""
    frames = view_frames(clip, view)
    width, height = view_size(clip, view, cfg, images)
    return Look(
        frames=tuple(frames),
        seconds=tuple(Fraction(clip.pts[i] * clip.time_base[0], clip.time_base[1]) for i in frames),
        width=width,
        height=height,
        grid=grid_of(width, height, cfg.patch),
    )


def layout_of(
    look: Look, kind: str, cfg: LayoutConfig, count_text: Callable[[str], int], images: int = 1
) -> list[Slot]:
    """`visual_layout` of a clip as it is looked at."""
    return visual_layout(
        [look.grid] * len(look.frames), look.seconds, kind, cfg, count_text, images
    )


def frames_used(slots: Sequence[Slot]) -> list[int]:
    """Frames of the view that the vision tower has to see, ascending."""
    return sorted({slot.frame for slot in slots if slot.kind in POOLED})
