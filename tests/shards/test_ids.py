"""Identities: one spelling, golden values, no floats."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.ids import (
    ListHash,
    canonical_json,
    clip_id,
    normalise,
    sample_key,
    short_hash,
    turns_digest,
    work_id,
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=20,
)


@given(VALUES)
def test_canonical_json_says_what_it_was_given(value: Any) -> None:
    data = canonical_json(value)
    assert json.loads(data) == value
    assert canonical_json(json.loads(data)) == data


@given(st.lists(st.lists(st.text(st.characters(codec="utf-8")), min_size=1)))
def test_a_list_is_hashed_some_at_a_time(pieces: list[list[str]]) -> None:
    hashed = ListHash()
    for piece in pieces:
        hashed.add(piece)
    assert hashed.short() == short_hash([text for piece in pieces for text in piece])


def test_floats_are_refused_at_any_depth() -> None:
    with pytest.raises(ValueError, match="float"):
        canonical_json({"a": [1, {"b": 0.5}]})


def test_golden_ids() -> None:
    # computed with sha256sum on the canonical JSON written out by hand
    turns = turns_digest([("user", "Which  digit\nis this?", [0]), ("assistant", "7", [])])
    assert turns == turns_digest([("user", "Which digit is this?", [0]), ("assistant", "7", [])])
    assert turns == "f83d0cf21c36535b189d17ddda4c72a8"
    clip = clip_id("ab" * 32, "video", (0, 1_500_000), "cd" * 16)
    assert clip == "05e357b0f405b33e460e2641cc914d42"
    assert sample_key(turns, [clip]) == "fd427162a5f4b026264e47ba8cb7c2c3"
    assert work_id("decode", "1", {}, []) != work_id("decode", "2", {}, [])


def test_the_order_of_clips_and_their_place_in_turns_count() -> None:
    assert sample_key("t", ["a", "b"]) != sample_key("t", ["b", "a"])
    assert turns_digest([("user", "x", [0])]) != turns_digest([("user", "x", [1])])


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)
