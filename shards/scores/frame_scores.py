"""Scores of the stored frames of samples' clips: one column of a pool, by sample and clip.

Of such a column frames are selected that fit what a sample asks. A sample's scores are found by its
key and the number of the clip in it, whatever source it came from.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shards.errors import MissingData
from shards.id_arrays import Ids, ids_of
from shards.index import FRAME_SCORES
from shards.key_index import EntryIds, KeyIndex, entry_ids, indexed, numbered_ids, numbers_of
from shards.pool import Pool, Receipt

PER = "sample_frame"
"""What a scorer of such a column gives an integer for."""
FOLDER = "scores/frames"
"""Where a pool keeps them."""


class FrameScores:
    """One column: a row for each clip of each sample, `values` for its frames."""

    def __init__(self, table: pa.Table) -> None:
        """`table` is one of `frame_scores_table`."""
        self._index = KeyIndex(table)
        lists = table["values"]
        # a table of no rows has no chunk
        rows = lists.chunk(0) if lists.num_chunks else pa.array([], lists.type)
        # views of the table's own memory, which processes of a node may share
        self.values = numbers_of(rows.values)
        self.ends = numbers_of(rows.offsets)

    def rows(self, ids: EntryIds) -> NDArray[np.int64]:
        """The row of each (sample, number of the clip); -1 where there is none."""
        return self._index.find(ids)

    def at(self, row: int) -> tuple[int, ...]:
        """The scores of a row, one per stored frame."""
        return tuple(self.values[self.ends[row] : self.ends[row + 1]].tolist())

    def of(self, key: str, count: int) -> tuple[tuple[int, ...], ...]:
        """The scores of each of the clips of a sample; MissingData where there are none."""
        rows = self.rows(entry_ids([key] * count, np.arange(count)))
        if (rows < 0).any():
            raise MissingData(f"sample {key}: its frames have no scores")
        return tuple(self.at(row) for row in rows.tolist())

    def digest(self, keys: Ids, clip_counts: NDArray[np.int64]) -> str:
        """sha256 over the scores of samples with these sorted keys, each of so many clips.

        MissingData names the first that has none.
        """
        ids = clip_ids_of(keys, clip_counts)
        rows = self.rows(ids)
        if (rows < 0).any():
            raise MissingData(
                f"{int((rows < 0).sum())} clips of samples have no scores, the first of sample "
                f"{ids[rows < 0][0][:16].ljust(16, bytes(1)).hex()}"
            )
        # lengths, then values: equal digests are equal scores of equal frames
        digest = hashlib.sha256(np.diff(self.ends)[rows].astype("<i8").tobytes())
        for row in rows.tolist():
            digest.update(self.values[self.ends[row] : self.ends[row + 1]].tobytes())
        return digest.hexdigest()


def clip_ids_of(keys: Ids, clip_counts: NDArray[np.int64]) -> EntryIds:
    """The ids of all clips of samples with these keys, each of so many clips, in their order."""
    before = np.cumsum(clip_counts) - clip_counts
    # the number of a clip in its sample: its place less that of the sample's first
    numbers = np.arange(int(clip_counts.sum())) - np.repeat(before, clip_counts)
    return numbered_ids(np.repeat(np.ascontiguousarray(keys), clip_counts), numbers)


def scored_by(pool: Pool, digest: str) -> list[Receipt]:
    """The receipts of the column whose scorer has this digest."""
    return [
        receipt
        for receipt in pool.receipts("score")
        if receipt.parameters["per"] == PER and receipt.parameters["digest"] == digest
    ]


def frame_scores_table(pool: Pool, receipts: list[Receipt]) -> pa.Table:
    """The rows that these receipts name, sorted by (sample, number of the clip), each once."""
    rows = pool.table(receipts, FOLDER, FRAME_SCORES).combine_chunks()
    ids = numbered_ids(ids_of(rows["key"]), rows["clip"].to_numpy())
    # of a sample that several sources hold the first row stays
    lists = rows["values"].cast(pa.large_list(pa.int32())).combine_chunks()
    return indexed(ids, {"values": lists})
