"""A cap on the samples that show one clip; sources that share a clip take turns (round robin)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixtures.pool.columns import Clips
from mixtures.selection.filter_decisions import FilterDecisions


def refuse_beyond(all_decisions: Sequence[FilterDecisions], most: int, clips: Clips) -> None:
    """Samples over a clip that `most` others show; sources that share a clip take turns.

    Clip by clip, each source gives the next of its samples by key, first the source that has given
    least so far, until the clip is used up.
    """
    # which clips are shown by more samples than allowed: the others need no turn-taking
    uses = np.zeros(len(clips.ids), np.int64)
    for each in all_decisions:
        shown = np.repeat(each.stays, np.diff(each.samples.ends))
        uses += np.bincount(each.samples.clips[shown], minlength=len(uses))
    crowded = uses > most
    waiting = _by_crowded_clip(all_decisions, crowded)
    left = dict.fromkeys(np.flatnonzero(crowded).tolist(), most)
    refused = _assigned_round_robin(waiting, left, len(all_decisions))
    for decisions, full in zip(all_decisions, refused, strict=True):
        indices = sorted(full)
        names = (clips.ids[full[index]].tobytes().hex() for index in indices)
        details = [f"{most} other samples show clip {name}" for name in names]
        decisions.refuse(np.array(indices, np.int64), "CLIP_CAPPED", details)


_Waiting = dict[int, dict[int, list[tuple[int, list[int]]]]]
"""Clip -> source -> its samples over the clip: index, and all of its clips that are crowded."""


def _by_crowded_clip(
    all_decisions: Sequence[FilterDecisions], crowded: NDArray[np.bool_]
) -> _Waiting:
    waiting: _Waiting = defaultdict(lambda: defaultdict(list))
    for source, decisions in enumerate(all_decisions):
        samples = decisions.samples
        for index in decisions.staying(samples.per_sample(crowded)).tolist():
            clips = samples.clips[samples.ends[index] : samples.ends[index + 1]]
            # one that is shown twice counts once
            crowded_clips = np.unique(clips[crowded[clips]]).tolist()
            for clip in crowded_clips:
                waiting[clip][source].append((index, crowded_clips))
    return waiting


def _assigned_round_robin(
    waiting: _Waiting, left: dict[int, int], sources: int
) -> list[dict[int, int]]:
    """Per source: sample index -> the clip that is used up, of the samples that get no turn."""
    given = [0] * sources
    taken = [set[int]() for _ in range(sources)]
    refused = [dict[int, int]() for _ in range(sources)]
    for clip in sorted(waiting):
        queues = {source: iter(samples) for source, samples in waiting[clip].items()}
        # round robin over the sources of this clip, the one that has given least first
        while queues:
            for source in sorted(queues, key=lambda each: (given[each], each)):
                for index, crowded_clips in queues[source]:
                    if index in taken[source] or index in refused[source]:
                        continue
                    # a sample needs room at every crowded clip that it shows
                    full = [crowded for crowded in crowded_clips if not left[crowded]]
                    if full:
                        refused[source][index] = min(full)
                        continue
                    left.update((crowded, left[crowded] - 1) for crowded in crowded_clips)
                    taken[source].add(index)
                    given[source] += 1
                    break
                else:
                    # no sample of this source is left for the clip
                    del queues[source]
    return refused
