"""The sections of one build's datasheet."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from fractions import Fraction
from statistics import median
from typing import Any

import numpy as np

from pipeline.report import charts
from pipeline.report.build_data import WINDOW, Build, Share, load_build, reasons, shares, windowed
from pipeline.report.charts import number
from pipeline.report.clip_sections import duplicates, examples, leaks
from pipeline.report.html import Section, percent, section, size
from pipeline.report.remedies import REMEDIES
from shards.outcome import CODES, Books

_DETAILS = 20


def build_sections(out: str, pool_url: str) -> list[Section]:
    """The sections of one build, each under the name of its recipe."""
    return sections_of(load_build(out, pool_url))


def sections_of(build: Build) -> list[Section]:
    """`build_sections` of a build that is already read."""
    makers = (identity, books, ratio, examples, duplicates, leaks, histograms, licences)
    return [make(build) for make in makers]


def build_summary(build: Build) -> list[tuple[str, str]]:
    """What a page about this build says first."""
    # refused records never became samples: both are what was read
    read = sum(account.samples + account.records_refused for account in build.books)
    rows = _shares(build)
    return [
        ("samples and records read", number(read)),
        ("refused", number(len(build.refused))),
        ("chosen", number(len(build.chosen))),
        ("positions drawn", number(len(build.source_at))),
        ("samples off the ratio, at most", f"{float(max(s.prefix for s in rows)):.2f}"),
    ]


def _shares(build: Build) -> list[Share]:
    stages = build.manifest.contents.schedule.stages
    parts = [(stage.start, stage.shares) for stage in stages]
    return shares(build.manifest.names, parts, build.source_at)


def identity(build: Build) -> Section:
    """What was built, of what, and with which tools."""
    clips = build.chosen_clips
    stored = sum(row["extent"] for row in clips)
    totals = asdict(build.manifest.contents.totals)
    facts = [
        ("recipe", build.name),
        ("manifest_id", build.manifest.manifest_id),
        ("folder", build.out),
        ("pool", build.pool.store.url),
        ("drawn in all", _listed({name: number(n) for name, n in totals.items()})),
        ("shards", number(build.shards)),
        ("chosen", f"samples {number(len(build.chosen))}, clips {number(len(clips))}"),
        ("their clips", f"{size(stored)}, frames {number(_frame_count(clips))}"),
        ("media profile", _listed(build.pool.profile.to_json())),
        ("frames shown", _listed(asdict(build.manifest.view))),
        ("held out", ", ".join(build.manifest.contents.recipe.held_out) or "nothing"),
        *(("decoded by", tools) for tools in build.tools),
    ]
    note = "The same manifest gives the same samples in the same order, on any number of machines."
    return section("What this is", note, "facts", group=build.name, facts=facts)


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _frame_count(rows: Sequence[Mapping[str, Any]]) -> int:
    return sum(len(row["pts"]) for row in rows)


def books(build: Build) -> Section:
    """The accounts of every source and the reasons of its refusals."""
    licence = {source.name: source.licence for source in build.manifest.contents.sources}
    return books_section(build.books, build.refused, licence, build.name)


def books_section(
    books: Sequence[Books],
    refusals: Sequence[dict[str, Any]],
    licence: Mapping[str, str],
    group: str,
) -> Section:
    """The accounts of every source beside the refusals (rows of REFUSED) that explain them."""
    # the refusals are counted anew from their table, and held against the books
    written = Counter(row["source"] for row in refusals)
    accounts = [
        {
            "books": account,
            "balances": account.chosen == account.admitted - account.not_chosen
            and written[account.source]
            == account.records_refused + account.samples_refused + account.not_chosen,
            "reasons": reasons(refusals, account.source, _DETAILS),
        }
        for account in books
    ]
    note = (
        "What was read equals what was kept plus what was refused, source by source. "
        "Every refusal is a row of refused.parquet."
    )
    return section(
        "Sources and their books",
        note,
        "books",
        group=group,
        accounts=accounts,
        licence=licence,
        meanings=CODES,
        remedies=REMEDIES,
    )


def ratio(build: Build) -> Section:
    """Requested against realised shares, over the draw order."""
    rows = _shares(build)
    length = len(build.source_at)
    requested = [float(share.requested) for share in rows]
    told = "; ".join(f"{s.source} {percent(s.realised)}" for s in rows)
    chart = charts.bands(
        windowed(build.source_at, len(rows)), requested, length, f"Realised shares: {told}"
    )
    note = (
        "Shares of the manifest against the index of the shards. Deviations count samples: the "
        # the bound of the schedule: see mixtures.order.schedule
        f"furthest that any prefix, and any window of {WINDOW} positions, strays from its exact "
        "share, in each stage of the schedule. The promise is 1 for prefixes and 2 for windows."
    )
    return section(
        "Requested and realised ratio",
        note,
        "ratio",
        group=build.name,
        shares=rows,
        chart=chart,
        window=min(WINDOW, length),
    )


def histograms(build: Build) -> Section:
    """Distributions over the chosen samples and their clips."""
    clips = build.chosen_clips
    videos = [row for row in clips if row["kind"] == "video"]
    samples = [build.samples[name] for name in build.chosen]
    tokens = np.concatenate([table["tokens"] for table in build.manifest.tables]).tolist()
    # chosen samples and clips once each, however often they are drawn
    distributions: list[tuple[str, str, Sequence[float]]] = [
        ("Duration of videos", "s", [float(Fraction(*row["duration"])) for row in videos]),
        ("Frame rate of videos", "fps", [float(Fraction(*row["source_fps"])) for row in videos]),
        ("Longer side of originals", "px", [max(row["source_size"]) for row in clips]),
        ("Frames kept per video", "", [len(row["pts"]) for row in videos]),
        ("Turns per sample", "", [row["num_turns"] for row in samples]),
        ("Tokens per sample", "", tokens),
    ]
    charted = [_histogram(*named_values) for named_values in distributions if named_values[2]]
    note = "Over the samples that were chosen, each once, and the clips they name, each once."
    return section("Distributions", note, "histograms", group=build.name, charts=charted)


def _histogram(title: str, unit_name: str, values: Sequence[float]) -> dict[str, Any]:
    low, middle, high = (number(f(values)) for f in (min, median, max))
    line = (
        f"{number(len(values))} in all, median {middle}, from {low} to {high} {unit_name}".rstrip()
    )
    rounded = [round(value, 3) for value in values]
    return {"title": title, "line": line, "chart": charts.histogram(rounded, f"{title}: {line}")}


def licences(build: Build) -> Section:
    """Samples by licence, and the sources that state it."""
    sources: dict[str, set[str]] = defaultdict(set)
    chosen, drawn = Counter[str](), Counter[str]()
    for name in build.chosen:
        licence = build.samples[name]["licence"]
        sources[licence].add(name[0])
        chosen[licence] += 1
        drawn[licence] += build.drawn[name]
    rows = [
        (licence, sorted(sources[licence]), chosen[licence], drawn[licence])
        for licence in sorted(sources)
    ]
    note = "As each source's recipe entry states them; read them before you publish what you train."
    return section(
        "Licences", note, "licences", group=build.name, rows=rows, total=max(1, sum(drawn.values()))
    )
