"""Fingerprints of many clips as arrays: their pictures, or their hashes only."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dedup.details import nbytes
from pipeline.dedup.fingerprints import SIDE, Hashes
from pipeline.dedup.hamming_join import Ints
from pipeline.dedup.registration import Bools
from pipeline.media.frame_difference import Luma

LEAST_QUALITY = 20  # black, blurred and single-coloured pictures say nothing, and are left out
HASHED = ("clip_id", "kind", "quality", "hashed", "hashes")
PICTURES = ("clip_id", "kind", "micros", "quality", "pictures")


@dataclass(frozen=True, slots=True)
class Detailed:
    """Which pictures of a clip are described in detail (their places among its pictures), at which
    sides, and how (pipeline.dedup.details)."""

    pictures: Ints
    sides: list[int]
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprints:
    """Clips in the order of their ids; clip c has the pictures `first[c]:first[c + 1]`; `details`
    is empty where only the columns PICTURES were read."""

    clips: list[str]
    video: Bools
    first: Ints
    micros: Ints
    pictures: Luma
    details: list[Detailed]

    @property
    def clip(self) -> Ints:
        """The clip of each picture."""
        return np.repeat(np.arange(len(self.clips)), np.diff(self.first))

    def rows(self, clip: int) -> slice:
        """The rows of `micros` and `pictures` that are this clip's."""
        return slice(int(self.first[clip]), int(self.first[clip + 1]))

    def only(self, some: Sequence[int]) -> Fingerprints:
        """These clips alone, in this order."""
        rows = [self.rows(clip) for clip in some]
        return Fingerprints(
            clips=[self.clips[clip] for clip in some],
            video=self.video[list(some)],
            first=np.cumsum([0, *(row.stop - row.start for row in rows)]),
            micros=np.concatenate([self.micros[:0], *(self.micros[row] for row in rows)]),
            pictures=np.concatenate([self.pictures[:0], *(self.pictures[row] for row in rows)]),
            details=[self.details[clip] for clip in some] if self.details else [],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Hashed:
    """Clips in the order of their ids, and of each hash [n, 4] its clip and its picture's place
    among the pictures of that clip."""

    clips: list[str]
    video: Bools
    clip: Ints
    picture: Ints
    hashes: Hashes

    def only(self, some: Bools) -> Hashed:
        """Without the hashes of the other clips."""
        keep = some[self.clip]
        return replace(
            self, clip=self.clip[keep], picture=self.picture[keep], hashes=self.hashes[keep]
        )


def only(table: pa.Table, wanted_names: Collection[str]) -> pa.Table:
    """Those of the rows that are these clips'."""
    value_set = pa.array(sorted(wanted_names), pa.string())
    return table.filter(pc.is_in(table["clip_id"], value_set=value_set))


def fingerprints_of(table: pa.Table) -> Fingerprints:
    """Of rows of shards.index.FINGERPRINTS, in any order; a clip that was decoded twice once."""
    # a clip that lies in two parts of the pool is one: its fingerprint is a function of its id
    rows = _rows(table)
    # a table of lists becomes flat arrays: counts[c] pictures of clip c, those of poor quality left
    # out
    good = _joined([row["quality"] for row in rows]) >= LEAST_QUALITY
    pictures = np.frombuffer(b"".join(row["pictures"] for row in rows), np.uint8)
    counts = [len(row["micros"]) for row in rows]
    return Fingerprints(
        clips=[row["clip_id"] for row in rows],
        video=_video(rows),
        # first[c] counts the good pictures before clip c: a prefix sum read at the clips' borders
        first=np.append(0, np.cumsum(good))[np.append(0, np.cumsum(counts, dtype=np.int64))],
        micros=_joined([row["micros"] for row in rows])[good],
        pictures=pictures.reshape(-1, SIDE, SIDE)[good],
        details=[_detailed(row) for row in rows if "details" in row],
    )


def _detailed(row: dict[str, Any]) -> Detailed:
    """Of the pictures of a row that say something."""
    says = np.array(row["quality"], np.int64) >= LEAST_QUALITY
    places = np.array(row["detailed"], np.int64)
    # bytes of one described picture
    nbytes_each = nbytes(row["sides"])
    data = b"".join(
        row["details"][nbytes_each * at : nbytes_each * (at + 1)]
        for at in np.flatnonzero(says[places]).tolist()
    )
    # places among the good pictures only, as Fingerprints numbers them
    return Detailed((np.cumsum(says) - 1)[places[says[places]]], row["sides"], data)


def hashed_of(table: pa.Table) -> Hashed:
    """Of the columns HASHED of such rows."""
    rows = _rows(table)
    clip = []
    picture = []
    good = []
    for number, row in enumerate(rows):
        says = np.array(row["quality"]) >= LEAST_QUALITY
        clip += [number] * len(row["hashed"])
        # a hash names its picture by its place; those of poor quality are renumbered away
        picture += (np.cumsum(says) - 1)[row["hashed"]].tolist()
        good += says[row["hashed"]].tolist()
    keep = np.array(good, np.bool_)
    hashes = np.frombuffer(b"".join(row["hashes"] for row in rows), np.uint64).reshape(-1, 4)
    return Hashed(
        clips=[row["clip_id"] for row in rows],
        video=_video(rows),
        clip=np.array(clip, np.int64)[keep],
        picture=np.array(picture, np.int64)[keep],
        hashes=hashes[keep],
    )


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    rows = {row["clip_id"]: row for row in table.to_pylist()}
    return [rows[name] for name in sorted(rows)]


def _video(rows: list[dict[str, Any]]) -> Bools:
    return np.array([row["kind"] == "video" for row in rows], np.bool_)


def _joined(lists: list[list[int]]) -> Ints:
    return np.array([value for part in lists for value in part], np.int64)
