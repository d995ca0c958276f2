"""Spilled rows leave in order, each key once, whatever is on disk and whatever in memory."""

from __future__ import annotations

import hashlib
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.sources import spilled
from pipeline.sources.spilled import SpilledRows
from shards.index import table_of

SCHEMA = pa.schema([("key", pa.string()), ("other", pa.string()), ("values", pa.list_(pa.int64()))])
ROWS = st.lists(st.tuples(st.integers(0, 60), st.sampled_from("ab")), max_size=120)


def row(number: int, other: str, at: int) -> dict[str, Any]:
    key = hashlib.sha256(str(number).encode()).hexdigest()[:32]
    return {"key": key, "other": other, "values": None if number % 3 else [at]}


def through(rows: list[dict[str, Any]], *keys: str) -> list[pa.Table]:
    with SpilledRows(SCHEMA, keys) as some:
        for each in rows:
            some.append(each)
        return list(some.tables())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS)
def test_rows_leave_sorted_and_each_key_once(
    monkeypatch: pytest.MonkeyPatch, made: list[tuple[int, str]]
) -> None:
    rows = [row(number, other, at) for at, (number, other) in enumerate(made)]
    last = {(each["key"], each["other"]): each for each in rows}
    expected = table_of(SCHEMA, [last[name] for name in sorted(last)])
    assert through(rows, "key", "other") == [expected]
    # on disk, and in tables of a few rows
    with monkeypatch.context() as small:
        small.setattr(spilled, "IN_MEMORY", 7)
        small.setattr(spilled, "TABLE", 20)
        tables = through(rows, "key", "other")
    assert pa.concat_tables(tables).combine_chunks() == expected
    assert all(len(table) >= 20 for table in tables[:-1])
    assert all(len(table) < 60 for table in tables)


def test_rows_without_keys_leave_as_they_came(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row(number % 5, "a", number) for number in range(50)]
    assert through(rows) == [table_of(SCHEMA, rows)]
    monkeypatch.setattr(spilled, "IN_MEMORY", 7)
    monkeypatch.setattr(spilled, "TABLE", 20)
    tables = through(rows)
    assert len(tables) > 1 and pa.concat_tables(tables).to_pylist() == rows
    assert through([]) == [SCHEMA.empty_table()]


def test_which_rows_a_table_holds_does_not_depend_on_their_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spilled, "IN_MEMORY", 7)
    monkeypatch.setattr(spilled, "TABLE", 20)
    rows = [row(number, "a", 0) for number in range(100)]
    assert through(rows, "key") == through(rows[::-1], "key")
