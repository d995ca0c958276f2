"""Matches of a recipe's clips and questions with a leak index: facts, by benchmark.

    leak_media   one table of fingerprints x the index -> clips that show what a benchmark shows
    leak_text    one table of samples x the index -> samples that ask what a benchmark asks

Each receipt is a function of one table and the index, so neither workers, nor how the pool is cut
into tables, nor other recipes change what is found.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.dedup.questions import GRAM, Questions, asked
from pipeline.dedup.verify import leak_matches
from pipeline.stages import compare_clips, decode_media
from shards.errors import UserError
from shards.index import LEAKED_TEXTS, LEAKS, table_of
from shards.leak_index import LeakIndex, open_index
from shards.pool import Pool, Receipt
from shards.receipts import Work

MEDIA_VERSION = f"1/{compare_clips.VERSION}"
TEXT_VERSION = "1"
TABLES_PER_UNIT = 64
_TEXTS_AT_ONCE = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaLeakUnit:
    """Tables of fingerprints to be compared with an index at once; each has its own receipt."""

    pool: str
    index: str
    tables: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextLeakUnit:
    """One table of samples to be compared with the questions of an index."""

    pool: str
    index: str
    table: str


def index_of(url: str) -> LeakIndex:
    """The index in a folder, if its fingerprints are those that this version makes."""
    index = open_index(url)
    if index.fingerprints != decode_media.DECODE_VERSION:
        raise UserError(
            f"{url}: its fingerprints are of version {index.fingerprints}, this version compares "
            f"{decode_media.DECODE_VERSION}; run `python -m pipeline leaks build` again"
        )
    return index


def units(
    pool: Pool, index: LeakIndex, clip_ids: Iterable[str], sample_tables: Sequence[str]
) -> list[MediaLeakUnit | TextLeakUnit]:
    """What to compare so that these clips and these tables of samples are."""
    wanted = set(clip_ids)
    tables = {
        name
        for receipt in pool.receipts("decode")
        if not wanted.isdisjoint(receipt.inputs)
        for name in receipt.outputs["index/fingerprints"]
    }
    # fingerprints are immutable tables: each is compared once with an index of one id
    known = {name for r in pool.receipts("leak_media") for name in r.inputs if _is_of(r, index)}
    left = sorted(tables - known)
    starts = range(0, len(left), TABLES_PER_UNIT)
    pieces = [tuple(left[start : start + TABLES_PER_UNIT]) for start in starts]
    media = [MediaLeakUnit(pool=pool.store.url, index=index.url, tables=piece) for piece in pieces]
    return [
        *media,
        *(TextLeakUnit(pool=pool.store.url, index=index.url, table=name) for name in sample_tables),
    ]


def _is_of(receipt: Receipt, index: LeakIndex) -> bool:
    return bool(receipt.version == MEDIA_VERSION and receipt.parameters["index"] == index.index_id)


def match(unit: MediaLeakUnit | TextLeakUnit) -> Receipt:
    """The last receipt of a unit of either kind."""
    return match_media(unit)[-1] if isinstance(unit, MediaLeakUnit) else match_text(unit)


# media -----------------------------------------------------------------------------


def match_media(unit: MediaLeakUnit) -> list[Receipt]:
    """Clips that show what a clip of the index shows, table by table."""
    pool = Pool(unit.pool)
    index = index_of(unit.index)
    tables = {name: pool.read(f"index/fingerprints/{name}") for name in unit.tables}
    theirs, records = _held_out(unit.index, index.index_id)
    pairs = leak_matches(
        # records are named later: one comparison for all benchmarks that share a clip
        pa.concat_tables(tables.values()),
        theirs,
        {name: name for name in records},
    )
    rows = [row | about for row in pairs.to_pylist() for about in records[row["held_out"]]]
    receipts = []
    for name, table in tables.items():
        clips = set(table["clip_id"].to_pylist())
        # each table has the rows of its own clips, sorted: its receipt names the same bytes however
        # tables were grouped
        matches = sorted(
            (row for row in rows if row["clip_id"] in clips), key=lambda r: (*r.values(),)
        )
        leaks = {"leaks": table_of(LEAKS, matches)}
        work = Work("leak_media", MEDIA_VERSION, {"index": index.index_id}, [name])
        receipts.append(pool.commit(work, leaks))
    return receipts


@functools.lru_cache(maxsize=1)
def _held_out(url: str, index_id: str) -> tuple[pa.Table, dict[str, list[dict[str, str]]]]:
    """The index's fingerprints, and per clip the benchmarks and records that show it."""
    # kept between the units of one worker: an index is read once
    index = _same(url, index_id)
    records: dict[str, list[dict[str, str]]] = {}
    for row in index.read("media").to_pylist():
        about = {"benchmark": row["benchmark"], "held_out": row["record"]}
        records.setdefault(row["clip_id"], []).append(about)
    return index.read("fingerprints"), records


def _same(url: str, index_id: str) -> LeakIndex:
    """The index in a folder, if it is still this one: what is kept of it is kept by its id."""
    index = open_index(url)
    if index.index_id != index_id:
        raise UserError(f"{url}: replaced by index {index.index_id} meanwhile; build again")
    return index


# text ------------------------------------------------------------------------------


def match_text(unit: TextLeakUnit) -> Receipt:
    """Samples whose user asks what a question of the index asks."""
    pool = Pool(unit.pool)
    index = index_of(unit.index)
    work = Work("leak_text", TEXT_VERSION, {"index": index.index_id}, [unit.table])
    if done := pool.done(work):
        return done
    samples = pool.read(f"index/samples/{unit.table}").select(["key", "turns"])
    matches = [
        _leaked(samples.slice(start, _TEXTS_AT_ONCE), _questions(unit.index, index.index_id))
        for start in range(0, len(samples), _TEXTS_AT_ONCE)
    ]
    tables = {"leaks/text": pa.concat_tables([LEAKED_TEXTS.empty_table(), *matches])}
    return pool.commit(work, tables)


@functools.lru_cache(maxsize=1)
def _questions(url: str, index_id: str) -> Questions:
    return Questions.of(_same(url, index_id).read("questions"))


def _leaked(samples: pa.Table, questions: Questions) -> pa.Table:
    texts = []
    owner = []
    for number, turns in enumerate(samples["turns"].to_pylist()):
        # the user's turns, of which any may be a benchmark's question
        questions_asked = [turn["text"] for turn in json.loads(turns) if turn["role"] == "user"]
        texts += questions_asked
        owner += [number] * len(questions_asked)
    matches = asked(texts, np.array(owner, np.int64), questions)
    return pa.table(
        [
            samples["key"].take(pa.array(matches.owner)).cast(pa.string()),
            questions.benchmark.take(pa.array(matches.question)),
            questions.record.take(pa.array(matches.question)),
            pa.array(np.where(matches.whole, "whole", f"{GRAM}-gram"), pa.string()),
            pa.array(matches.shared, pa.int32()),
        ],
        schema=LEAKED_TEXTS,
    )
