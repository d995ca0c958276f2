"""Hashed n-grams of words: the same for every spelling, on every machine, in any batch."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.dedup.shingles import ngrams, wholes, words_of
from tests.support.words import said

WORDS = [11576799534331179856, 8062822306248221278, 1940848846483342034, 13156687649317028261]
WHOLE = 84864643988542305
GRAMS = [15932494791024949601, 13432792245246390065]
TEXTS = st.lists(st.text(alphabet="aBc é1?! \n", max_size=24), max_size=8)


def grams_of(text: str, size: int) -> list[int]:
    grams, ends = ngrams(words_of([text]), size)
    assert ends.tolist() == [0, len(grams)]
    return grams.tolist()


def test_case_white_space_punctuation_and_unicode_form_do_not_count() -> None:
    twins = [
        "Où est le café ?",
        "ou\N{COMBINING GRAVE ACCENT} EST   le\ncafe\N{COMBINING ACUTE ACCENT}",
    ]
    assert len(set(wholes(words_of(twins)).tolist())) == 1
    assert len(set(wholes(words_of(["a b c", "a c b", "ab c", "a b"])).tolist())) == 4


def test_the_hashes_are_those_of_every_other_machine() -> None:
    words = words_of(["Which digit is this?", "", "?"])
    assert words.ends.tolist() == [0, 4, 4, 4]
    assert words.words.tolist() == WORDS
    assert wholes(words).tolist() == [WHOLE, 0, 0]
    assert ngrams(words, 3)[0].tolist() == GRAMS


@settings(deadline=None)
@given(TEXTS, st.integers(1, 4))
def test_equal_ngrams_have_equal_hashes_and_others_do_not(texts: list[str], size: int) -> None:
    grams, ends = ngrams(words_of(texts), size)
    named: dict[tuple[str, ...], int] = {}
    for text, start, stop in zip(texts, ends[:-1], ends[1:], strict=True):
        words = said(text)
        expected = [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]
        assert len(expected) == stop - start
        for gram, number in zip(expected, grams[start:stop].tolist(), strict=True):
            assert named.setdefault(gram, number) == number
    assert len(set(named.values())) == len(named)


@settings(deadline=None)
@given(TEXTS)
def test_a_text_has_the_same_hashes_alone_and_among_others(texts: list[str]) -> None:
    every = words_of(texts)
    assert wholes(every).tolist() == [int(wholes(words_of([text]))[0]) for text in texts]
    grams, ends = ngrams(every, 2)
    alone = [grams_of(text, 2) for text in texts]
    assert [grams[a:b].tolist() for a, b in pairwise(ends)] == alone
    assert every.words.dtype == grams.dtype == np.uint64
