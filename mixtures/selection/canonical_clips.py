"""Near copies of a clip are shown as one, so that conversations about them share its frames.

A copy that is turned, cut, or played at another speed would make an answer wrong: only clips that
show the same from beginning to end (relations exact and near) and last equally long stand for each
other. No sample is lost but one that outgrows a pack over the shown clip, and its key still names
the clips that it was published with.

Short answers tell what a comparison of pictures may have missed: where one question would be asked
about one shown clip and be answered differently, the clips show themselves.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mixtures.manifest.npy_tables import SHOWN
from mixtures.pool.clusters import Pairs, components
from mixtures.pool.columns import Clips, Samples
from mixtures.selection.filter_decisions import FilterDecisions
from shards.sample import turns_from_json

EQUALLY_LONG = 500
"""ms: a step of the default profile; timestamps and spans in a text stay true within it."""
SHORT = 8
"""Words of an answer that says one thing; longer ones differ over one picture too."""


def show_canonical(
    decisions: Sequence[FilterDecisions],
    clips: Clips,
    copies: Pairs,
    row_readers: Sequence[Callable[[Samples, NDArray[np.int64], str], pa.Table]],
) -> NDArray[np.void]:
    """Repoint the samples of all sources; the rows of SHOWN, sorted by clip.

    Only what a sample that still stays names is shown: no clip under a licence that is refused.
    `row_readers` read columns of a source's samples at some indices.
    """
    used = np.zeros(len(clips.ids), bool)
    for source in decisions:
        # clips of samples that stay, flattened
        used[source.samples.clips[np.repeat(source.stays, np.diff(source.samples.ends))]] = True
    shown = canonical(clips, copies.among(used), used)
    # where answers disagree the pictures differ in what was asked: they show themselves
    own_clips = answered_apart(decisions, shown, row_readers)
    shown[own_clips] = own_clips
    for source in decisions:
        source.samples = repoint(source.samples, shown)
    # only what is shown for another is written down
    others = np.flatnonzero(shown != np.arange(len(shown)))
    shown_rows = np.empty(len(others), SHOWN)
    shown_rows["clip"] = clips.ids[others]
    shown_rows["shown"] = clips.ids[shown[others]]
    return shown_rows


def canonical(
    clips: Clips, copies: NDArray[np.int64], used: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Which clip is shown in place of each clip of the pool, by place; most stand for themselves.

    `copies` [2, n] are pairs of exact and near copies. Of those that are `used` the one with most
    pixels a frame is shown, then most bytes, then the least id, in place of those as long as it.
    """
    apart = abs(np.diff(clips.millis[copies].astype(np.int64), axis=0))[0]
    # edges of the graph of copies: both clips in use, equally long
    pairs = copies[:, used[copies].all(axis=0) & (apart <= EQUALLY_LONG)]
    pixels = clips.width.astype(np.int64) * clips.height
    shown = np.arange(len(clips.ids))
    # the rank of every clip by pixels, then bytes, then id
    best = np.empty_like(shown)
    best[np.lexsort((-clips.nbytes, -pixels))] = shown  # stable: the least id first
    groups = components(pairs.T.tolist())
    # the best clip of each connected component, then all of it that is as long
    of_group: dict[int, int] = {}
    for clip, group in groups.items():
        of_group[group] = min(of_group.get(group, clip), clip, key=lambda each: int(best[each]))
    for clip, group in groups.items():
        apart = int(clips.millis[clip]) - int(clips.millis[of_group[group]])
        if abs(apart) <= EQUALLY_LONG:  # a chain of copies can drift further
            shown[clip] = of_group[group]
    return shown


def answered_apart(
    decisions: Sequence[FilterDecisions],
    shown: NDArray[np.int64],
    row_readers: Sequence[Callable[[Samples, NDArray[np.int64], str], pa.Table]],
) -> NDArray[np.int64]:
    """The clips of samples that would ask one question over one shown clip and get different
    answers of at most SHORT words."""
    shared = np.zeros(len(shown), bool)
    # only samples over a clip that would be shown for another are read
    shared[shown[shown != np.arange(len(shown))]] = True
    answers: dict[tuple[bytes, str], set[str]] = defaultdict(set)
    clips_asked_about: dict[tuple[bytes, str], set[int]] = defaultdict(set)
    for source, read in zip(decisions, row_readers, strict=True):
        indices = source.staying(source.samples.per_sample(shared[shown]))
        turns = read(source.samples, indices, "turns")["turns"].to_pylist()
        for index, text in zip(indices.tolist(), turns, strict=True):
            clips = source.samples.clips[
                source.samples.ends[index] : source.samples.ends[index + 1]
            ]
            for question, answer in _short_answers(text):
                name = (shown[clips].tobytes(), question)
                answers[name].add(answer)
                clips_asked_about[name].update(clips.tolist())
    apart = {
        clip
        for name, different in answers.items()
        if len(different) > 1
        for clip in clips_asked_about[name]
    }
    return np.array(sorted(apart), np.int64)


def _short_answers(turns_json: str) -> Iterator[tuple[str, str]]:
    """(question, answer) of each question of a conversation with a short answer, in lower case."""
    for one, other in pairwise(turns_from_json(json.loads(turns_json))):
        question, answer = (" ".join(turn.text.casefold().split()) for turn in (one, other))
        if (one.role, other.role) == ("user", "assistant") and len(answer.split()) <= SHORT:
            yield question, answer


def repoint(samples: Samples, shown: NDArray[np.int64]) -> Samples:
    """The samples over the clips that are shown.

    A sample that would show one clip twice keeps its own: it may ask how the two differ.
    """
    # a sample that would show one clip twice has two equal ones beside each other once sorted
    clips = shown[samples.clips]
    owner = np.repeat(np.arange(len(samples.key)), np.diff(samples.ends))
    order = np.lexsort((clips, owner))
    again = (np.diff(clips[order]) == 0) & (np.diff(owner[order]) == 0)
    twice = np.zeros(len(samples.key), bool)
    twice[owner[order][1:][again]] = True
    return replace(samples, clips=np.where(twice[owner], samples.clips, clips).astype(np.int32))
