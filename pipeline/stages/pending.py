"""What is done and what is still to do: read from receipts, never from the order of events."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.stages.media_rows import MediaRow
from shards.id_arrays import ids_of, sorting
from shards.index import MEDIA, REFUSED
from shards.pool import Pool, Receipt

IMAGES_PER_PART = 128
VIDEOS_PER_PART = 16


def wanted_media(pool: Pool, receipts: Sequence[Receipt]) -> list[MediaRow]:
    """The media that these admissions name, each once, in the order of the clip ids."""
    rows = pool.table(receipts, "index/media", MEDIA).to_pylist()
    # reversed: of several addresses of one clip the first admitted wins
    by_id = {row["clip_id"]: MediaRow.of(row) for row in reversed(rows)}
    return [by_id[name] for name in sorted(by_id)]


def clip_ids(pool: Pool, receipts: Sequence[Receipt]) -> list[str]:
    """The ids of those media."""
    return sorted(set(pool.table(receipts, "index/media", MEDIA)["clip_id"].to_pylist()))


def users(pool: Pool, admitted: Mapping[str, Receipt]) -> dict[str, set[str]]:
    """The sources that name each clip."""
    sources_of: dict[str, set[str]] = defaultdict(set)
    for name, receipt in admitted.items():
        for clip in clip_ids(pool, [receipt]):
            sources_of[clip].add(name)
    return sources_of


def outcomes(pool: Pool, receipt: Receipt) -> dict[str, str]:
    """Clip id -> the code of its refusal, or "" if it was decoded, under this receipt."""
    codes = dict.fromkeys(receipt.inputs, "")
    if receipt.counts["refused"]:
        # refusals are few: their table is read only where the receipt counts some
        table = pool.table([receipt], "refused", REFUSED)
        codes |= zip(table["key"].to_pylist(), table["code"].to_pylist(), strict=True)
    return codes


class Known:
    """What became of media before, under every receipt of a stage: some 20 bytes a clip.

    Tables of refusals are read when somebody asks for a clip of theirs.
    """

    def __init__(self, pool: Pool, stage: str) -> None:
        rows = pool.ledger.table(stage)
        ids = ids_of(pc.list_flatten(rows["inputs"]))
        # 16 bytes an id instead of a string: ids sorted once, looked up by binary search
        order = sorting(ids)
        self._ids = ids[order].view("S16")
        self._rows = np.asarray(pc.list_parent_indices(rows["inputs"]), np.int32)[order]
        self._refusals = [
            json.loads(outputs)["refused"][0] if json.loads(counts)["refused"] else ""
            for outputs, counts in zip(
                rows["outputs"].to_pylist(), rows["counts"].to_pylist(), strict=True
            )
        ]
        self._pool = pool
        self._codes: dict[str, dict[str, str]] = {"": {}}

    def outcomes(self, clips: Sequence[str]) -> dict[str, str]:
        """As `outcomes`, of those of these clips that any receipt names."""
        wanted = ids_of(pa.array(clips, pa.string())).view("S16")
        # left and right ends of the range of equal ids; an empty range is unknown
        first, behind = (np.searchsorted(self._ids, wanted, side) for side in ("left", "right"))
        names = [self._refusals[row] for row in self._rows[first[first < behind]]]
        there = [clip for clip, known in zip(clips, first < behind, strict=True) if known]
        self._read(sorted({*names} - self._codes.keys()))
        return {
            clip: self._codes[name].get(clip, "") for clip, name in zip(there, names, strict=True)
        }

    def _read(self, names: Sequence[str]) -> None:
        for name, table in self._pool.tables("refused", names):
            keys, codes = table["key"].to_pylist(), table["code"].to_pylist()
            self._codes[name] = dict(zip(keys, codes, strict=True))


def units(clips: Iterable[MediaRow]) -> Iterator[tuple[MediaRow, ...]]:
    """Media in units of work: one kind each, media of one archive together, a bounded number."""
    # an archive's members lie side by side, so that it is read once and in order
    ordered = sorted(clips, key=lambda row: (row.kind, row.address, row.clip_id))
    for kind, group in groupby(ordered, key=lambda row: row.kind):
        while unit := tuple(islice(group, per_part(kind))):
            yield unit


def per_part(kind: str) -> int:
    """How many media of a kind are decoded together, into one part."""
    return IMAGES_PER_PART if kind == "image" else VIDEOS_PER_PART
