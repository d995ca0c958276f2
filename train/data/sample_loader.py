"""Samples drawn from an order -> samples ready to pack: read, decoded, rendered.

Clips that come again are kept decoded, a damaged sample is replaced by another of its source.
Pixels go straight into the array that becomes their pack's patches.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixtures.manifest.draws import SampleReference
from mixtures.tokens.frame_view import ClipView
from shards.errors import DamagedData
from shards.extents import Fetch
from shards.reader import Reader, Stored
from train.data.collate import Pack, RenderedSample, build_pack
from train.data.jpeg_patches import ClipCache, Frames, Room, Rooms, open_jpegs
from train.data.render import Rules, render
from train.data.replacements import ReplacementSamples
from train.data.tower_plan import WHOLE_TOWER, TowerRule


class Wanted(NamedTuple):
    """A sample to load, and its rows, uint8 [P, 768], of what will be its pack's patches."""

    drawn: SampleReference
    rows: NDArray[np.uint8]


class SampleLoader:
    """Loads samples by the rules of a manifest; `load` may run on many threads at once."""

    def __init__(
        self,
        reader: Reader,
        rules: Rules,
        replacement_samples: ReplacementSamples,
        cache_bytes: int = 0,
        tower: TowerRule = WHOLE_TOWER,
    ) -> None:
        """Decoded clips are kept up to `cache_bytes`; 0 keeps none. `tower`: see `packed`."""
        self.reader = reader
        self.rules = rules
        self.tower = tower
        self.replacement_samples = replacement_samples
        self._clips = ClipCache(cache_bytes)
        self._rooms = Rooms()

    def with_rows(self, drawn: Sequence[SampleReference]) -> list[Wanted]:
        """The samples of one pack, each with its part of one array; for one thread only."""
        # one buffer per pack: patches of its samples lie one behind the other, as the pack wants
        # them
        rows = self._rooms.empty(sum(reference.patches for reference in drawn))
        start = 0
        loads = []
        for reference in drawn:
            loads.append(Wanted(reference, rows[start : start + reference.patches]))
            start += reference.patches
        return loads

    def load(self, wanted: Iterable[Wanted], fetch: Fetch | None = None) -> list[RenderedSample]:
        """Each sample, in order; `fetch` brings verified bytes from elsewhere than the store."""
        return [self._sample(drawn, rows, fetch) for drawn, rows in wanted]

    def packed(self, samples: Sequence[RenderedSample], calls: int) -> Pack:
        """The pack of these samples, planned for at least so many calls of the tower."""
        return build_pack(samples, self.rules.layout, self.tower, calls)

    def _sample(
        self, drawn: SampleReference, rows: NDArray[np.uint8], fetch: Fetch | None
    ) -> RenderedSample:
        self.replacement_samples.count()
        try:
            return self._read(fetch, rows, drawn)
        except DamagedData as error:
            # the replacement is read past the cache: nobody fetched it ahead
            return self.replacement_samples.replace(drawn, error, partial(self._read, None, rows))

    def _read(
        self, fetch: Fetch | None, rows: NDArray[np.uint8], drawn: SampleReference
    ) -> RenderedSample:
        stored = self.reader.read(drawn.source, drawn.key, fetch)
        sample = stored.sample
        frames = partial(self._frames, stored, Room(rows))
        # the reader has them where the rules select frames by what is asked
        scores = sample.frame_scores.by_clip() if sample.frame_scores else {}
        rendered = render(drawn.key, sample.turns, sample.clips, frames, self.rules, scores=scores)
        # counted again: what was decoded must be what was planned
        counted = len(rendered.text.ids), sum(prod(shown.shape[:3]) for shown in rendered.frames)
        if counted != (drawn.tokens, drawn.patches):
            raise DamagedData(
                f"sample {drawn.key} of {drawn.source!r}: {counted} tokens and patches, the plan "
                f"counted {(drawn.tokens, drawn.patches)}; its data are not those that were planned"
            )
        return replace(rendered, position=drawn.position, source=drawn.source)

    def _frames(
        self, stored: Stored, room: Room, number: int, clip_view: ClipView, used: Sequence[int]
    ) -> Frames:
        """The frames of a clip, in its rows of the pack where they suffice."""
        clip = stored.sample.clips[number]
        # what decides a clip's pixels: which frames, at which size, on which grid
        key = (
            clip.clip_id,
            clip_view.grid,
            clip_view.picture,
            tuple(clip_view.frames[i] for i in used),
        )
        out = room.take(len(used), clip_view)
        kept = self._clips.get(key)
        if kept is None:
            frames = open_jpegs(stored.frames[number], clip_view, used, clip, out)
            self._clips.put(key, frames)
            return frames
        if out is None:  # the pack will be joined by a copy
            return kept
        out[:] = kept
        return out
