"""Which frames of a video to keep, by presentation time. Integers and fractions only.

One rule: the first frame is kept, and then every frame that comes at least one interval after the
last one kept. `select_expression` says it to ffmpeg; `kept` says it to everybody else, and the
media door compares the two on every file.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction

TOLERANCE = Fraction(
    1, 2000
)  # half a millisecond: time stamps rounded to 1/1000 s keep their frame


def interval(seconds: Fraction, fps: int, cap: int) -> Fraction:
    """Seconds between kept frames: 1/fps, or more where `cap` frames must span the video."""
    return max(Fraction(1, fps), seconds / cap)


def ticks_apart(between: Fraction, time_base: Fraction, *, capped: bool) -> int:
    """The least distance of two kept frames in units of `time_base`.

    The tolerance is given only where the rate decides; where the cap decides, it must hold.
    """
    slack = Fraction(0) if capped else TOLERANCE
    return max(1, math.ceil((between - slack) / time_base))


def kept(pts: Sequence[int], ticks: int) -> list[int]:
    """The presentation times that the rule keeps, out of those of all frames in output order."""
    chosen: list[int] = []
    for time in pts:
        if not chosen or time - chosen[-1] >= ticks:
            chosen.append(time)
    return chosen


def select_expression(ticks: int) -> str:
    """The same rule for ffmpeg's `select`; its doubles hold integers up to 2^53 exactly."""
    return f"isnan(prev_selected_pts)+gte(pts-prev_selected_pts,{ticks})"


def frame_ticks(pts: Sequence[int], otherwise: int) -> int:
    """How long a frame is shown: the median step between frames; `otherwise` for one frame."""
    steps = sorted(b - a for a, b in itertools.pairwise(pts) if b > a)
    return steps[len(steps) // 2] if steps else max(1, otherwise)


def is_vfr(pts: Sequence[int]) -> bool:
    """Whether distances of neighbours vary by more than rounding and by more than a tenth."""
    steps = [b - a for a, b in itertools.pairwise(pts)]
    if len(steps) < 2:
        return False
    spread = max(steps) - min(steps)
    return spread > 2 and 10 * spread > frame_ticks(pts, 1)
