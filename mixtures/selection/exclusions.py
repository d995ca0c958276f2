"""Take-downs: media, addresses and records that a recipe's `exclude` file names are never drawn.

The file holds one JSON object a line: {"media": sha256 of the original bytes}, {"url": address} or
{"record": id}, the latter with {"source": name} where only that source is meant.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mixtures.manifest.contents import ExclusionList
from mixtures.pool.columns import Clips, admitted_rows
from mixtures.selection.filter_decisions import FilterDecisions
from shards.errors import UserError
from shards.id_arrays import find, ids_of
from shards.ids import canonical_json, sha256_hex
from shards.index import MEDIA
from shards.pool import Pool, Receipt

_DIGEST = re.compile(r"[0-9a-f]{64}")
_KEYS = ({"media"}, {"url"}, {"record"}, {"record", "source"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusions:
    """What is excluded: digests of media, addresses, (source or "", record id)."""

    media: frozenset[str]
    urls: frozenset[str]
    records: frozenset[tuple[str, str]]

    def digest(self) -> ExclusionList:
        """What a manifest remembers: how many entries, and the sha256 of them, in order."""
        # sorted, so that the digest hangs on the entries and not on their order
        records = [list(one) for one in sorted(self.records)]
        parts = {"media": sorted(self.media), "urls": sorted(self.urls), "records": records}
        count = len(self.media) + len(self.urls) + len(records)
        return ExclusionList(entries=count, sha256=sha256_hex(canonical_json(parts)))

    def unmatched(self, met: Sequence[Exclusions]) -> str:
        """How many entries are in none of `met`, and the first of them; nothing where all are."""
        left: list[dict[str, str]] = []
        for name, own, others in (
            ("media", self.media, [one.media for one in met]),
            ("url", self.urls, [one.urls for one in met]),
        ):
            left += [{name: value} for value in sorted(own.difference(*others))]
        records = self.records.difference(*(one.records for one in met))
        left += [{"source": name, "record": record} for name, record in sorted(records)]
        if not left:
            return ""
        first = {name: value for name, value in left[0].items() if value}
        count = f"{len(left)} of {self.digest().entries} entries name nothing that was admitted"
        return f"exclude: {count}, as {json.dumps(first)}"


def read_exclusions(path: Path) -> Exclusions:
    """The entries of a file; UserError names the line that is none."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); exclude: must name a file") from error
    entries = [_entry(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line]
    return Exclusions(
        media=frozenset(one["media"] for one in entries if "media" in one),
        urls=frozenset(one["url"] for one in entries if "url" in one),
        records=frozenset(
            (one.get("source", ""), one["record"]) for one in entries if "record" in one
        ),
    )


def _entry(line: str, where: str) -> dict[str, str]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where}: no JSON object ({error}); write one a line") from error
    if not (isinstance(value, dict) and set(value) in _KEYS):
        raise UserError(f'{where}: must be {{"media"}}, {{"url"}}, or {{"record"}} with "source"')
    if not all(isinstance(one, str) and one for one in value.values()):
        raise UserError(f"{where}: its values must be texts")
    if "://" not in value.get("url", "://"):
        raise UserError(f"{where}: url must be an address (https://...); name a file by its sha256")
    if "media" in value and not _DIGEST.fullmatch(value["media"]):
        raise UserError(f"{where}: media must be a sha256, 64 digits of lower-case hex")
    return value


def refuse_excluded(
    decisions: FilterDecisions,
    pool: Pool,
    receipts: Sequence[Receipt],
    clips: Clips,
    what: Exclusions,
) -> Exclusions:
    """Refuse samples of one source (admitted by `receipts`) that the recipe excludes.

    Returns those of the entries that the source holds.
    """
    media = pool.table(receipts, "index/media", MEDIA)
    digests = _refuse_media(decisions, clips, media, "media_digest", what.media, "digest")
    addresses = [f"file:{url}" for url in what.urls]
    held_urls = _refuse_media(decisions, clips, media, "address", addresses, "address")
    samples = decisions.samples
    # a record without a source is meant in every source
    meant = {one for one in what.records if one[0] in ("", samples.name)}
    if meant:
        names = pa.array([record for _, record in meant], pa.string())
        records = admitted_rows(pool, receipts, "record")["record"]
        named = pc.is_in(records, value_set=names)
        held = set(records.filter(named).to_pylist())
        meant = {one for one in meant if one[1] in held}
        indices = decisions.staying(np.asarray(named, bool))
        decisions.refuse(indices, "EXCLUDED", ["the record is excluded"] * len(indices))
    urls = frozenset(address.removeprefix("file:") for address in held_urls)
    return Exclusions(media=frozenset(digests), urls=urls, records=frozenset(meant))


def _refuse_media(
    decisions: FilterDecisions,
    clips: Clips,
    media: pa.Table,
    column: str,
    values: Iterable[str],
    label: str,
) -> list[str]:
    """Refuse samples over media with one of these values in a column; those that some have."""
    # all clips that were cut out of such a medium, and all samples over any of them
    excluded = pa.array(sorted(values), pa.string())
    named = media.filter(pc.is_in(media[column], value_set=excluded))
    # a clip may never have been decoded: then no sample over it stayed anyway
    at = find(clips.ids, ids_of(named["clip_id"]))
    gone = np.zeros(len(clips.ids), bool)
    gone[at[at >= 0]] = True
    indices = decisions.staying(decisions.samples.per_sample(gone))
    decisions.refuse(indices, "EXCLUDED", [f"a medium is excluded by its {label}"] * len(indices))
    met: list[str] = pc.unique(named[column]).to_pylist()
    return met
