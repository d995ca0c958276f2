"""Which frames of a video to keep, by presentation time. Integers and fractions only.

One rule: time is cut into cells of one interval from the first frame on, and of every cell the
first frame is kept. So the rate never drifts, whatever the source's own rate. `select_expression`
says it to ffmpeg; `kept` says it to everybody else, and the media door compares the two on every
file.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

TOLERANCE = Fraction(1, 2000)
"""Half a millisecond: time stamps rounded to 1/1000 s stay in their cell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """The cell of a time that lies t ticks after the first frame: (t * factor + slack) // size."""

    factor: int
    slack: int
    size: int


def interval(seconds: Fraction, fps: int, cap: int) -> Fraction:
    """Seconds between kept frames: 1/fps, or more where `cap` frames must span the video."""
    return max(Fraction(1, fps), seconds / cap)


def cells(between: Fraction, time_base: Fraction, *, capped: bool) -> Cells:
    """Cells of `between` seconds, for times in units of `time_base`.

    The tolerance is given only where the rate decides; where the cap decides, it must hold.
    """
    factor = time_base / between
    slack = Fraction(0) if capped else TOLERANCE / between
    # a common denominator: cells are found in integers, the same in ffmpeg's doubles
    size = math.lcm(factor.denominator, slack.denominator)
    return Cells(factor=int(factor * size), slack=int(slack * size), size=size)


def kept(pts: Sequence[int], rule: Cells, start: int | None = None) -> list[int]:
    """The presentation times that the rule keeps, out of those of all frames in output order.

    With a start (of a span) cells begin there, and every frame up to it is kept: the last of them
    is on screen when the span begins.
    """
    chosen: list[int] = []
    last = -1
    origin = pts[0] if start is None else start
    for time in pts:
        early = start is not None and time <= start
        # cell number by floor division; frames up to a span's start belong to no cell
        cell = 0 if early else ((time - origin) * rule.factor + rule.slack) // rule.size
        if not chosen or early or cell > last:
            chosen.append(time)
            last = cell
    return chosen


def select_expression(rule: Cells, start: int | None = None) -> str:
    """The same rule for ffmpeg's `select`; its doubles hold integers up to 2^53 exactly."""
    # ffmpeg's expressions have no integers, but doubles are exact up to 2^53
    origin = "start_pts" if start is None else str(start)

    def cell(time: str) -> str:
        """The number of the cell of a time, as an expression."""
        return f"floor((({time}-{origin})*{rule.factor}+{rule.slack})/{rule.size})"

    if start is None:
        return f"isnan(prev_selected_pts)+gt({cell('pts')},{cell('prev_selected_pts')})"
    before = f"max(prev_selected_pts,{start})"
    return f"isnan(prev_selected_pts)+lte(pts,{start})+gt({cell('pts')},{cell(before)})"


def frame_ticks(pts: Sequence[int], otherwise: int) -> int:
    """How long a frame is shown: the median step between frames; `otherwise` for one frame."""
    # the median, since a cut or a dropped frame makes a long step
    steps = sorted(b - a for a, b in itertools.pairwise(pts) if b > a)
    return steps[len(steps) // 2] if steps else max(1, otherwise)


def is_vfr(pts: Sequence[int]) -> bool:
    """Whether distances of neighbours vary by more than rounding and by more than a tenth."""
    steps = [b - a for a, b in itertools.pairwise(pts)]
    if len(steps) < 2:
        return False
    # 2 ticks: rounding of time stamps to the time base
    spread = max(steps) - min(steps)
    return spread > 2 and 10 * spread > frame_ticks(pts, 1)
