"""What a sample costs under a recipe's view, layout and text rule, for many samples at once.

The cost of a clip depends on its kind, size and times only: each distinct look is laid out once.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from mixtures.columns import segment_sums
from mixtures.facts import IMAGE, Clips, Differences, Samples, Timing, read_differences
from mixtures.layout import (
    VIDEO_MULTIPLE,
    LayoutConfig,
    Look,
    frames_used,
    grid_of,
    layout_of,
    look_at,
    view_size,
)
from mixtures.recipe import Recipe
from mixtures.selection import SCORED
from mixtures.tables import ROW
from mixtures.text import TextCodec
from shards.pool import Pool
from shards.sample import Clip

Cost = tuple[int, int, int]
"""(tokens, patches, frames) of one clip."""
_BITS = (2, 17, 17, 26)
"""Kind, width, height and times of a clip in one number."""


class Pricer:
    """Costs of samples over one pool's clips under one recipe."""

    def __init__(self, recipe: Recipe, codec: TextCodec, clips: Clips, pool: Pool) -> None:
        self._recipe, self._codec, self._clips = recipe, codec, clips
        self._known: dict[tuple[str, int, tuple[int, int], int], Cost] = {}
        self._by_times = recipe.layout.timestamps != "none"
        self._looks: list[Look] = []
        self._differences: Differences | None = None
        last: NDArray[np.integer]
        if self._by_times and recipe.frames.selection in SCORED:
            self._differences = read_differences(pool, clips)  # each clip has a look of its own
            last = np.arange(len(clips.ids))
        elif self._by_times or not len(clips.bases):
            last = clips.timing
        else:
            last = self._timeless()[clips.timing]
        packed = np.zeros(len(clips.ids), np.int64)
        for column, bits in zip((clips.kind, clips.width, clips.height, last), _BITS, strict=True):
            packed = packed << bits | np.maximum(column, 0).astype(np.int64)
        self._forms, self._form = np.unique(packed, return_inverse=True)

    def _timeless(self) -> NDArray[np.int64]:
        """For each timing: which of the distinct looks, their times left out, it gives."""
        known: dict[Look, int] = {}
        found, view = [], replace(self._recipe.frames, selection="uniform")  # as many by any
        for timing in range(len(self._clips.bases)):
            clip = _clip("video", VIDEO_MULTIPLE, VIDEO_MULTIPLE, self._clips.times(timing))
            look = look_at(clip, view, self._recipe.layout)
            shown = len(look.frames)
            look = replace(look, frames=tuple(range(shown)), seconds=(Fraction(0),) * shown)
            found.append(known.setdefault(look, len(known)))
        self._looks = list(known)
        return np.array(found, np.int64)

    def rows(self, samples: Samples) -> NDArray[np.void]:
        """One row of ROW per sample; its refused clips cost nothing."""
        clips, used, ends = self._clips, samples.clips, samples.ends
        is_image = clips.kind[used] == IMAGE
        images = np.where(is_image, np.repeat(segment_sums(is_image, ends), np.diff(ends)), 0)
        span = int(images.max(initial=0)) + 1
        look = self._form[used] * span + images
        is_used = np.zeros(len(self._forms) * span, bool)
        is_used[look] = True
        costs = np.zeros((3, len(is_used)), np.int64)
        for number in np.flatnonzero(is_used).tolist():
            costs[:, number] = self._cost(*divmod(number, span))
        tokens, patches, frames = costs[:, look]
        found = np.empty(len(samples.key), ROW)
        found["key"], found["clips"] = samples.key, np.diff(ends)
        found["tokens"] = samples.tokens + segment_sums(tokens, ends)
        found["patches"] = segment_sums(patches, ends)
        found["frames"] = segment_sums(frames, ends)
        found["millis"] = segment_sums(clips.millis[used], ends)
        found["nbytes"] = segment_sums(clips.nbytes[used], ends)
        return found

    def _cost(self, form: int, images: int) -> Cost:
        """The cost of a clip of this form among so many images (0: it is a video)."""
        left, fields = int(self._forms[form]), []
        for bits in reversed(_BITS):
            left, value = divmod(left, 1 << bits)
            fields.append(value)
        last, height, width, kind = fields
        if not kind:
            return 0, 0, 0
        recipe, name = self._recipe, "image" if kind == IMAGE else "video"
        clip = _clip(name, width, height, ((1, 1), (0,)))
        grid = grid_of(*view_size(clip, recipe.frames, recipe.layout, images), recipe.layout.patch)
        known = self._known.get((name, last, grid, images))
        if known is None:
            if self._by_times:
                clip = self._timed(clip, last)
                look = look_at(clip, recipe.frames, recipe.layout, images)
            else:
                look = self._looks[last]
            known = _cost_of(replace(look, grid=grid), name, recipe.layout, self._codec, images)
            self._known[name, last, grid, images] = known
        return known

    def _timed(self, clip: Clip, last: int) -> Clip:
        """The clip with its times, and with the scores that its selection reads."""
        if self._differences is None:
            base, pts = self._clips.times(last)
            return replace(clip, time_base=base, pts=pts)
        base, pts = self._clips.times(int(self._clips.timing[last]))
        return replace(clip, time_base=base, pts=pts, differences=self._differences.of(last))


def _clip(kind: str, width: int, height: int, timing: Timing) -> Clip:
    """A clip of which only kind, size and times are known."""
    base, pts = timing
    return Clip(
        clip_id="",
        kind=kind,
        pts=pts,
        time_base=base,
        duration=(0, 1),
        width=width,
        height=height,
        nbytes=(),
        rotation=0,
        is_vfr=False,
        source_fps=(0, 1),
        colour="",
    )


def _cost_of(look: Look, kind: str, layout: LayoutConfig, codec: TextCodec, images: int) -> Cost:
    slots = layout_of(look, kind, layout, codec.count, max(images, 1))
    frames = len(frames_used(slots))
    return sum(slot.n for slot in slots), frames * look.grid[0] * look.grid[1], frames
