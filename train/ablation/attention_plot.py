"""Small bars over time: how much of a reply's attention lies on each slow and each fast frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from mixtures.tokens.layout_types import FAST, IMAGE, SLOW
from train.evaluation.attended import AttendedFrame

_WIDE, _ROW = 200.0, 22.0
_ROWS = {SLOW: 0, IMAGE: 0, FAST: 1}
"""Slow frames, and images, stand above fast frames."""


def plots(attended: Mapping[str, Sequence[AttendedFrame]]) -> dict[str, Markup]:
    """A plot for each name, all on one scale of shares and of times; those without frames have
    none."""
    frames = [frame for some in attended.values() for frame in some]
    # of text alone nothing is drawn
    if not frames:
        return {}
    most, last = max(one.share for one in frames), max(one.seconds for one in frames)
    return {name: plot(some, most or 1.0, last) for name, some in attended.items() if some}


def plot(frames: Sequence[AttendedFrame], most: float, last: float) -> Markup:
    """One row of bars for each pathway; the highest possible is `most`, the last at `last` s."""
    bar = Markup(
        '<rect class="{}" x="{:.1f}" y="{:.1f}" width="4" height="{:.1f}">'
        "<title>{} {:.1f} s: {:.1%}</title></rect>"
    )
    # a bar stands at its frame's time, on the ground of its row
    bars = Markup("").join(
        bar.format(
            one.pathway,
            one.seconds / (last or 1.0) * (_WIDE - 4),
            (_ROWS[one.pathway] + 1 - one.share / most) * _ROW,
            one.share / most * _ROW,
            one.pathway,
            one.seconds,
            one.share,
        )
        for one in frames
    )
    start = Markup(
        '<svg class="attended" viewBox="0 0 200 44" preserveAspectRatio="none" role="img" '
        'aria-label="{}">'
    )
    return start.format(f"attention: {told(frames)}") + bars + Markup("</svg>")


def told(frames: Sequence[AttendedFrame]) -> str:
    """The share of each pathway: `slow 28 %, fast 45 %`."""
    shares = {name: sum(f.share for f in frames if f.pathway == name) for name in _ROWS}
    return ", ".join(f"{name} {share * 100:.0f} %" for name, share in shares.items() if share)
