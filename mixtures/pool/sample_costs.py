"""Token costs: tokens, patches and frames of all samples under a recipe's view, layout and text.

A clip costs what its frames cost, which kind, size and number of frames decide: each distinct view
is laid out once. Timestamps come on top; which frames carry one depends on their number alone.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from mixtures.manifest.npy_tables import ROW
from mixtures.pool.columns import IMAGE, VIDEO, Clips, Samples, read_differences
from mixtures.pool.question_stamps import has_stamps, square
from mixtures.recipe.types import Recipe
from mixtures.sums import segment_sums
from mixtures.tokens.frame_selection import SCORED, at_rates
from mixtures.tokens.frame_view import ClipView, view_clip, view_placement
from mixtures.tokens.layout_types import TIME, LayoutConfig, TokenPlan
from mixtures.tokens.placement import grid_of
from mixtures.tokens.text import TextCodec
from mixtures.tokens.token_plan import frames_used, plan_clip, tenths_of, time_text
from shards.pool import Pool
from shards.sample import Clip

Cost = tuple[int, int, int]
"""(tokens, patches, frames) of one clip, timestamps left out."""
_BITS = (2, 17, 17, 26)
"""Kind, width, height and view of a clip in one number."""


class SampleCosts:
    """Costs of samples over one pool's clips under one recipe."""

    def __init__(self, recipe: Recipe, codec: TextCodec, clips: Clips, pool: Pool) -> None:
        self._recipe = recipe
        self._codec = codec
        self._clips = clips
        self._known: dict[tuple[str, int, tuple[int, int], int], Cost] = {}
        # which stored frames the view's rate shows, for all timings at once; then where each begins
        shown = at_rates(clips.bases, clips.pts, clips.ends, recipe.frames.fps)
        self._frames = np.flatnonzero(shown)
        self._ends = np.concatenate([[0], np.cumsum(shown)])[clips.ends]
        self._views, clip_view = self._distinct_views()
        self._stamps = self._stamp_tokens(pool)
        # a clip's cost hangs on kind, sides and view alone: packed into one integer, `unique`
        # leaves some thousands of forms of millions of clips
        packed = np.zeros(len(clips.ids), np.int64)
        number = clip_view[clips.timing] if len(clip_view) else clips.timing
        columns: tuple[NDArray[np.integer], ...] = (clips.kind, clips.width, clips.height, number)
        for column, bits in zip(columns, _BITS, strict=True):
            packed = packed << bits | np.maximum(column, 0).astype(np.int64)
        self._forms, self._form = np.unique(packed, return_inverse=True)

    def _distinct_views(self) -> tuple[list[ClipView], NDArray[np.int64]]:
        """The distinct views, their times left out, and which of them each timing gives.

        So many stored frames at the view's rate give so many shown ones, by any selection.
        """
        view = replace(self._recipe.frames, selection="uniform")
        # one timing of each number of frames stands for all of them
        _, first, group = np.unique(np.diff(self._ends), return_index=True, return_inverse=True)
        known: dict[ClipView, int] = {}
        view_of_timing = []
        for timing in first.tolist():
            clip_view = view_clip(square(self._clips.times(timing)), view, self._recipe.layout)
            shown = len(clip_view.frames)
            # views that differ in times only cost the same
            clip_view = replace(
                clip_view, frames=tuple(range(shown)), pts=(0,) * shown, time_base=(1, 1)
            )
            view_of_timing.append(known.setdefault(clip_view, len(known)))
        return list(known), np.array(view_of_timing, np.int64)[group]

    def _stamp_tokens(self, pool: Pool) -> NDArray[np.int64]:
        """Tokens of the timestamps of each clip."""
        clips = self._clips
        view = self._recipe.frames
        videos = np.flatnonzero(clips.kind == VIDEO)
        stamps = np.zeros(len(clips.ids), np.int64)
        # by what is asked frames are selected sample by sample: mixtures.pool.question_stamps
        if not has_stamps(self._recipe.layout) or view.selection == "query":
            return stamps
        if view.selection in SCORED:  # each clip has a view of its own
            differences = read_differences(pool, clips)
            for clip in videos.tolist():
                shown = square(clips.times(int(clips.timing[clip])))
                stamps[clip] = self._stamps_of(replace(shown, differences=differences.of(clip)))
            return stamps
        # timings, not clips, are laid out: one in ten clips has times of its own
        timings = np.unique(clips.timing[videos])
        tokens = np.zeros(len(clips.bases), np.int64)
        if self._recipe.layout.timestamps == "sentence":
            for timing in timings.tolist():
                tokens[timing] = self._stamps_of(square(self._clips.times(timing)))
        else:
            counts = np.diff(self._ends)[timings]
            # timings of equally many frames carry their stamps at equal frames
            for count in np.unique(counts).tolist():
                same_count = timings[counts == count]
                tokens[same_count] = self._stamps_of_timings(same_count, count)
        stamps[videos] = tokens[clips.timing[videos]]
        return stamps

    def _stamps_of(self, clip: Clip) -> int:
        return sum(run.n for run in self._layout(clip) if run.kind == TIME)

    def _stamps_of_timings(self, timings: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        """Tokens of the timestamps of timings with `count` frames at the view's rate."""
        first = square(self._clips.times(int(timings[0])))
        clip_view = view_clip(first, self._recipe.frames, self._recipe.layout)
        stamped = [run.frame for run in self._layout(first) if run.kind == TIME]
        of_first = self._frames[self._ends[timings[0]] :][:count] - self._clips.ends[timings[0]]
        # which of the frames at the view's rate carry a stamp, by number
        chosen = np.searchsorted(of_first, np.array(clip_view.frames, np.int64)[stamped])
        frames = self._frames[self._ends[timings][:, None] + chosen]
        # presentation times in seconds are fractions: exact tenths by integer arithmetic
        numerators, denominators = self._clips.bases[timings].T[..., None]
        tenths, which = np.unique(
            tenths_of(self._clips.pts[frames] * numerators, denominators), return_inverse=True
        )
        # each distinct stamp is tokenised once
        texts = (time_text(Fraction(each, 10)) for each in tenths.tolist())
        tokens = np.array([self._codec.count(text) for text in texts], np.int64)
        sums: NDArray[np.int64] = tokens[which.reshape(frames.shape)].sum(1)
        return sums

    def _layout(self, clip: Clip) -> TokenPlan:
        layout = self._recipe.layout
        clip_view = view_clip(clip, self._recipe.frames, layout)
        return plan_clip(clip_view, clip.kind, layout, self._codec.count)

    def rows(self, samples: Samples, stamps: NDArray[np.int64] | None = None) -> NDArray[np.void]:
        """One row of ROW per sample; its refused clips cost nothing. `stamps` are the tokens of the
        timestamps of the samples' clips, where these hang on the sample."""
        clips = self._clips
        used = samples.clips
        ends = samples.ends
        # how many images stand in the sample of each: they share one token budget
        is_image = clips.kind[used] == IMAGE
        images = np.where(is_image, np.repeat(segment_sums(is_image, ends), np.diff(ends)), 0)
        span = int(images.max(initial=0)) + 1
        # form and number of images in one number, so that each pair of them is costed once
        clip_view = self._form[used] * span + images
        is_used = np.zeros(len(self._forms) * span, bool)
        is_used[clip_view] = True
        costs = np.zeros((3, len(is_used)), np.int64)
        for number in np.flatnonzero(is_used).tolist():
            costs[:, number] = self._cost(*divmod(number, span))
        # gather the costs of all used clips, then sum them up by sample
        tokens, patches, frames = costs[:, clip_view]
        costed = np.empty(len(samples.key), ROW)
        costed["key"] = samples.key
        costed["clips"] = np.diff(ends)
        stamps = self._stamps[used] if stamps is None else stamps
        costed["tokens"] = samples.tokens + segment_sums(tokens + stamps, ends)
        costed["patches"] = segment_sums(patches, ends)
        costed["frames"] = segment_sums(frames, ends)
        costed["millis"] = segment_sums(clips.millis[used], ends)
        costed["nbytes"] = segment_sums(clips.nbytes[used], ends)
        return costed

    def _cost(self, form: int, images: int) -> Cost:
        """The cost of a clip of this form among so many images (0: it is a video)."""
        left = int(self._forms[form])
        fields = []
        # unpack what __init__ packed, the last field first
        for bits in reversed(_BITS):
            left, value = divmod(left, 1 << bits)
            fields.append(value)
        number, height, width, kind = fields
        if not kind:
            return 0, 0, 0
        recipe = self._recipe
        name = "image" if kind == IMAGE else "video"
        shown = view_placement(name, (width, height), recipe.frames, recipe.layout, images)
        grid = grid_of(shown.width, shown.height, recipe.layout.patch)
        known = self._known.get((name, number, grid, images))
        if known is None:
            known = _cost_of(replace(self._views[number], grid=grid), name, recipe.layout, images)
            self._known[name, number, grid, images] = known
        return known


def _cost_of(clip_view: ClipView, kind: str, layout: LayoutConfig, images: int) -> Cost:
    runs = plan_clip(clip_view, kind, layout, lambda _: 0, max(images, 1))
    frames = len(frames_used(runs))
    return sum(run.n for run in runs), frames * clip_view.grid[0] * clip_view.grid[1], frames
