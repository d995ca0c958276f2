"""Options of views and layouts, and token plans: the runs of tokens that a clip becomes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, NamedTuple

from mixtures.keys import Integer, key, one_of
from mixtures.tokens.placement import FITS

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
SMALLEST_AREA = VIDEO_MULTIPLE**2
LARGEST_AREA = 4096**2
"""Areas in pixels that a person may ask for."""

ARRANGEMENTS = ("gsf", "isf", "v1", "queries")
TIMESTAMPS = ("none", "sentence", "per_frame_text", "learned")
"""Values of those options of a LayoutConfig."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutConfig:
    """The token rule of a recipe; docs/model.md follows one video through it."""

    patch: Annotated[Integer, one_of(16), key("Side of a patch, in pixels.", "16")] = 16
    slow_frames: Annotated[
        Integer, key("Frames of the slow path at most.", "8", least=1, most=65_536)
    ] = 32
    slow_stride: Annotated[
        Integer,
        one_of(1, 2, 4),
        key("The slow path pools squares of so many patches a side.", "1"),
    ] = 2
    fast_mode: Annotated[
        str,
        one_of("stride", "tokens"),
        key(
            "What `fast_stride` is the side of: with `stride` of the squares of patches that the "
            "fast path pools, with `tokens` of the square of tokens that a frame becomes.",
            "tokens",
        ),
    ] = "stride"
    fast_stride: Annotated[
        Integer, one_of(1, 2, 4), key("The side that `fast_mode` speaks of.", "2")
    ] = 4
    timestamps: Annotated[
        str,
        one_of(*TIMESTAMPS),
        key(
            "How the model is told the times of frames: not, in a sentence before them, in a few "
            "tokens of text before each, or by learned vectors.",
            "none",
        ),
    ] = "per_frame_text"
    pathways: Annotated[
        str,
        one_of("both", "slow", "fast", "none"),
        key("Which blocks a video has; with `none` there is no visual token.", "slow"),
    ] = "both"
    image_token_budget: Annotated[
        Integer, key("Tokens of an image at most.", "4096", least=1, most=1 << 20)
    ] = 12_288
    arrangement: Annotated[
        str,
        one_of(*ARRANGEMENTS),
        key(
            "`gsf`: a slow block, then a fast block; `isf`: slow and fast frames interleaved in "
            "time; `v1`: both blocks bare, slow rows at full height; `queries`: so many tokens for "
            "every frame or image, whatever its size.",
            "isf",
        ),
    ] = "gsf"
    fast_frames: Annotated[
        str,
        one_of("all", "complement"),
        key("Frames of the fast path: all, or those that are not slow.", "complement"),
    ] = "all"
    newlines: Annotated[
        str,
        one_of("slow", "all", "none"),
        key("The frames whose rows end with a token.", "none"),
    ] = "slow"
    queries: Annotated[
        Integer,
        key("Tokens of a frame or image in the arrangement `queries`.", "9", least=1, most=4096),
    ] = 16
    memory_tokens: Annotated[
        Integer,
        key(
            "Tokens that stand for the frames beyond the view's `cap`, all together.", "64",
            least=0, most=65_536,
        ),
    ] = 0  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a recipe shows of stored videos."""

    fps: Annotated[Integer, key("Frames shown of every second.", "2", least=1, most=60)] = 1
    cap: Annotated[Integer, key("Frames shown at most.", "64", least=1, most=65_536)] = 128
    area: Annotated[
        Integer, key("Pixels of a frame at most.", "65536", least=SMALLEST_AREA, most=LARGEST_AREA)
    ] = 384 * 384
    min_area: Annotated[
        Integer,
        key(
            "Smaller pictures are enlarged to so many pixels (default: 288 x 288, or `area`).",
            "4096", least=SMALLEST_AREA, most=LARGEST_AREA,
        ),
    ] = 288 * 288  # fmt: skip
    fit: Annotated[
        str,
        one_of(*FITS),
        key("How pictures meet the grid of patches (docs/model.md).", "floor"),
    ] = "box"
    selection: Annotated[
        str,
        one_of("uniform", "uniform_last", "scene", "difference", "query"),
        key("Which frames are shown where there are more than `cap` (docs/model.md).", "scene"),
    ] = "uniform"
    memory: Annotated[
        Integer,
        key(
            "Of the frames beyond `cap` so many at most go to the memory, if the layout has one.",
            "512", least=1, most=65_536,
        ),
    ] = 1024  # fmt: skip


# a tuple, because a plan makes one for every row of every frame
class TokenRun(NamedTuple):
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


class TokenPlan(tuple[TokenRun, ...]):
    """The runs of one clip in order. Its hash is computed once, so that caches find it at once."""

    @cached_property
    def _hash(self) -> int:
        return super().__hash__()

    def __hash__(self) -> int:
        return self._hash
