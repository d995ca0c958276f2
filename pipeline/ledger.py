"""What is done and what is still to do: read from receipts, never from the order of events."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from typing import Any

from shards.index import MEDIA, REFUSED
from shards.pool import Pool, Receipt

IMAGES_PER_PART = 128
VIDEOS_PER_PART = 16


def wanted_media(pool: Pool, admitted: Sequence[Receipt]) -> list[dict[str, Any]]:
    """The media that these admissions name, each once, in the order of the clip ids."""
    rows = pool.table(admitted, "index/media", MEDIA).to_pylist()
    by_id = {row["clip_id"]: row for row in reversed(rows)}
    return [by_id[name] for name in sorted(by_id)]


def users(pool: Pool, admitted: Mapping[str, Receipt]) -> dict[str, set[str]]:
    """The sources that name each clip."""
    found: dict[str, set[str]] = defaultdict(set)
    for name, receipt in admitted.items():
        for clip in pool.table([receipt], "index/media", MEDIA)["clip_id"].to_pylist():
            found[clip].add(name)
    return found


def outcomes(pool: Pool, receipts: Sequence[Receipt]) -> dict[str, str]:
    """Clip id -> the code of its refusal, or "" if it was decoded, under these receipts."""
    found = {name: "" for receipt in receipts for name in receipt.inputs}
    table = pool.table([each for each in receipts if each.counts["refused"]], "refused", REFUSED)
    return found | dict(zip(table["key"].to_pylist(), table["code"].to_pylist(), strict=True))


def units(rows: Iterable[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], ...]]:
    """Media in units of work: one kind each, media of one archive together, a bounded number."""
    ordered = sorted(rows, key=lambda row: (row["kind"], row["address"], row["clip_id"]))
    for kind, group in groupby(ordered, key=lambda row: str(row["kind"])):
        while unit := tuple(islice(group, per_part(kind))):
            yield unit


def per_part(kind: str) -> int:
    """How many media of a kind are decoded together, into one part."""
    return IMAGES_PER_PART if kind == "image" else VIDEOS_PER_PART
