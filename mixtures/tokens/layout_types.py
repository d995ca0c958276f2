"""What views and layouts are: their options, a layout's slots, and the kinds of token in it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

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

VIDEO_MULTIPLE = 64
"""Sides of a video's frames are multiples of it: 16 pixels of a patch, at the largest stride 4."""

ARRANGEMENTS = ("gsf", "isf", "v1", "queries")
TIMESTAMPS = ("none", "sentence", "per_frame_text", "learned")
"""Values of those options of a LayoutConfig."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutConfig:
    """The token rule of a recipe; docs/model.md follows one video through it.

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

    A smaller picture is enlarged to `min_area`; `fit` (mixtures.tokens.placement.FITS) says how
    videos and images meet the grid of patches. `selection` (mixtures.tokens.frame_selection)
    chooses where there are more; at most `memory` of the others go to the memory, where the layout
    has one.
    """

    fps: int = 1
    cap: int = 128
    area: int = 384 * 384
    min_area: int = 288 * 288
    fit: str = "box"
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
