"""Timestamps of clips whose frames are selected by what a sample asks: tokens, sample by sample."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixtures.pool.columns import VIDEO, Clips, Samples, Timing
from mixtures.recipe.types import Recipe
from mixtures.tokens.frame_view import view_clip
from mixtures.tokens.layout_types import TIME, VIDEO_MULTIPLE, LayoutConfig
from mixtures.tokens.text import TextCodec
from mixtures.tokens.token_plan import plan_clip
from shards.key_index import FrameScores, clip_ids_of
from shards.sample import Clip


def has_stamps(layout: LayoutConfig) -> bool:
    """Whether times are written as text, whose tokens hang on the times."""
    return layout.timestamps in ("sentence", "per_frame_text")


def stamps_by_question(
    samples: Samples, clips: Clips, frame_scores: FrameScores, recipe: Recipe, codec: TextCodec
) -> NDArray[np.int64] | None:
    """Tokens of the timestamps of each clip of each sample, in the order of `samples.clips`; None
    where there are none."""
    if not has_stamps(recipe.layout):
        return None
    used = samples.clips
    stamps = np.zeros(len(used), np.int64)
    rows = frame_scores.rows(clip_ids_of(samples.key, np.diff(samples.ends)))
    # what has no scores is refused already, or refuses the plan
    videos = np.flatnonzero((clips.kind[used] == VIDEO) & (rows >= 0))
    timings = clips.timing[used[videos]]
    squares = {timing: square(clips.times(timing)) for timing in np.unique(timings).tolist()}
    for number, timing in zip(videos.tolist(), timings.tolist(), strict=True):
        values = frame_scores.at(int(rows[number]))
        view = view_clip(squares[timing], recipe.frames, recipe.layout, scores=values)
        plan = plan_clip(view, "video", recipe.layout, codec.count)
        stamps[number] = sum(run.n for run in plan if run.kind == TIME)
    return stamps


def square(timing: Timing) -> Clip:
    """A small video of which only the times are known."""
    base, pts = timing
    return Clip(
        clip_id="",
        kind="video",
        pts=pts,
        time_base=base,
        duration=(0, 1),
        width=VIDEO_MULTIPLE,
        height=VIDEO_MULTIPLE,
        nbytes=(),
        rotation=0,
        is_vfr=False,
        source_fps=(0, 1),
        colour="",
    )
