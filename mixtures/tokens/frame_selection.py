"""Frame sampling: which of too many frames to show, by their count or by a score of each.

`uniform` and `uniform_last` need no scores. `scene` and `difference` take how much each frame
differs from the one before, 0..255; `query` takes how well each frame fits a question, any scale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from shards.sample import Clip

SCENE_CUT = 24
"""A mean luma difference from here on starts another shot."""
Scores = NDArray[np.int64]


def at_rate(clip: Clip, fps: int) -> list[int]:
    """Which stored frames a rate shows: the nearest to each k / fps.

    ValueError for a video without frames.
    """
    if not clip.pts:
        raise ValueError(f"clip {clip.clip_id}: a video of 0 frames, at least 1 is needed")
    bases = np.array([clip.time_base], np.int64)
    ends = np.array([0, len(clip.pts)])
    shown: list[int] = np.flatnonzero(
        at_rates(bases, np.array(clip.pts, np.int64), ends, fps)
    ).tolist()
    return shown


def at_rates(
    bases: NDArray[np.int64], pts: NDArray[np.int64], ends: NDArray[np.int64], fps: int
) -> NDArray[np.bool_]:
    """`at_rate` of many clips: which of `pts` are shown.

    Clip i has `pts[ends[i]:ends[i + 1]]`, ascending, at least one, in units of `bases[i]` seconds.
    """
    # all in units of half a step of the rate, so that no time is ever rounded
    lengths = np.diff(ends)
    step = np.repeat(2 * bases[:, 1], lengths)
    twice = pts * np.repeat(2 * fps * bases[:, 0], lengths)  # k / fps is at k * step
    until = np.empty_like(twice)  # the last k that this frame is nearest to: up to half way
    until[:-1] = (twice[:-1] + twice[1:]) // (2 * step[:-1])
    last = ends[1:] - 1
    until[last] = (2 * twice[last] + step[last] - 2) // (2 * step[last])
    # a frame is shown if it is the nearest to one k at least that the one before is not
    before = np.empty_like(until)
    before[1:] = until[:-1]
    before[ends[:-1]] = -1
    shown: NDArray[np.bool_] = until > before
    return shown


def spread(count: int, most: int) -> list[int]:
    """At most `most` of `count` indices, evenly: i * count // most."""
    kept = min(count, most)
    return [i * count // kept for i in range(kept)]


def select(count: int, most: int, how: str, scores: Sequence[int] = ()) -> list[int]:
    """At most `most` of `count` frames, ascending; all of them where they are few enough.

    ValueError where `how` needs one score per frame and has another number of them.
    """
    if count <= most:
        return list(range(count))
    if how in SCORED and len(scores) != count:
        raise ValueError(f"selection {how} needs {count} scores, one per frame, has {len(scores)}")
    return sorted(SELECTIONS[how](count, most, np.array(scores, np.int64)))


def uniform(count: int, most: int, _: Scores) -> list[int]:
    """Evenly from the first frame on."""
    return spread(count, most)


def uniform_last(count: int, most: int, _: Scores) -> list[int]:
    """Evenly from the first frame to the very last; the last alone where only one may be shown."""
    return [i * (count - 1) // (most - 1) for i in range(most)] if most > 1 else [count - 1]


def scene(count: int, most: int, scores: Scores) -> list[int]:
    """Shots share the frames by their length, at least one each while that many may be shown."""
    # a shot begins where the picture changes much
    starts = np.flatnonzero(np.concatenate([[True], scores[1:] >= SCENE_CUT]))
    if len(starts) >= most:
        return [int(starts[i]) for i in uniform(len(starts), most, scores)]
    lengths = np.diff(np.append(starts, count))
    # one frame for each shot, the rest by length
    quotas = 1 + _apportion(lengths - 1, most - len(starts))
    shots = zip(starts.tolist(), lengths.tolist(), quotas.tolist(), strict=True)
    return [start + i for start, length, quota in shots for i in uniform(length, quota, scores)]


def difference(_: int, most: int, scores: Scores) -> list[int]:
    """At equal steps of accumulated change, then the frames that changed most of those left."""
    # the distribution of change over the clip; +1 lets still parts count a little
    reached = np.cumsum(scores + 1) - (scores[0] + 1)
    targets = np.arange(most) * (reached[-1] + 1) // most
    return _filled(np.searchsorted(reached, targets), most, scores)


def query(_: int, most: int, scores: Scores) -> list[int]:
    """Half of the frames the best of all, the other half the best local maxima (Molmo2, app. E)."""
    # the best half by score, then peaks, so that not all of them lie side by side
    best = np.argsort(-scores, kind="stable")
    padded = np.pad(scores, 1, constant_values=np.iinfo(np.int64).min)
    peaks = (scores >= padded[:-2]) & (scores >= padded[2:])
    chosen = best[: most - most // 2]
    others = [frame for frame in best.tolist() if peaks[frame] and frame not in set(chosen)]
    return _filled(np.concatenate([chosen, np.array(others[: most // 2], np.int64)]), most, scores)


def _apportion(weights: Scores, seats: int) -> Scores:
    """Seats by weight, largest remainders first; none gets more seats than it weighs."""
    total = max(int(weights.sum()), 1)
    # Hamilton's method: whole seats, then the largest remainders
    given = weights * seats // total
    order = np.lexsort((np.arange(len(weights)), -(weights * seats % total)))
    given[order[: seats - int(given.sum())]] += 1
    return given


def _filled(chosen: Scores, most: int, scores: Scores) -> list[int]:
    """The distinct frames chosen, and the highest scores among the others, `most` in all."""
    kept = dict.fromkeys(chosen.tolist())
    for frame in np.argsort(-scores, kind="stable").tolist():
        if len(kept) >= most:
            break
        kept.setdefault(frame)
    return list(kept)


SELECTIONS: dict[str, Callable[[int, int, Scores], list[int]]] = {
    "uniform": uniform,
    "uniform_last": uniform_last,
    "scene": scene,
    "difference": difference,
    "query": query,
}
SCORED = ("scene", "difference", "query")
