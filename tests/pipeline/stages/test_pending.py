"""Which media are to be decoded, in which order and for whom, beside a plain definition."""

from __future__ import annotations

import time
from itertools import groupby
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.stages import pending
from pipeline.stages.media_rows import MediaRow
from shards.index import MEDIA, table_of
from shards.pool import Pool
from shards.profile import Profile
from shards.receipts import Work

MEDIUM = st.tuples(st.integers(0, 40), st.sampled_from("abc"))


def row(clip: int, folder: str) -> dict[str, Any]:
    """A clip may lie in several folders; what it is follows from its number."""
    return {
        "clip_id": f"{clip * 7919:032x}",
        "media_digest": f"{clip:064x}",
        "kind": "image" if clip % 3 else "video",
        "address": f"file:/{folder}/{clip % 5}/{clip}",
        "span": None if clip % 4 else [clip, clip + 10],
    }


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(MEDIUM, max_size=30), max_size=3), st.integers(1, 6), st.integers(1, 1 << 40)
)
def test_media_are_decoded_once_in_the_order_of_their_addresses(
    sources: list[list[tuple[int, str]]], size: int, chosen: int
) -> None:
    pool = Pool(f"memory://pool-{time.monotonic_ns()}", Profile())
    admitted = {}
    first: dict[str, dict[str, Any]] = {}
    users: dict[str, set[str]] = {}
    for number, media in enumerate(sources):
        rows = [row(*medium) for medium in media]
        table = table_of(MEDIA, rows)
        # an admission of many rows has several tables
        tables = {"index/media": [table.slice(0, 10), table.slice(10)]}
        admitted[f"s{number}"] = pool.commit(Work("admit", "1", {}, [str(number)]), tables)
        for each in rows:
            first.setdefault(each["clip_id"], each)
            users.setdefault(each["clip_id"], set()).add(f"s{number}")
    ordered = sorted(first.values(), key=lambda one: (one["kind"], one["address"], one["clip_id"]))
    wanted = pending.Wanted(pool, admitted)
    ids = [clip for clips in wanted.clip_ids() for clip in clips]
    assert ids == [one["clip_id"] for one in ordered] and len(wanted) == len(ids)
    assert {clip: wanted.users(clip) for clip in ids} == users
    left = [bool(chosen >> n & 1) for n in range(len(ids))]
    some = (one for one, is_left in zip(ordered, left, strict=True) if is_left)
    kinds = groupby((MediaRow.of(one) for one in some), key=lambda one: one.kind)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pending, "per_part", lambda _: size)
        units = list(wanted.units(np.array(left, np.bool_)))
    groups = [tuple(group) for _, group in kinds]
    assert units == [group[at : at + size] for group in groups for at in range(0, len(group), size)]
