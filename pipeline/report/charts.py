"""Small SVG charts: pure functions from numbers to markup, coloured by the page's style sheet.

Coordinates are in user units of the view box; series i wears the classes of colour i % COLOURS.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor, isfinite, log10

from markupsafe import Markup

COLOURS = 8
_MOST_BARS = 12
_WIDEST_BAR = 56
_CHARACTER = 6.4
_MEANS = 60
_RAW_POINTS = 600


def number(value: float) -> str:
    """A number for people: thousands apart, at most four digits that matter below 1000."""
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def nice_ticks(low: float, high: float, most: int) -> list[float]:
    """Round values from at or under `low` to at or over `high`, at most about `most` steps."""
    # the "nice numbers" of Heckbert (Graphics Gems, 1990): steps of 1, 2 or 5 times a power of ten
    raw = max(high - low, 1e-9) / most
    power = 10.0 ** floor(log10(raw))
    step = next(power * nice for nice in (1, 2, 5, 10) if power * nice >= raw * (1 - 1e-9))
    first = floor(low / step + 1e-9)
    last = ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, 20 ... from at or under `low` to over `high`; both above 0."""
    # 1-2-5 series: about three bins a decade
    powers = range(floor(log10(low)), ceil(log10(high)) + 2)
    series = [round(nice * 10.0**power, 12) for power in powers for nice in (1, 2, 5)]
    first = bisect_right(series, low) - 1
    return series[first : bisect_right(series, high) + 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bins:
    """Bars of a histogram: one label per bar, or, where `edges`, one more label than bars."""

    labels: tuple[str, ...]
    counts: tuple[int, ...]
    edges: bool


def bins(values: Sequence[float]) -> Bins:
    """One bar per value where they are few; else equal steps, or 1-2-5 steps for a long tail."""
    counted = sorted(Counter(values).items())
    if len(counted) <= _MOST_BARS:
        labels = tuple(number(value) for value, _ in counted)
        return Bins(labels=labels, counts=tuple(count for _, count in counted), edges=False)
    low, high = counted[0][0], counted[-1][0]
    # a tail of two decades would leave all but one bar of equal steps empty
    has_long_tail = low > 0 and high > 100 * low
    edges = log_ticks(low, high) if has_long_tail else nice_ticks(low, high, _MOST_BARS)
    counts = [0] * (len(edges) - 1)
    for value, count in counted:
        # the last bin is closed on both sides
        counts[max(min(bisect_right(edges, value), len(counts)) - 1, 0)] += count
    return Bins(labels=tuple(map(number, edges)), counts=tuple(counts), edges=True)


def svg(width: int, height: int, label: str, marks: Iterable[Markup]) -> Markup:
    """A chart with the text that stands for it where it is not seen."""
    start = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">')
    return start.format(width, height, label) + Markup("").join(marks) + Markup("</svg>")


def _text(x: float, y: float, anchor: str, text: str, kind: str = "tick") -> Markup:
    shape = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}" class="{}">{}</text>')
    return shape.format(x, y, anchor, kind, text)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    shape = Markup('<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" class="{}"/>')
    return shape.format(x1, y1, x2, y2, kind)


def histogram(values: Sequence[float], label: str) -> Markup:
    """Bars of how often each value, or range of values, occurs; `values` must not be empty."""
    binned = bins(values)
    width = 320
    height = 150
    bottom = 128
    # bars of equal width, at most _WIDEST_BAR, centred
    slot = min((width - 16) / len(binned.counts), _WIDEST_BAR)
    left = (width - slot * len(binned.counts)) / 2
    top = max(binned.counts)
    parts = []
    for i, count in enumerate(binned.counts):
        tall = (bottom - 20) * count / top
        x = left + i * slot
        name = (
            binned.labels[i] if not binned.edges else f"{binned.labels[i]}–{binned.labels[i + 1]}"
        )
        title = Markup("<title>{}: {}</title>").format(name, f"{count:,}")
        bar = Markup(
            '<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" class="bar">{}</rect>'
        )
        parts.append(bar.format(x + 1.5, bottom - tall, slot - 3, tall, title))
        # counts only where they fit over their bar
        if count and len(f"{count:,}") * _CHARACTER <= slot:
            parts.append(_text(x + slot / 2, bottom - tall - 5, "middle", f"{count:,}", "count"))
    parts.append(_line(8, bottom, width - 8, bottom, "axis"))
    longest = max(map(len, binned.labels)) * _CHARACTER + 4
    # every n-th label, so that they do not run into each other
    every = ceil(longest / slot)
    for i, name in list(enumerate(binned.labels))[::every]:
        x = left + (i if binned.edges else i + 0.5) * slot
        parts.append(_text(x, bottom + 16, _anchor(x, longest, width), name))
    return svg(width, height, label, parts)


def _anchor(x: float, wide: float, width: float) -> str:
    """Keep a label inside the picture."""
    return "start" if x < wide / 2 else "end" if x > width - wide / 2 else "middle"


def bands(
    windows: Sequence[Sequence[float]], requested: Sequence[float], length: int, label: str
) -> Markup:
    """Shares of each source, stacked, one column per window of positions; dashes: as requested.

    `windows[w][i]` is source i's share of window w; each column and `requested` sum to 1.
    """
    left = 48
    right = 632
    top = 10
    bottom = 170
    step = (right - left) / len(windows)
    under = [0.0] * len(windows)
    parts = []
    for i in range(len(requested)):
        # stacked: a source's band lies on the sum of those before it
        over = [low + shares[i] for low, shares in zip(under, windows, strict=True)]
        path = list(_stairs(over, left, step, top, bottom))
        back = list(_stairs(under, left, step, top, bottom))[::-1]
        # one polygon: the upper stairs forth, the lower ones back
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in path + back)
        parts.append(Markup('<polygon points="{}" class="fill{}"/>').format(points, i % COLOURS))
        under = over
    edge = 0.0
    for share in requested[:-1]:
        edge += share
        y = bottom - (bottom - top) * edge
        parts.append(_line(left, y, right, y, "wanted"))
    for part in (0, 50, 100):
        y = bottom - (bottom - top) * part / 100
        parts.append(_text(left - 6, y + 4, "end", f"{part} %"))
    parts.append(_text(left, bottom + 18, "start", "position 0"))
    parts.append(_text(right, bottom + 18, "end", f"{length - 1:,}"))
    return svg(640, 194, label, parts)


def _stairs(
    levels: Sequence[float], start: float, step: float, top: float, bottom: float
) -> Iterator[tuple[float, float]]:
    """The corners of a staircase; neighbours of one height need no corner."""
    last = None
    for i, level in enumerate(levels):
        y = bottom - (bottom - top) * level
        if y != last:
            if last is not None:
                yield start + i * step, last
            yield start + i * step, y
        last = y
    if last is not None:
        yield start + len(levels) * step, last


def means(points: Sequence[tuple[int, float]], groups: int) -> list[tuple[float, float]]:
    """The mean step and value of at most `groups` runs of consecutive points."""
    count = min(groups, len(points))
    # runs of nearly equal length, by integer division
    cuts = [i * len(points) // count for i in range(count + 1)] if count else [0]
    runs = [points[a:b] for a, b in pairwise(cuts)]
    return [(sum(x for x, _ in r) / len(r), sum(y for _, y in r) / len(r)) for r in runs]


def curves(series: Mapping[str, Sequence[tuple[int, float]]], label: str) -> Markup:
    """Value over step: the points as a faint line, means of neighbours as a firm one.

    Points that are not finite are not drawn; at least one has to be.
    """
    left = 52
    right = 628
    top = 12
    bottom = 236
    # a loss that is not finite cannot be drawn; the table beside says how many
    drawn = [[point for point in points if isfinite(point[1])] for points in series.values()]
    points = [point for points in drawn for point in points]
    if not points:
        raise ValueError("no finite point to draw")
    across = nice_ticks(0, max(x for x, _ in points), 6)
    up = nice_ticks(min(0, *(y for _, y in points)), max(y for _, y in points), 5)

    def place(x: float, y: float) -> str:
        """SVG coordinates of a point."""
        px = left + (right - left) * x / across[-1]
        return f"{px:.1f},{bottom - (bottom - top) * (y - up[0]) / (up[-1] - up[0]):.1f}"

    parts = []
    for y in up:
        py = bottom - (bottom - top) * (y - up[0]) / (up[-1] - up[0])
        parts += [_line(left, py, right, py, "grid"), _text(left - 7, py + 4, "end", number(y))]
    for x in across:
        px = left + (right - left) * x / across[-1]
        parts.append(_text(px, bottom + 18, "middle", number(x)))
    parts.append(_text((left + right) / 2, bottom + 34, "middle", "step"))
    for i, raw in enumerate(drawn):
        shape = Markup('<polyline points="{}" class="{} line{}"/>')
        # many points are thinned to means: the page stays small
        for kind, line in (("raw", means(raw, _RAW_POINTS)), ("mean", means(raw, _MEANS))):
            places = " ".join(place(x, y) for x, y in line)
            parts.append(shape.format(places, kind, i % COLOURS))
    return svg(640, 276, label, parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """One row of `dots`: a value with its interval, and marks to hold it against by series."""

    name: str
    value: float
    low: float
    high: float
    marks: tuple[float | None, ...]


def dots(scores: Sequence[Dot], label: str) -> Markup:
    """Shares from 0 to 1, one row each: a dot on its interval, ticks for what it has to beat."""
    left = 24 + ceil(7.2 * max(len(score.name) for score in scores))
    right = 624
    row_height = 34
    bottom = 8 + row_height * len(scores)

    def at(value: float) -> float:
        """Where a share lies across."""
        return left + (right - left) * value

    parts = []
    for tenth in range(0, 11, 2):
        x = at(tenth / 10)
        parts += [
            _line(x, 4, x, bottom, "grid"),
            _text(x, bottom + 16, "middle", f"{tenth / 10:g}"),
        ]
    mark = Markup('<rect x="{:.1f}" y="{:.1f}" width="3" height="18" rx="1" class="fill{}"/>')
    dot = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="5.5" class="fill0"/>')
    for i, score in enumerate(scores):
        y = 8 + row_height * (i + 0.5)
        parts.append(_text(left - 10, y + 4, "end", score.name, "name"))
        for s, value in enumerate(score.marks, start=1):
            if value is not None:
                parts.append(mark.format(at(value) - 1.5, y - 9, s % COLOURS))
        parts.append(_line(at(score.low), y, at(score.high), y, "span line0"))
        parts.append(dot.format(at(score.value), y))
    return svg(640, bottom + 24, label, parts)
