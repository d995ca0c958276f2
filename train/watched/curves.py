"""The curves of a run, in the terminal and as one HTML page that needs no network."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.errors import UserError
from train.json_files import HELD_OUT, METRICS

PAGE = "watch.html"
CURVES = ("loss", "grad_norm", "tokens_per_second", "mfu", "fill", "memory_bytes")
_BARS = "▁▂▃▄▅▆▇█"
_WIDTH, _HEIGHT = 720.0, 180.0
_STYLE = (
    "body{font:14px system-ui,sans-serif;margin:2em auto;max-width:760px;color:#222}"
    "svg{background:#fafafa;border:1px solid #ddd}h2{font-size:15px;margin:1.4em 0 .3em}"
    "polyline{fill:none;stroke-width:1.5}small{color:#666}"
)
_COLOURS = ("#1f6fb4", "#d1570e", "#2a8f3c", "#8b3fb0", "#b02a3f", "#5f6a72")


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A figure over steps; what was not finite is left out."""

    name: str
    points: tuple[tuple[int, float], ...]


def watch(out: Path, width: int) -> str:
    """Write OUT/watch.html; the same curves as text of so many columns."""
    curves = curves_of(out)
    page = out / PAGE
    temporary = page.with_name(f".{PAGE}.tmp")
    temporary.write_text(page_of(out, curves))
    # a browser that reloads sees the old page or the new one
    temporary.replace(page)
    return "\n".join([*(in_terminal(curve, width) for curve in curves), f"page {page}"])


def curves_of(out: Path) -> list[Curve]:
    """What a run's logs hold; UserError if there are none."""
    rows = _rows(out / METRICS)
    if not rows:
        raise UserError(f"{out}: no {METRICS} with a step in it; give the --out of a run")
    curves = [_curve(name, [(row["step"], row.get(name)) for row in rows]) for name in CURVES]
    curves += _by_source("loss", rows)
    # every trained part has a rate of its own: lr_tower, lr_projector, lr_decoder
    rates = sorted(name for name in rows[-1] if name.startswith("lr_"))
    curves += [_curve(name, [(row["step"], row.get(name)) for row in rows]) for name in rates]
    held_out_rows = _rows(out / HELD_OUT)
    curves.append(_curve("held-out loss", [(row["step"], row["loss"]) for row in held_out_rows]))
    curves += _by_source("held-out loss", held_out_rows)
    return [curve for curve in curves if curve.points]


def in_terminal(curve: Curve, width: int) -> str:
    """One line: the name, first and last value, and bars, each the mean of a stretch of steps."""
    values = [value for _, value in curve.points]
    # 50 columns are name and two values; so many bars at least, also in a narrow terminal
    room = max(width - 50, 8)
    # ceiling division: a bar stands for so many steps
    size = -(-len(values) // room)
    means = [_mean(values[start : start + size]) for start in range(0, len(values), size)]
    low, high = min(means), max(means)
    share = [(value - low) / (high - low) if high > low else 0.0 for value in means]
    bars = "".join(_BARS[round(one * (len(_BARS) - 1))] for one in share)
    return f"{curve.name[:24]:24} {values[0]:>11.5g} {values[-1]:>11.5g} {bars}"


def page_of(out: Path, curves: Sequence[Curve]) -> str:
    """One HTML page: a drawing for each curve, no script, no address."""
    drawn = "".join(_drawing(curve, _COLOURS[n % len(_COLOURS)]) for n, curve in enumerate(curves))
    last = curves[0].points[-1][0]
    title = html.escape(str(out))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style><h1>{title}</h1><p>step {last}</p>{drawn}</html>\n"
    )


def _drawing(curve: Curve, colour: str) -> str:
    steps, values = zip(*curve.points, strict=True)
    low, high = min(values), max(values)
    # a single step or a constant curve has no extent to divide by
    wide = max(steps[-1] - steps[0], 1)
    tall = (high - low) or 1.0
    points = " ".join(
        f"{(step - steps[0]) / wide * _WIDTH:.1f},{_HEIGHT - (value - low) / tall * _HEIGHT:.1f}"
        for step, value in curve.points
    )
    name = html.escape(curve.name)
    return (
        f"<h2>{name}</h2><small>{low:.5g} to {high:.5g}, last {values[-1]:.5g}, steps {steps[0]} "
        f'to {steps[-1]}</small><br><svg width="{_WIDTH:.0f}" height="{_HEIGHT:.0f}" role="img" '
        f'aria-label="{name}"><polyline stroke="{colour}" points="{points}"/></svg>'
    )


def _by_source(name: str, metrics: Sequence[dict[str, Any]]) -> list[Curve]:
    """A curve for each source that is in one of the rows."""
    told = [(row["step"], row.get("by_source", {})) for row in metrics]
    sources = sorted({source for _, means in told for source in means})
    return [_curve(f"{name}, {s}", [(step, means.get(s)) for step, means in told]) for s in sources]


def _curve(name: str, points: Sequence[tuple[int, Any]]) -> Curve:
    return Curve(name=name, points=tuple((s, float(v)) for s, v in points if v is not None))


def _mean(points: Sequence[float]) -> float:
    return sum(points) / len(points)


def _rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a log, but for one that is being written."""
    if not path.is_file():
        return []
    text = path.read_text()
    # the run may be writing: its last line may be half
    whole = text[: text.rfind("\n") + 1]
    return [json.loads(line) for line in whole.splitlines()]
