"""Packed ids and texts are what a dictionary and a list of them would be."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources import numbered
from pipeline.sources.numbered import NumberedIds, NumberedTexts


def id_of(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()[:16]


@given(st.lists(st.integers(0, 40)), st.lists(st.integers(0, 80)))
def test_ids_are_numbered_as_they_come(added: list[int], asked: list[int]) -> None:
    ids = NumberedIds()
    expected: dict[int, int] = {}
    for number in added:
        assert ids.add(id_of(number)) == expected.setdefault(number, len(expected))
    assert len(ids) == len(expected)
    assert [ids.find(id_of(number)) for number in asked] == [expected.get(n, -1) for n in asked]


def test_ids_that_begin_alike_are_apart_and_all_are_found_as_the_table_grows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(numbered, "_LEAST", 2)
    ids = NumberedIds()
    many = [bytes(8) + number.to_bytes(8, "big") for number in range(300)]  # all in one slot
    assert [ids.add(each) for each in many] == list(range(300))
    assert [ids.find(each) for each in many] == list(range(300))
    assert ids.find(b"\xff" * 16) == -1


@given(st.lists(st.text()))
def test_texts_are_kept_as_they_are(texts: list[str]) -> None:
    kept = NumberedTexts()
    for text in texts:
        kept.append(text)
    assert [kept[n] for n in range(len(kept))] == texts
    kept.append("half \ud83d")
    assert kept[len(texts)] == "half \ud83d"
