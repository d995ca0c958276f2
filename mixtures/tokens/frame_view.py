"""Clip views: which stored frames of a clip a recipe shows, and at which size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from mixtures.tokens.frame_selection import SCORED, at_rate, select, spread
from mixtures.tokens.layout_types import VIDEO_MULTIPLE, LayoutConfig, View
from mixtures.tokens.placement import Placement, Size, grid_of, place
from shards.sample import Clip

IMAGE_AREA = 1536 * 1536
"""Pixels of an image at most."""
IMAGE_AREA_FLOOR = 256 * 256
"""Pixels that an image may have among however many."""
IMAGE_MULTIPLE = 32
"""Sides of an image are multiples of it: 16 pixels of a patch, at the largest stride 2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipView:
    """One clip as a recipe shows it: stored frame indices, their `pts` in units of `time_base`.

    `width` x `height` pixels are what the tower sees of each frame; `picture` is the size of the
    frame itself in the middle of them. The last `memory` of the frames are those beyond the cap,
    for the memory alone.
    """

    frames: tuple[int, ...]
    pts: tuple[int, ...]
    time_base: tuple[int, int]
    width: int
    height: int
    picture: Size
    grid: tuple[int, int]
    memory: int = 0

    @property
    def offset(self) -> Size:
        """Pixels left of the picture and above it."""
        return Placement(self.width, self.height, self.picture).offset

    @property
    def seconds(self) -> tuple[Fraction, ...]:
        """The presentation times in seconds, exact."""
        numerator, denominator = self.time_base
        return tuple(Fraction(ticks * numerator, denominator) for ticks in self.pts)


def view_clip(
    clip: Clip, view: View, cfg: LayoutConfig, images: int = 1, scores: Sequence[int] = ()
) -> ClipView:
    """The view of one stored clip, before any token is counted; `scores` as in `view_frames`."""
    frames = view_frames(clip, view, scores)
    cap = len(frames)
    if clip.kind == "video" and cfg.memory_tokens and cfg.pathways != "none":
        # frames of the rate that the cap left out, for the memory
        others = sorted(set(at_rate(clip, view.fps)) - set(frames))
        frames += [others[i] for i in spread(len(others), view.memory)]
    # where the picture stands on the grid that the tower sees
    shown = view_placement(clip.kind, (clip.width, clip.height), view, cfg, images)
    return ClipView(
        frames=tuple(frames),
        pts=tuple([clip.pts[i] for i in frames]),
        time_base=clip.time_base,
        width=shown.width,
        height=shown.height,
        picture=shown.picture,
        grid=grid_of(shown.width, shown.height, cfg.patch),
        memory=len(frames) - cap,
    )


def view_frames(clip: Clip, view: View, scores: Sequence[int] = ()) -> list[int]:
    """Which stored frames the view shows: those of its rate, then at most `cap` by `selection`.

    `scores` are per stored frame, for "query"; "scene" and "difference" read the clip's own.
    """
    if clip.kind == "image":
        return [0]
    # first the rate, then the cap
    shown = at_rate(clip, view.fps)
    per_frame: Sequence[int] = ()
    if view.selection in SCORED and len(shown) > view.cap:
        frame_scores = scores if view.selection == "query" else clip.differences
        if len(frame_scores) != len(clip.pts):
            raise ValueError(
                f"clip {clip.clip_id}: selection {view.selection} needs {len(clip.pts)} scores, "
                f"one per stored frame, has {len(frame_scores)}"
            )
        # what changed since the frame shown before: the most of all stored frames in between
        first = [0, *(frame + 1 for frame in shown[:-1])]
        per_frame = [max(frame_scores[a : b + 1]) for a, b in zip(first, shown, strict=True)]
    return [shown[i] for i in select(len(shown), view.cap, view.selection, per_frame)]


def view_placement(
    kind: str, stored: Size, view: View, cfg: LayoutConfig, images: int = 1
) -> Placement:
    """Where the frames of a clip of this kind and size stand on the grid that the model sees.

    `images` is the number of images in the sample: they share `image_token_budget`. An image is
    never enlarged.
    """
    if kind == "image":
        # an equal share of the budget in pixels, within an area that one image may have
        share = cfg.image_token_budget * cfg.patch**2 // max(images, 1)
        area = min(IMAGE_AREA, max(IMAGE_AREA_FLOOR, share))
        return place(*stored, area=area, cell=IMAGE_MULTIPLE, fit=view.fit)
    return place(*stored, area=view.area, min_area=view.min_area, cell=VIDEO_MULTIPLE, fit=view.fit)
