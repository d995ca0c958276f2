"""Near-duplicate conversations: MinHash finds candidates, exact Jaccard similarity decides.

MinHash is Broder's (1997), of which 8 bits are kept as in b-bit minwise hashing (Li and Koenig,
2010); candidates share a band of it (locality-sensitive hashing; Leskovec, Rajaraman and Ullman,
Mining of Massive Datasets, 3.4), and within a crowded band lie near each other in sorted order
(the sorted neighbourhood method; Hernandez and Stolfo, 1995).

A conversation is two sets of hashed 3-grams of words, of its questions and of its answers; two are
near-duplicates if both are at least FLOOR alike. So a question with another answer is none, however
long.

A bucket is the conversations that share a band of 8 of 192 MinHash values; at similarity 0.8 a pair
shares one with probability 0.988, at 0.85 with 0.9996. Inside a bucket, ordered by the next band,
each conversation is compared with the WINDOW that follow it: an ordinary bucket whole, one that a
common phrase filled in linear time. Parts hold whole buckets, so their number changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from rensa import RMinHash

from pipeline.dedup.shingles import Ends, Hashes, Words, ngrams, wholes, words_of
from shards.id_arrays import Ids, find, ids_of, sorting
from shards.ids import normalise
from shards.index import TEXT_PAIRS, TEXTS

SHINGLE = 3  # words; a change of one word in thirty leaves 0.8
ROWS = 8
BANDS = 24
SEED = 20250319
FLOOR = 800  # per mille; recipes ask for as much or more
WINDOW = 16
ROWS_PER_PART = 1 << 18
_SLACK = 0.12  # three standard deviations of a sketch's estimate at 0.8, and some
AT_ONCE = 1 << 15
_SAID = np.uint64(0xA24BAED4963EE407)  # keeps the shingles of answers apart from those of questions

Rows = NDArray[np.int64]
Sketches = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sets:
    """Sets of hashes: that of row i is `values[ends[i]:ends[i + 1]]`, ascending, each once."""

    values: NDArray[np.uint32]
    ends: Ends

    @property
    def sizes(self) -> Ends:
        """Members of each set."""
        return np.diff(self.ends)


# one conversation ------------------------------------------------------------------


def shingles(texts: Sequence[str]) -> Sets:
    """The distinct 3-grams of texts; one of fewer words is one shingle: itself but for a stop."""
    # 3-grams of words, as 64-bit hashes
    words = words_of(texts)
    grams, ends = ngrams(words, SHINGLE)
    # texts too short to have one: -5, +, 5 % differ in their signs alone
    short = np.flatnonzero(words.counts < SHINGLE)
    said = [normalise(texts[i]).lower().rstrip(".!? ") for i in short.tolist()]
    grams = np.insert(grams, ends[short], wholes(_letters(said)))
    ends = ends + np.searchsorted(short, np.arange(len(ends)))
    # each once per text: sorted as (text, upper half of the hash)
    row = np.repeat(np.arange(len(texts)), np.diff(ends)).astype(np.uint64)
    keys = np.sort(row << np.uint64(32) | grams >> np.uint64(32))
    keys = keys[np.append(True, keys[1:] != keys[:-1])[: len(keys)]]  # np.unique is 10 times slower
    starts = np.searchsorted(keys >> np.uint64(32), np.arange(len(texts) + 1))
    return Sets(values=keys.astype(np.uint32), ends=starts.astype(np.int64))


def _letters(texts: Sequence[str]) -> Words:
    """Texts as sequences of their characters, for those that hardly have words: -5, +, 5 %."""
    counts = np.array([len(text) for text in texts], np.int64)
    # counted from one: a leading zero would not count in the polynomial hash
    codes = np.frombuffer("".join(texts).encode("utf-32-le"), "<u4").astype(np.uint64)
    return Words(words=codes + np.uint64(1), ends=np.concatenate([[0], np.cumsum(counts)]))


def sketches(questions: Sets, answers: Sets) -> Sketches:
    """The least 8 bits of 192 MinHash values of each conversation: uint8[n, 192]."""
    digests = [np.empty((0, ROWS * BANDS), np.uint8)]
    for start in range(0, len(questions.sizes), AT_ONCE):
        rows = np.arange(start, min(start + AT_ONCE, len(questions.sizes)))
        hashes, ends = _joined(_taken(questions, rows), _taken(answers, rows))
        # 192 permutations in one call; the 8 low bits suffice, as bands and sketches are verified
        # exactly
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(
            hashes, ends.astype(np.uint64), ROWS * BANDS, SEED
        )
        digests.append(np.array(matrix.to_rows(), np.uint32).astype(np.uint8))
    return np.concatenate(digests)


def _joined(questions: Sets, answers: Sets) -> tuple[Hashes, Ends]:
    """Both sets of each row one after the other, apart from each other."""
    ends = questions.ends + answers.ends
    # questions and answers of a row side by side, told apart by a constant
    hashes = np.empty(int(ends[-1]), np.uint64)
    answer_places = np.repeat(questions.ends[1:], answers.sizes) + np.arange(len(answers.values))
    question_places = np.repeat(answers.ends[:-1], questions.sizes) + np.arange(
        len(questions.values)
    )
    hashes[answer_places] = answers.values ^ _SAID
    hashes[question_places] = questions.values
    return hashes, ends


def _taken(sets: Sets, wanted: Rows) -> Sets:
    """The sets of these rows, in this order."""
    # a range of values for each row, laid one behind the other
    sizes = sets.sizes[wanted]
    ends = np.concatenate([[0], np.cumsum(sizes)])
    at = np.repeat(sets.ends[wanted] - ends[:-1], sizes) + np.arange(ends[-1])
    return Sets(values=sets.values[at], ends=ends)


def pairs_among(
    read: Callable[[], Iterable[pa.Table]], part: int = 0, num_parts: int = 1
) -> pa.Table:
    """Rows of TEXT_PAIRS among all tables of TEXTS that `read` reads, twice.

    First for the sketches, which must fit into memory, then for the shingles of the candidates.
    """
    # candidates, by sketches alone
    ids, rows = _distinct(read())
    pairs = candidates(rows, part, num_parts)
    # the shingles of those that are in a candidate, and no others
    wanted, pairs = np.unique(pairs, return_inverse=True)
    near = pa.concat_tables([TEXTS.empty_table(), *(_only(each, ids[wanted]) for each in read())])
    near = near.take(first_of_each(ids_of(near["turns_digest"])))
    pairs = pairs.reshape(2, -1)
    # a near-duplicate asks the same and answers the same: the lesser similarity decides
    similarities = np.minimum(*(similarity(_sets(near[name]), pairs) for name in ("asked", "said")))
    kept = similarities >= FLOOR
    names = [near["turns_digest"].take(pa.array(ends[kept])) for ends in pairs]
    return pa.table([*names, pa.array(similarities[kept], pa.int32())], TEXT_PAIRS)


def _distinct(tables: Iterable[pa.Table]) -> tuple[Ids, Sketches]:
    """The digests of all conversations, ascending, and their sketches."""
    ids = [np.empty(0, "V16")]
    parts = [np.empty((0, ROWS * BANDS), np.uint8)]
    for table in tables:
        ids.append(ids_of(table["turns_digest"]))
        for chunk in table["sketch"].chunks:
            count = len(chunk)
            width = ROWS * BANDS
            # sketches are of one width: a view of the column's bytes, no copy by rows
            data = np.frombuffer(chunk.buffers()[1], np.uint8, count * width, chunk.offset * width)
            parts.append(data.reshape(count, width))
    every = np.concatenate(ids)
    first = first_of_each(every)
    return every[first], np.concatenate(parts)[first]


def first_of_each(ids: Ids) -> Rows:
    """Places of the first of equal ids, in the order of the ids."""
    order = sorting(ids)
    first: Rows = order[np.append(True, ids[order][1:] != ids[order][:-1])[: len(ids)]]
    # equal ids lie side by side once sorted; stable, so the first stays first
    return first


def _only(table: pa.Table, wanted: Ids) -> pa.Table:
    """The rows of these conversations, `wanted` ascending."""
    return table.filter(pa.array(find(wanted, ids_of(table["turns_digest"])) >= 0))


def _sets(column: pa.ChunkedArray) -> Sets:
    lists = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    return Sets(values=np.asarray(lists.values), ends=np.asarray(lists.offsets, np.int64))


def candidates(sketch_rows: Sketches, part: int = 0, num_parts: int = 1) -> Rows:
    """Pairs (lesser row above) that share a bucket of the part and whose sketches look alike: the
    share of equal values estimates the similarity of the two sets joined."""
    # a stranger that shares one band by chance is left out before its shingles are read
    likely = [np.empty((2, 0), np.int64)]
    for pairs in _neighbours(sketch_rows, part, num_parts):
        for start in range(0, pairs.shape[1], AT_ONCE):
            some = pairs[:, start : start + AT_ONCE]
            same = (sketch_rows[some[0]] == sketch_rows[some[1]]).mean(axis=1)
            likely.append(some[:, same >= FLOOR / 1000 - _SLACK])
    # a pair is found in several bands
    return np.unique(np.sort(np.concatenate(likely, axis=1), axis=0), axis=1)


def _neighbours(sketch_rows: Sketches, part: int, num_parts: int) -> Iterator[Rows]:
    """Pairs of rows near each other in a bucket of the part, band by band."""
    bands = sketch_rows.view("<u8")
    for band in range(BANDS):
        # a part holds whole buckets: those whose band is this number, modulo
        mine = np.flatnonzero(bands[:, band] % np.uint64(num_parts) == part)
        after = bands[mine, (band + 1) % BANDS]
        order = mine[np.lexsort((after, bands[mine, band]))]
        # each row with the WINDOW behind it; where no bucket is so long, none has a longer one
        bucket = bands[order, band]
        for step in range(1, WINDOW + 1):
            together = bucket[step:] == bucket[:-step]
            if not together.any():
                break
            yield np.stack([order[:-step][together], order[step:][together]])


def similarity(sets: Sets, pairs: Rows) -> NDArray[np.int64]:
    """Jaccard similarity of each pair of sets, in whole per mille, rounded down."""
    per_mille = np.zeros(pairs.shape[1], np.int64)
    for start in range(0, pairs.shape[1], AT_ONCE):
        some = pairs[:, start : start + AT_ONCE]
        # a hash that both sets of a pair hold is there twice when the two are sorted together
        both = [_keyed(_taken(sets, rows)) for rows in some]
        keys = np.sort(np.concatenate(both))
        twice = keys[1:][keys[1:] == keys[:-1]] >> np.uint64(32)
        shared = np.bincount(twice.astype(np.int64), minlength=some.shape[1])
        union = sets.sizes[some].sum(axis=0) - shared
        per_mille[start : start + AT_ONCE] = 1000 * shared // union
    return per_mille


def _keyed(sets: Sets) -> Hashes:
    """The hashes of each set with the number of its row above them."""
    row = np.repeat(np.arange(len(sets.sizes)), sets.sizes).astype(np.uint64)
    keys: Hashes = row << np.uint64(32) | sets.values
    return keys
