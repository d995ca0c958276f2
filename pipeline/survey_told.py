"""What `python -m pipeline init` says of a folder, for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mixtures.console import Console, fitting
from pipeline.conversation import lines, table
from pipeline.first_recipe import apart
from pipeline.survey import MOST_RECORDS, Survey, Surveyed
from shards.outcome import CODES
from shards.sample import turns_to_json

COUNTS = ("records", "refused", "images", "videos", "missing")
_EXAMPLES = 3


def tell(console: Console, survey: Survey) -> None:
    """Counts of every source, what is wrong with them, and records as they will be read."""
    rows = [[surveyed.name, surveyed.format, *_counts(surveyed)] for surveyed in survey.sources]
    console.print(fitting(console, ["source", "format", *COUNTS], rows))
    for line in _remarks(survey):
        console.print(line, soft_wrap=True)
    for surveyed in survey.sources:
        for record in surveyed.shown[: -(-_EXAMPLES // len(survey.sources))]:
            console.print(f"\n{surveyed.name}: {record.record}", soft_wrap=True)
            names = [ref.name or ref.url or f"embedded {ref.kind}" for ref in record.media]
            console.print(table(lines(record.turns, names)))


def _counts(surveyed: Surveyed) -> list[str]:
    more = "" if surveyed.whole else "+"
    refused = sum(count for count, _ in surveyed.refused.values())
    counts = (refused, surveyed.images, surveyed.videos, len(surveyed.missing))
    return [f"{surveyed.read}{more}", *map(str, counts)]


def _remarks(survey: Survey) -> Iterator[str]:
    """What a person should know before building."""
    for surveyed in survey.sources:
        for code, (count, example) in surveyed.refused.items():
            yield f"{surveyed.name}: {count} {code} ({CODES[code]}; e.g. {example})"
        example = surveyed.missing[0] if surveyed.missing else ""
        if surveyed.missing and surveyed.media:
            lacks = f"lacks {len(surveyed.missing)}, e.g. {example!r}"
            yield f"{surveyed.name}: {surveyed.media} {lacks}"
        elif surveyed.missing and not survey.archives:
            yield f"{surveyed.name}: no file is called like any of its media, e.g. {example!r}"
        if not surveyed.whole:
            yield f"{surveyed.name}: the first {MOST_RECORDS} records alone were looked at"
    for surveyed in apart(survey)[1]:
        yield f"{surveyed.name}: named like evaluation data, so it is held out of training"
    for name, why in survey.unread:
        yield f"{name}: {why}"


def as_json(survey: Survey, recipe: Path, tokenizer: str) -> dict[str, Any]:
    """The same as one JSON value."""
    return {
        "recipe": str(recipe),
        "tokenizer": tokenizer,
        "sources": [_source(surveyed) for surveyed in survey.sources],
        "held_out": [surveyed.name for surveyed in apart(survey)[1]],
        "archives": list(survey.archives),
        "unread": [{"file": name, "why": why} for name, why in survey.unread],
    }


def _source(surveyed: Surveyed) -> dict[str, Any]:
    return {
        "name": surveyed.name,
        "format": surveyed.format,
        "columns": {meaning: list(names) for meaning, names in surveyed.columns},
        "annotations": surveyed.annotations,
        "media": surveyed.media,
        "records": surveyed.read,
        "whole": surveyed.whole,
        "refused": {code: count for code, (count, _) in surveyed.refused.items()},
        "images": surveyed.images,
        "videos": surveyed.videos,
        "missing": list(surveyed.missing),
        "first": [
            {"record": record.record, "turns": turns_to_json(record.turns)}
            for record in surveyed.shown
        ],
    }
