"""The questions of one benchmark as hashes, for a leak index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.dedup.questions import GRAM
from pipeline.dedup.shingles import Ends, Hashes, ngrams, wholes, words_of
from pipeline.fetch import local_files
from pipeline.sources import records
from pipeline.sources.records import Columns, Record
from shards.ids import sha256_file
from shards.index import LEAK_QUESTIONS
from shards.pool import Pool, Receipt
from shards.receipts import Work

QUESTIONS_VERSION = "2"
COMMON = 8  # questions; a 12-gram of more of one benchmark is its way of asking, no question


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionsUnit:
    """The annotations of one benchmark, as pinned addresses."""

    pool: str
    benchmark: str
    format: str
    annotations: tuple[str, ...]
    columns: Columns = ()


def questions(unit: QuestionsUnit) -> Receipt:
    """The distinct questions of a benchmark as hashes, whether or not their media are there."""
    pool = Pool(unit.pool)
    files = [local_files.local(address) for address in unit.annotations]
    # fetched files have their digest; copies on disk are hashed now
    inputs = [file.digest or sha256_file(file.path) for file in files]
    columns = [[name, list(named)] for name, named in unit.columns]
    parameters = {"benchmark": unit.benchmark, "format": unit.format, "columns": columns}
    work = Work("questions", QUESTIONS_VERSION, parameters, inputs)
    if done := pool.done(work):
        return done
    texts = [
        (item.record, turn.text)
        for item in records(unit.format, [file.path for file in files], unit.columns)
        for turn in (item.turns if isinstance(item, Record) else ())
        # only what the user asks: answers of a benchmark may be as short as "yes"
        if turn.role == "user"
    ]
    tables = {"questions": question_table(unit.benchmark, texts)}
    return pool.commit(work, tables)


def question_table(name: str, question_texts: Sequence[tuple[str, str]]) -> pa.Table:
    """Rows of LEAK_QUESTIONS of (record, text), each distinct text and first line once."""
    # a question may be copied without its options, which follow on the next lines
    lines = [(record, text.partition("\n")[0]) for record, text in question_texts]
    texts = [*question_texts, *lines]
    words = words_of([text for _, text in texts])
    whole = wholes(words)
    # the first row of each distinct text: np.unique sorts, so equal hashes give their least index
    _, first = np.unique(whole, return_index=True)
    first = np.sort(first[words.counts[first] > 0])
    grams, ends = ngrams(words, GRAM)
    row = np.repeat(np.arange(len(texts)), np.diff(ends))
    # 12-grams of the rows that stay, each once
    kept = np.isin(row, first)
    grams, row = _distinct(grams[kept], row[kept])
    # counted over whole questions only: first lines repeat what stands in them
    distinct, uses = np.unique(grams[row < len(question_texts)], return_counts=True)
    # boilerplate ("answer with the option's letter") is in many questions of one benchmark
    telling = ~np.isin(grams, distinct[uses > COMMON])
    grams, row = grams[telling], row[telling]
    # a list column as offsets into the flat 12-grams
    offsets = np.append(np.searchsorted(row, first), len(row))
    columns = [
        pa.array([name] * len(first), pa.string()),
        pa.array([texts[i][0] for i in first], pa.string()),
        pa.array(words.counts[first], pa.int32()),
        pa.array(whole[first]),
        pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(grams)),
    ]
    return pa.table(columns, schema=LEAK_QUESTIONS)


def _distinct(grams: Hashes, row: Ends) -> tuple[Hashes, Ends]:
    """Each 12-gram of a row once, in the order of (row, 12-gram)."""
    order = np.lexsort((grams, row))
    grams, row = grams[order], row[order]
    fresh = np.append(True, (grams[1:] != grams[:-1]) | (row[1:] != row[:-1]))[: len(row)]
    return grams[fresh], row[fresh]
