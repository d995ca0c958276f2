"""Contamination, counted: samples that match evaluation data, by benchmark."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """How many samples match a benchmark by their media and by their text."""

    benchmark: str
    media: int = 0
    media_refused: int = 0
    text: int = 0
    text_refused: int = 0


class MatchRow(TypedDict):
    """A row of shards.index.MATCHES: a sample that shows or asks what a benchmark does.

    `kind` is media or text; `code` is why the sample is refused, "" where it is only flagged.
    """

    source: str
    key: str
    kind: str
    benchmark: str
    judged: str
    held_out: str
    relation: str
    code: str


def by_benchmark(matches: Sequence[MatchRow]) -> list[Matched]:
    """Samples that match each benchmark, and how many of them are refused, for whatever reason."""
    samples: dict[str, dict[str, set[tuple[str, str]]]] = defaultdict(lambda: defaultdict(set))
    for match in matches:
        name = (match["source"], match["key"])
        kind = match["kind"]
        # a set of samples: one that matches by two clips counts once
        samples[match["benchmark"]][kind].add(name)
        if match["code"]:
            samples[match["benchmark"]][f"{kind}_refused"].add(name)
    return [
        Matched(benchmark=benchmark, **{kind: len(names) for kind, names in of.items()})
        for benchmark, of in sorted(samples.items())
    ]
