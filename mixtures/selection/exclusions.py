"""Take-downs: media, addresses and records that a recipe's `exclude` file names are never drawn.

The file holds one JSON object a line: {"media": sha256 of the original bytes}, {"url": address} or
{"record": id}, the latter with {"source": name} where only that source is meant.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
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
) -> None:
    """Samples of one source (admitted by `receipts`) that the recipe excludes."""
    _refuse_media(decisions, pool.table(receipts, "index/media", MEDIA), clips, what)
    samples = decisions.samples
    # a record without a source is meant in every source
    names = [record for source, record in what.records if source in ("", samples.name)]
    if names:
        records = admitted_rows(pool, receipts, "record")["record"]
        named = np.asarray(pc.is_in(records, value_set=pa.array(names, pa.string())), bool)
        indices = decisions.staying(named)
        decisions.refuse(indices, "EXCLUDED", ["the record is excluded"] * len(indices))


def _refuse_media(
    decisions: FilterDecisions, media: pa.Table, clips: Clips, what: Exclusions
) -> None:
    addresses = [f"file:{url}" for url in sorted(what.urls)]
    for column, values, said in (
        ("media_digest", sorted(what.media), "a medium is excluded by its digest"),
        ("address", addresses, "a medium is excluded by its address"),
    ):
        # all clips that were cut out of such a medium, and all samples over any of them
        named = media.filter(pc.is_in(media[column], value_set=pa.array(values, pa.string())))
        # a clip may never have been decoded: then no sample over it stayed anyway
        at = find(clips.ids, ids_of(named["clip_id"]))
        gone = np.zeros(len(clips.ids), bool)
        gone[at[at >= 0]] = True
        indices = decisions.staying(decisions.samples.per_sample(gone))
        decisions.refuse(indices, "EXCLUDED", [said] * len(indices))
