"""Which frames of a video to keep, by presentation time. Integers and fractions only.

One rule: time is cut into cells of one interval from the first frame on, and of every cell the
first frame is kept. So the rate never drifts, whatever the source's own rate. `select_expression`
says it to ffmpeg; `kept` says it to everybody else, and the media door compares the two on every
file.

Where frames that no other frame refers to are not decoded, mostly one between two others, sometimes
two in a row, a frame next to the one that the rule keeps stands for it (`Chooser`). When all frames
are shown is known from packets.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
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


class Missed(Exception):
    """What came out does not do: frames that nobody refers to must be decoded too."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A time that the rule keeps, and the times of its neighbours, in ticks."""

    before: int | None
    best: int
    after: int | None

    @property
    def last(self) -> int:
        """When the last frame that may stand for it is shown."""
        return self.best if self.after is None else self.after


class Chooser:
    """Takes frames as they come, and hands on one for each that the rule keeps: itself, else the
    one after it, else the one before.

    Raises Missed as soon as there is none of the three.
    """

    def __init__(
        self, times: Sequence[int], rule: Cells, hand_on: Callable[[memoryview], None]
    ) -> None:
        self.pts: list[int] = []
        self._hand_on = hand_on
        self._left = iter(choices(times, rule))
        self._next = next(self._left, None)
        self._held = (0, b"")

    def take(self, time: int, raw: memoryview) -> None:
        """The next frame in the order of display, and when it is shown."""
        while self._next and time > self._next.last:
            self._hand_on_held(self._next)
        if self._next and time in (self._next.best, self._next.after):
            self._chosen(time, raw)
        if self._next and time == self._next.before:
            self._held = time, bytes(raw)

    def end(self) -> None:
        """No frame comes any more."""
        while self._next:
            self._hand_on_held(self._next)

    def _hand_on_held(self, choice: Choice) -> None:
        time, frame = self._held
        # a frame stands for one cell only
        if not frame or time != choice.before or time in self.pts[-1:]:
            raise Missed
        self._chosen(time, memoryview(frame))

    def _chosen(self, time: int, raw: memoryview) -> None:
        self.pts.append(time)
        self._hand_on(raw)
        self._next = next(self._left, None)


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


def choices(times: Sequence[int], rule: Cells) -> list[Choice]:
    """What the rule keeps of frames that are shown at these times, with their neighbours."""
    neighbours = zip([None, *times], times, [*times[1:], None], strict=False)
    wanted = set(kept(times, rule))
    return [Choice(*three) for three in neighbours if three[1] in wanted]


def check_decoded(decoded: Sequence[int], times: Sequence[int]) -> None:
    """Raise Missed unless the times of what was decoded ascend, are times of packets, and go from
    the first one to one of the last two.
    """
    ascend = all(a < b for a, b in itertools.pairwise(decoded))
    whole = {*times[:1]} == {*decoded[:1]} and {*decoded[-1:]} <= {*times[-2:]}
    if not (ascend and whole and set(decoded) <= set(times)):
        raise Missed


def select_expression(rule: Cells, start: int | None = None, before: int = 0) -> str:
    """The same rule for ffmpeg's `select`; its doubles hold integers up to 2^53 exactly.

    Frames that are shown up to `before` ticks before a cell begins pass too.
    """
    # ffmpeg's expressions have no integers, but doubles are exact up to 2^53
    origin = "start_pts" if start is None else str(start)

    def cell(time: str) -> str:
        """The number of the cell of a time, as an expression."""
        return f"floor((({time}-{origin})*{rule.factor}+{rule.slack})/{rule.size})"

    early = f"+gt({cell(f'(pts+{before})')},{cell('pts')})" if before else ""
    if start is None:
        return f"isnan(prev_selected_pts)+gt({cell('pts')},{cell('prev_selected_pts')})" + early
    last = f"max(prev_selected_pts,{start})"
    return f"isnan(prev_selected_pts)+lte(pts,{start})+gt({cell('pts')},{cell(last)})" + early


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
