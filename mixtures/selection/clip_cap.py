"""No clip is shown by more samples than the recipe allows; sources that share one take turns."""

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
    refused = _dealt_in_turn(waiting, left, len(all_decisions))
    for decisions, full in zip(all_decisions, refused, strict=True):
        places = sorted(full)
        names = (clips.ids[full[place]].tobytes().hex() for place in places)
        details = [f"{most} other samples show clip {name}" for name in names]
        decisions.refuse(np.array(places, np.int64), "CLIP_CAPPED", details)


_Waiting = dict[int, dict[int, list[tuple[int, list[int]]]]]
"""Clip -> source -> its samples over the clip: place, and all of its clips that are crowded."""


def _by_crowded_clip(
    all_decisions: Sequence[FilterDecisions], crowded: NDArray[np.bool_]
) -> _Waiting:
    found: _Waiting = defaultdict(lambda: defaultdict(list))
    for source, decisions in enumerate(all_decisions):
        samples = decisions.samples
        for place in decisions.staying(samples.per_sample(crowded)).tolist():
            clips = samples.clips[samples.ends[place] : samples.ends[place + 1]]
            own = np.unique(clips[crowded[clips]]).tolist()  # one that is shown twice counts once
            for clip in own:
                found[clip][source].append((place, own))
    return found


def _dealt_in_turn(waiting: _Waiting, left: dict[int, int], sources: int) -> list[dict[int, int]]:
    """Per source: place -> the clip that is used up, of the samples that get no turn."""
    given = [0] * sources
    taken = [set[int]() for _ in range(sources)]
    refused = [dict[int, int]() for _ in range(sources)]
    for clip in sorted(waiting):
        queues = {source: iter(samples) for source, samples in waiting[clip].items()}
        # round robin over the sources of this clip, the one that has given least first
        while queues:
            for source in sorted(queues, key=lambda each: (given[each], each)):
                for place, own in queues[source]:
                    if place in taken[source] or place in refused[source]:
                        continue
                    # a sample needs room at every crowded clip that it shows
                    full = [each for each in own if not left[each]]
                    if full:
                        refused[source][place] = min(full)
                        continue
                    left.update((each, left[each] - 1) for each in own)
                    taken[source].add(place)
                    given[source] += 1
                    break
                else:
                    # no sample of this source is left for the clip
                    del queues[source]
    return refused
