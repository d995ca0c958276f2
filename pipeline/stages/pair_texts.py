"""Near-duplicate conversations, by MinHash (pipeline.dedup.text_minhash).

sketch   one table of samples -> its distinct conversations: sketches and shingles
pair     all sketches of a recipe -> the pairs of one part of all buckets
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from rensa import RMinHash

from pipeline.dedup.text_minhash import (
    AT_ONCE,
    ROWS_PER_PART,
    Sets,
    first_of_each,
    pairs_among,
    shingles,
    sketches,
)
from shards.id_arrays import ids_of
from shards.index import TEXTS
from shards.pool import Pool, Receipt
from shards.receipts import Work

TEXTS_VERSION = f"1/rensa-{RMinHash.ALGORITHM_VERSION}"
PAIRS_VERSION = "1"


# the texts of a table ----------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TextsUnit:
    """One table of samples whose conversations are to be sketched."""

    pool: str
    table: str


def sketch(unit: TextsUnit) -> Receipt:
    """Sketch and shingles of every distinct conversation of a table, in order of their digests."""
    pool = Pool(unit.pool)
    work = Work("texts", TEXTS_VERSION, {}, [unit.table])
    if done := pool.done(work):
        return done
    samples = pool.read(f"index/samples/{unit.table}").select(["turns_digest", "turns"])
    # a conversation that many records repeat is sketched once
    distinct = samples.take(first_of_each(ids_of(samples["turns_digest"])))
    rows = [TEXTS.empty_table()]
    # chunks bound the memory of shingling
    for start in range(0, len(distinct), AT_ONCE):
        some = distinct.slice(start, AT_ONCE)
        talks = [_said(json.loads(turns)) for turns in some["turns"].to_pylist()]
        sets = [shingles([talk[i] for talk in talks]) for i in (0, 1)]
        rows.append(text_table(some["turns_digest"], *sets))
    tables = {"index/texts": pa.concat_tables(rows)}
    counts = {"texts": len(distinct)}
    return pool.commit(work, tables, counts=counts)


def _said(turns: Sequence[dict[str, Any]]) -> tuple[str, str]:
    """All questions, and all answers, of a conversation."""
    answers = [turn["text"] for turn in turns if turn["role"] == "assistant"]
    return " ".join(t["text"] for t in turns if t["role"] != "assistant"), " ".join(answers)


def text_table(digests: pa.ChunkedArray, questions: Sets, answers: Sets) -> pa.Table:
    """Rows of TEXTS."""
    lists = [
        pa.ListArray.from_arrays(pa.array(sets.ends, pa.int32()), pa.array(sets.values))
        for sets in (questions, answers)
    ]
    kind = TEXTS.field("sketch").type
    data = pa.py_buffer(sketches(questions, answers).tobytes())
    # a fixed-size column straight from the matrix's bytes
    drawn = pa.FixedSizeBinaryArray.from_buffers(kind, len(digests), [None, data])
    return pa.table([digests, drawn, *lists], TEXTS)


# pairs -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPairsUnit:
    """One of `parts` parts of all buckets of the conversations in `tables`."""

    pool: str
    sources: dict[str, str]
    tables: tuple[str, ...]
    part: int
    parts: int


def parted(
    pool: str, receipts: Sequence[Receipt], revisions: dict[str, str]
) -> list[TextPairsUnit]:
    """The work of comparing all these conversations, cut by how many they are."""
    tables = tuple(
        sorted({name for receipt in receipts for name in receipt.outputs["index/texts"]})
    )
    # parts by the number of conversations: each fits a worker's memory
    parts = 1 + sum(receipt.counts["texts"] for receipt in receipts) // ROWS_PER_PART
    return [
        TextPairsUnit(pool=pool, sources=revisions, tables=tables, part=part, parts=parts)
        for part in range(parts)
    ]


def pair(unit: TextPairsUnit) -> Receipt:
    """The near-duplicate conversations that share a bucket of this part."""
    pool = Pool(unit.pool)
    parameters = {"sources": unit.sources, "part": unit.part, "parts": unit.parts}
    work = Work("twins", PAIRS_VERSION, parameters, unit.tables)
    if done := pool.done(work):
        return done
    pairs = pairs_among(
        # read twice: first sketches only, then the shingles of the candidates
        lambda: (pool.read(f"index/texts/{name}") for name in unit.tables),
        unit.part,
        unit.parts,
    )
    return pool.commit(work, {"clusters/text": pairs})
