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


def tell(console: Console, found: Survey) -> None:
    """Counts of every source, what is wrong with them, and records as they will be read."""
    rows = [[one.name, one.format, *_counts(one)] for one in found.sources]
    console.print(fitting(console, ["source", "format", *COUNTS], rows))
    for line in _remarks(found):
        console.print(line, soft_wrap=True)
    for source in found.sources:
        for record in source.shown[: -(-_EXAMPLES // len(found.sources))]:
            console.print(f"\n{source.name}: {record.record}", soft_wrap=True)
            names = [ref.name or ref.url or f"embedded {ref.kind}" for ref in record.media]
            console.print(table(lines(record.turns, names)))


def _counts(one: Surveyed) -> list[str]:
    more = "" if one.whole else "+"
    refused = sum(count for count, _ in one.refused.values())
    counts = (refused, one.images, one.videos, len(one.missing))
    return [f"{one.read}{more}", *map(str, counts)]


def _remarks(found: Survey) -> Iterator[str]:
    """What a person should know before building."""
    for one in found.sources:
        for code, (count, example) in one.refused.items():
            yield f"{one.name}: {count} {code} ({CODES[code]}; e.g. {example})"
        if one.missing and one.media:
            yield f"{one.name}: {one.media} lacks {len(one.missing)}, e.g. {one.missing[0]!r}"
        elif one.missing and not found.archives:
            yield f"{one.name}: no file is called like any of its media, e.g. {one.missing[0]!r}"
        if not one.whole:
            yield f"{one.name}: the first {MOST_RECORDS} records alone were looked at"
    for one in apart(found)[1]:
        yield f"{one.name}: named like evaluation data, so it is held out of training"
    for name, why in found.unread:
        yield f"{name}: {why}"


def as_json(found: Survey, recipe: Path, tokenizer: str) -> dict[str, Any]:
    """The same as one JSON value."""
    return {
        "recipe": str(recipe),
        "tokenizer": tokenizer,
        "sources": [_source(one) for one in found.sources],
        "held_out": [one.name for one in apart(found)[1]],
        "archives": list(found.archives),
        "unread": [{"file": name, "why": why} for name, why in found.unread],
    }


def _source(one: Surveyed) -> dict[str, Any]:
    return {
        "name": one.name,
        "format": one.format,
        "columns": {meaning: list(names) for meaning, names in one.columns},
        "annotations": one.annotations,
        "media": one.media,
        "records": one.read,
        "whole": one.whole,
        "refused": {code: count for code, (count, _) in one.refused.items()},
        "images": one.images,
        "videos": one.videos,
        "missing": list(one.missing),
        "first": [
            {"record": record.record, "turns": turns_to_json(record.turns)} for record in one.shown
        ],
    }
