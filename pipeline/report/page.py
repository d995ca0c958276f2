"""The datasheet of a build, and sections about training and scores: one HTML file for people.

write_report    one build's page, OUT/report.html
write_failure   the same of a build that ended with an error
write_page      any sections as a page, for reports that hold several builds and a training run
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import isfinite

import pyarrow as pa
from markupsafe import Markup

from pipeline.report import charts
from pipeline.report.build_data import load_build
from pipeline.report.html import Section, section, write_page
from pipeline.report.sections import (
    books_section,
    build_sections,
    build_summary,
    sections_of,
)
from shards.outcome import CODES, Books

__all__ = [
    "PlantedRow",
    "ScoreRow",
    "Section",
    "build_sections",
    "curves_section",
    "planted_section",
    "scores_section",
    "write_failure",
    "write_page",
    "write_report",
]


def write_report(out: str, pool_url: str) -> str:
    """Write the page about the build in `out`; returns its path. UserError if there is no build."""
    build = load_build(out, pool_url)
    path = f"{out.rstrip('/')}/report.html"
    write_page(path, build.name, sections_of(build), build_summary(build))
    return path


def write_failure(
    out: str,
    name: str,
    message: str,
    books: Sequence[Books],
    refusals: pa.Table,
    licences: Mapping[str, str],
) -> None:
    """Write the page of a build that ended with an error: what it was, and the books so far."""
    note = "The counts below go as far as the build did."
    facts = [("error", line) for line in message.split("\n")]
    ended = section("The build ended with an error", note, "facts", group=name, facts=facts)
    accounts = books_section(books, refusals.to_pylist(), licences, name)
    summary = [("refused", f"{len(refusals):,}")]
    write_page(f"{out.rstrip('/')}/report.html", name, [ended, accounts], summary)


def curves_section(
    title: str, series: Mapping[str, Sequence[tuple[int, float]]], note: str
) -> Section:
    """Loss curves: for each name its (step, loss) points in the order of steps."""
    rows = [_curve(name, points) for name, points in series.items()]
    # a run that diverged at once has no finite loss
    drawable = any(isfinite(loss) for points in series.values() for _, loss in points)
    told = "; ".join(f"{row['name']} ends at {row['last']}" for row in rows)
    chart = charts.curves(series, f"{title}: {told}") if drawable else Markup("")
    return section(title, note, "curves", chart=chart, rows=rows)


def _curve(name: str, points: Sequence[tuple[int, float]]) -> dict[str, str | int]:
    """What is said of one curve beside its line; the last value is a mean of its last tenth."""
    # the last tenth: a single step's loss says little
    tail = [loss for _, loss in points[-max(1, len(points) // 10) :]]
    return {
        "name": name,
        "points": len(points),
        "first": f"{points[0][1]:.4f}" if points else "none",
        "last": f"{sum(tail) / len(tail):.4f}" if tail else "none",
        "broken": sum(not isfinite(loss) for _, loss in points),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRow:
    """Accuracy on one question type, its Wilson interval, and what it has to beat by name.

    `floors` maps a floor's name (majority, no vision, slow only, fast only) to its accuracy.
    """

    name: str
    count: int
    accuracy: float
    low: float
    high: float
    floors: Mapping[str, float]


def scores_section(title: str, scores: Sequence[ScoreRow], note: str) -> Section:
    """Accuracy by question type beside its floors, as a chart and as a table."""
    floors = list(dict.fromkeys(chain.from_iterable(row.floors for row in scores)))
    dots = [
        charts.Dot(
            name=row.name,
            value=row.accuracy,
            low=row.low,
            high=row.high,
            marks=tuple(row.floors.get(name) for name in floors),
        )
        for row in scores
    ]
    told = "; ".join(f"{row.name} {row.accuracy:.2f}" for row in scores)
    chart = charts.dots(dots, f"{title}: {told}")
    return section(title, note, "scores", chart=chart, rows=scores, floors=floors)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedRow:
    """Trouble that was put into a source on purpose; codes are empty where it is to be kept."""

    what: str
    source: str
    record: str
    expected: str
    code: str

    @property
    def is_right(self) -> bool:
        """Whether the code is the expected one, or none was expected and none came."""
        return self.expected == self.code


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """How many planted things were expected to be refused, were so rightly, and were so wrongly."""

    expected: int
    true_positives: int
    false_positives: int

    @property
    def precision(self) -> float:
        """Rightly refused among the refused."""
        positives = self.true_positives + self.false_positives
        return self.true_positives / positives if positives else 1.0

    @property
    def recall(self) -> float:
        """Rightly refused among those to be refused."""
        return self.true_positives / self.expected if self.expected else 1.0


def recall_of(planted: Sequence[PlantedRow]) -> Recall:
    """Count the rows; a refusal under another code than expected is a false one."""
    # a refusal under the wrong code is neither found nor harmless
    return Recall(
        expected=sum(bool(row.expected) for row in planted),
        true_positives=sum(row.is_right and bool(row.code) for row in planted),
        false_positives=sum(not row.is_right and bool(row.code) for row in planted),
    )


def planted_section(title: str, planted: Sequence[PlantedRow], note: str) -> Section:
    """Planted trouble: the code expected, the code found, and what that adds up to."""
    return section(title, note, "planted", rows=planted, total=recall_of(planted), meanings=CODES)
