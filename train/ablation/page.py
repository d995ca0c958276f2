"""DIR/report.html: an ablation as one page for people, without network or other files.

What it shows was computed before; the templates hold markup, and the script sorts and filters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from shards.store import Store
from train.ablation.ablate import Ablation, read_ablation
from train.ablation.attention_plot import plots, told
from train.ablation.comparisons import HELD_OUT, Comparison, comparisons, measures_of
from train.ablation.examples import examples_of
from train.ablation.results import Result
from train.ablation.tables import notes
from train.run_folder.record import code_digest

PAGE = "report.html"
COLOURS = 8
_WIDE, _TALL = 760.0, 260.0
_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def write_page(out: Path, *, attend: bool = False) -> Path:
    """Write or replace the page about the ablation in `out`; UserError where there is none. With
    `attend` its examples show where the models attend, which asks them again."""
    ablation, results = read_ablation(out)
    compared = comparisons(results, ablation.names)
    page = _ENVIRONMENT.get_template("page.html").render(
        title=ablation.grid,
        ablation=ablation,
        runs=len(ablation.runs),
        ended=sum(not result.diverged for result in results),
        seeds=len({seed for _, seed, _ in ablation.runs}),
        rows=list(difference_rows(compared)),
        parts=list(dict.fromkeys(comparison.measure for comparison in compared)),
        variants=list(variant_rows(ablation, results)),
        notes=list(notes(results, code_digest())),
        curves=curves(ablation, results),
        scores=list(score_rows(ablation, results)),
        losses=list(loss_rows(ablation, results)),
        examples=examples_of(out, ablation, attend=attend),
        plots=plots,
        told=told,
        colours=COLOURS,
    )
    Store(out).put(PAGE, page.encode())
    return out / PAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class DifferenceRow:
    """A comparison, and its interval drawn on the scale of its measure."""

    comparison: Comparison
    low: float | None
    high: float | None
    plot: Markup


def difference_rows(compared: Sequence[Comparison]) -> Iterator[DifferenceRow]:
    """Comparisons with their plots; those of one measure share a scale around 0."""
    for comparison in compared:
        same_measure = [other for other in compared if other.measure == comparison.measure]
        # intervals of two seeds are so wide that they would hide all differences
        reach = max(max(map(abs, other.difference.by_seed)) for other in same_measure) * 1.6 or 1.0
        low, high = comparison.difference.interval or (None, None)
        yield DifferenceRow(
            comparison=comparison, low=low, high=high, plot=interval_plot(comparison, reach)
        )


def interval_plot(comparison: Comparison, reach: float) -> Markup:
    """The mean, its 95 % interval (an arrow where it goes on) and the difference of each seed."""
    width, middle = 240.0, 120.0

    def at(value: float) -> float:
        return middle + max(min(value / reach, 1.0), -1.0) * (middle - 6)

    low, high = comparison.difference.interval or (comparison.difference.mean,) * 2
    label = (
        f"{comparison.variant}: {comparison.difference.mean:+.4f}, from {low:+.4f} to {high:+.4f}"
    )
    marks = [
        Markup('<line class="zero" x1="{0}" y1="0" x2="{0}" y2="26"/>').format(middle),
        Markup('<line class="span" x1="{:.1f}" y1="13" x2="{:.1f}" y2="13"/>').format(
            at(low), at(high)
        ),
    ]
    ends = [
        ("2,13 9,8 9,18", low < -reach),
        (f"{width - 2},13 {width - 9},8 {width - 9},18", high > reach),
    ]
    marks += [Markup('<polygon class="on" points="{}"/>').format(p) for p, beyond in ends if beyond]
    marks += [
        Markup('<circle class="seed" cx="{:.1f}" cy="13" r="2.5"/>').format(at(value))
        for value in comparison.difference.by_seed
    ]
    marks.append(
        Markup('<circle class="dot" cx="{:.1f}" cy="13" r="5"/>').format(
            at(comparison.difference.mean)
        )
    )
    start = Markup('<svg class="plot" viewBox="0 0 240 26" role="img" aria-label="{}">').format(
        label
    )
    return start + Markup("").join(marks) + Markup("</svg>")


def variant_rows(ablation: Ablation, results: Sequence[Result]) -> Iterator[dict[str, Any]]:
    """What each variant changes, what that does to the data, and what it costs."""
    for number, variant in enumerate(ablation.variants):
        runs = [
            result for result in results if result.variant == variant.name and not result.diverged
        ]
        yield {
            "name": variant.name,
            "colour": number % COLOURS,
            "changes": variant.changes,
            "differs": variant.differs,
            "runs": len(runs),
            "tokens": fmean([run.tokens for run in runs]) if runs else None,
            "tflop": fmean([float(run.flops) for run in runs]) / 1e12 if runs else None,
            "seconds": fmean([float(run.seconds) for run in runs]) if runs else None,
        }


def curves(ablation: Ablation, results: Sequence[Result]) -> Markup:
    """The training loss of every run over supervised tokens, a colour for each variant."""
    drawn = [
        (result, [(s, float(v)) for s, v in result.losses]) for result in results if result.losses
    ]
    if not drawn:
        return Markup("")
    steps = max(points[-1][0] for _, points in drawn)
    values = [value for _, points in drawn for _, value in points]
    low, high = min(values), max(values)
    lines = []
    for result, points in drawn:
        spelled = " ".join(
            f"{step / steps * _WIDE:.1f},{_TALL - (value - low) / ((high - low) or 1) * _TALL:.1f}"
            for step, value in points
        )
        shape = Markup(
            '<polyline data-variant="{}" class="line{}" points="{}">'
            "<title>{}, seed {}</title></polyline>"
        )
        colour = ablation.names.index(result.variant) % COLOURS
        lines.append(shape.format(result.variant, colour, spelled, result.variant, result.seed))
    texts = (
        Markup('<text x="2" y="{}">{:.3f}</text>').format(y, value)
        for y, value in ((12, high), (_TALL - 4, low))
    )
    last = Markup('<text x="{}" y="{}" text-anchor="end">step {}</text>')
    marks = [*lines, *texts, last.format(_WIDE - 2, _TALL - 4, steps)]
    label = f"training loss of {len(drawn)} runs over {steps} steps, from {low:.3f} to {high:.3f}"
    start = Markup(
        '<svg class="curves" viewBox="-4 -4 768 268" role="img" aria-label="{}">'
    ).format(label)
    return start + Markup("").join(marks) + Markup("</svg>")


def score_rows(ablation: Ablation, results: Sequence[Result]) -> Iterator[dict[str, Any]]:
    """The mean score of each variant on each set, beside its floors."""
    for variant in ablation.names:
        own = [one for one in results if one.variant == variant and not one.diverged]
        for name in dict.fromkeys(name for one in own for name in one.asked):
            there = [one for one in own if name in one.asked]
            floors = {how for one in there for how in one.asked[name].floors}
            yield {
                "variant": variant,
                "set": name,
                "score": fmean(measures_of(one)[name, ""].mean for one in there),
                "floors": {
                    how: fmean(float(one.asked[name].floors[how]) for one in there)
                    for how in sorted(floors)
                },
            }


def loss_rows(ablation: Ablation, results: Sequence[Result]) -> Iterator[dict[str, Any]]:
    """The held-out loss of each variant by source, means over seeds."""
    for variant in ablation.names:
        own = [measures_of(one) for one in results if one.variant == variant and not one.diverged]
        for name, part in dict.fromkeys(key for one in own for key in one):
            if name == HELD_OUT:
                values = [one[name, part].mean for one in own if (name, part) in one]
                yield {"variant": variant, "source": part or "all", "loss": fmean(values)}
