"""Which texts ask a question of an index: shared 12-grams of words, or the whole question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.dedup.shingles import Hashes, ngrams, wholes, words_of

GRAM = 12  # words; datatrove's choice for decontamination


Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """The questions of an index by hash, sorted: `*_of` says whose each hash is."""

    benchmark: pa.Array
    record: pa.Array
    number: Places
    wholes: Hashes
    whole_of: Places
    grams: Hashes
    gram_of: Places

    @classmethod
    def of(cls, table: pa.Table) -> Questions:
        """From a table of LEAK_QUESTIONS."""
        # in the order of (benchmark, record): the row's place is then the least record's
        table = table.sort_by([("benchmark", "ascending"), ("record", "ascending")])
        wholes = np.asarray(table["whole"], np.uint64)
        lists = table["grams"].combine_chunks()
        grams = np.asarray(pc.list_flatten(lists), np.uint64)
        gram_of = np.asarray(pc.list_parent_indices(lists), np.int64)
        # sorted by hash: texts are looked up by binary search, as a merge join
        by_whole, by_gram = np.argsort(wholes, kind="stable"), np.argsort(grams, kind="stable")
        names = table["benchmark"].combine_chunks()
        return cls(
            benchmark=names,
            record=table["record"].combine_chunks(),
            number=np.asarray(names.dictionary_encode().indices, np.int64),
            wholes=wholes[by_whole],
            whole_of=by_whole,
            grams=grams[by_gram],
            gram_of=gram_of[by_gram],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Who asks which question, as columns; `shared` counts distinct 12-grams in common."""

    owner: Places
    question: Places
    whole: NDArray[np.bool_]
    shared: Places


def asked(texts: Sequence[str], owner: Places, questions: Questions) -> Asked:
    """Which owners of texts ask which question: of each benchmark the one that fits best.

    One that shares 12-grams fits better than a shorter one, then one that is asked as a whole (by
    a text, or by its first line: options often follow), then more 12-grams, then the least record.
    """
    # asked as a whole: by the text, or by its first line
    first = [text.partition("\n")[0] for text in texts]
    every = words_of([*texts, *first])
    at, question = _found(questions.wholes, questions.whole_of, wholes(every))
    as_whole = np.stack([np.tile(owner, 2)[at], question], axis=1)
    # 12-grams in common, each distinct one counted once per (owner, question)
    grams, ends = ngrams(words_of(texts), GRAM)
    at, question = _found(questions.grams, questions.gram_of, grams)
    whose = np.repeat(owner, np.diff(ends))[at]
    shared = np.stack([whose, question, grams[at].view(np.int64)], axis=1)
    shared, count = np.unique(np.unique(shared, axis=0)[:, :2], axis=0, return_counts=True)
    # both kinds of evidence about a pair (owner, question) side by side
    pairs, member = np.unique(np.concatenate([as_whole, shared]), axis=0, return_inverse=True)
    whole = np.zeros(len(pairs), bool)
    grams_shared = np.zeros(len(pairs), np.int64)
    whole[member.ravel()[: len(as_whole)]] = True
    grams_shared[member.ravel()[len(as_whole) :]] = count
    # best per owner and benchmark: sorted by the evidence, the first of each group
    benchmark = questions.number[pairs[:, 1]]
    order = np.lexsort(
        (pairs[:, 1], -grams_shared, ~whole, grams_shared == 0, benchmark, pairs[:, 0])
    )
    leads = np.stack([pairs[:, 0], benchmark], axis=1)[order]
    best = order[np.append(True, (leads[1:] != leads[:-1]).any(axis=1))[: len(order)]]
    return Asked(
        owner=pairs[best, 0], question=pairs[best, 1], whole=whole[best], shared=grams_shared[best]
    )


def _found(sorted_hashes: Hashes, owners: Places, hashes: Hashes) -> tuple[Places, Places]:
    """(place among `hashes`, whose it is) of every hash that is known; `sorted_hashes` is
    sorted."""
    # the range of equal hashes, expanded into one row each
    start = np.searchsorted(sorted_hashes, hashes)
    counts = np.searchsorted(sorted_hashes, hashes, side="right") - start
    at = np.repeat(np.arange(len(hashes)), counts)
    within = np.arange(len(at)) - np.repeat(np.cumsum(counts) - counts, counts)
    return at, owners[start[at] + within]
